#!/usr/bin/env bash
# On a machine with a GPU: compiles the plugin, checks forces against Reference, times steps. Some four minutes.
#   tests/benchmarks/gpu.sh [CUDA | HIP | OpenCL] [--quick]
# Needs an environment with mlmm's packages and OpenMM for the GPU, such as  pip install -e ".[cuda]"; PYTHON names it.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
"$python" -m pip install -q --no-deps -e .
"$python" -m pytest -q tests/plugin -p no:cacheprovider
PYTHONPATH="$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m benchmarks.gpu "$@"
