"""Make ``amp_bms.safetensors`` from the published weights of AMP-BMS.

    python convert_amp_bms.py MIN_state_dict.safetensors

The input holds the tensors of ``source/model_weights/MIN_state_dict`` of github.com/rinikerlab/amp_bms
(commit 935f178, MIT) by their names, as float32. Left out are the masses, which the energy does not use.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

ABOUT = {
    "origin": "github.com/rinikerlab/amp_bms 935f178, source/model_weights/MIN_state_dict",
    "licence": "MIT",
    "citation": "M. Thürlemann et al., J. Am. Chem. Soc. 148, 28133 (2026), doi 10.1021/jacs.6c00217",
    "level_of_theory": "see doi 10.1021/jacs.6c00217",
    # The energy terms were fitted with this value, so that it belongs to the weights.
    "bohr_angstrom": "0.5291772105638411",
}


def main(source: str) -> None:
    with safe_open(source, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if "MASSES" not in name}  # noqa: SIM118
    save_file(tensors, Path(__file__).with_name("amp_bms.safetensors"), ABOUT)


if __name__ == "__main__":
    main(sys.argv[1])
