#!/usr/bin/env bash
# On a machine with a GPU: compiles the plugin, checks forces against Reference, times steps. Some four minutes.
#   tests/benchmarks/gpu.sh [CUDA | HIP | OpenCL] [--quick]
# Needs an environment with mlmm's packages and OpenMM for the GPU, such as  pip install -e ".[cuda]"; PYTHON names it.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
"$python" -m pip install -q --no-deps -e .
# Side by side where pytest-xdist is there: most of their time is that of compilers.
workers=$("$python" -c 'import xdist' 2> /dev/null && echo "-n 8" || true)
# shellcheck disable=SC2086
"$python" -m pytest -q $workers tests/plugin tests/hybrid/test_blends_on_a_gpu.py -m "slow or not slow" \
  -k "CUDA or HIP or OpenCL" -p no:cacheprovider || failed=1
PYTHONPATH="$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}" "$python" -m benchmarks.gpu "$@" || failed=$?
exit "${failed:-0}"
