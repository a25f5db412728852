"""Make ``ani1x.safetensors`` from the PyPI wheel ``torchani==1.2``.

    pip download --no-deps torchani==1.2
    python mlmm/data/convert_ani.py torchani-1.2-py3-none-any.whl mlmm/data/ani1x.safetensors

The wheel holds the eight published ANI-1x networks in NeuroChem's format (MIT licence). Nothing but the
container changes: float32 weights and float64 constants are copied bit by bit.
"""

import argparse
import tempfile
import zipfile

from mlmm.potentials.ani.files import save_ani_file
from mlmm.potentials.ani.neurochem import read_neurochem

ABOUT = {
    "name": "ANI-1x",
    "trained_on": "total",
    "level_of_theory": "wB97X/6-31G(d)",
    "licence": "MIT",
    "citation": "J. S. Smith, B. Nebgen, N. Lubbers, O. Isayev, A. E. Roitberg, J. Chem. Phys. 148, "
    "241733 (2018), doi 10.1063/1.5023802",
    "origin": "PyPI wheel torchani==1.2, torchani/resources/ani-1x_8x",
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", help="torchani-1.2-py3-none-any.whl")
    parser.add_argument("output", help="safetensors file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(arguments.wheel) as wheel:
        prefix = "torchani/resources/ani-1x_8x/"
        wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith(prefix)])
        save_ani_file(read_neurochem(f"{folder}/{prefix}"), arguments.output, ABOUT)
