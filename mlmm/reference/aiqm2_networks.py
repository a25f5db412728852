"""The eight networks of AIQM2 in torch, float64: energies and the gradient of their mean.

Networks 384-160-128-96-1 (H), 384-144-112-96-1 (C), 384-128-112-96-1 (N, O) with the exact GELU, on symmetry
functions as those of ANI-1x (doi:10.1039/C6SC05720A) but for Rca = 4 Å and ShfA.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mlmm.elements import SYMBOLS
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.ani.symmetry_functions import SymmetryFunctions
from mlmm.reference.aiqm2_files import ELEMENTS, read_networks
from mlmm.units import ANGSTROM, BOHR

__all__ = ["CONSTANTS", "AIQM2Networks"]


def _rounded(numbers: np.ndarray | list[float]) -> np.ndarray:
    """Numbers as they were published: rounded to float32."""
    return np.asarray(numbers, dtype=np.float32).astype(np.float64)


#: Angstrom and radian, named as in ANI's parameter files.
CONSTANTS: dict[str, np.ndarray] = {
    "Rcr": np.array(5.2),
    "Rca": np.array(4.0),
    "EtaR": np.array([16.0]),
    "ShfR": _rounded(0.9 + 0.26875 * np.arange(16)),
    "EtaA": np.array([8.0]),
    "Zeta": np.array([32.0]),
    "ShfA": _rounded([0.9, 1.675, 2.4499998, 3.225]),
    "ShfZ": _rounded(np.pi / 16 + np.pi / 8 * np.arange(8)),
}


class AIQM2Networks:
    """Correction energies of the eight networks.

    Parameters
    ----------
    folder : Path
        With ``cv0.pt`` … ``cv7.pt``.

    Raises
    ------
    PotentialError
        Other files than the published ones.
    """

    def __init__(self, folder: Path):
        self._layers = {
            element: [(torch.from_numpy(w).double(), torch.from_numpy(b).double()) for w, b in layers]
            for element, layers in read_networks(folder).items()
        }

    def environments(self, numbers: np.ndarray, positions: torch.Tensor) -> torch.Tensor:
        """Symmetry functions (N, 384) for positions in angstrom."""
        species = torch.tensor([ELEMENTS.index(SYMBOLS[int(number)]) for number in numbers])
        parameters = ANIParameters(ELEMENTS, CONSTANTS, np.zeros(len(ELEMENTS)), {}, {})
        functions = SymmetryFunctions(parameters, species, torch.arange(len(numbers)), torch.float64)
        return functions(positions, None)

    def __call__(self, numbers: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies (8,) in hartree, and the gradient (N, 3) of their mean in hartree/bohr.

        Parameters
        ----------
        numbers : ndarray, shape (N,)
            Of H, C, N, O.
        positions : ndarray, shape (N, 3), nm
        """
        angstrom = torch.tensor(positions / ANGSTROM, dtype=torch.float64, requires_grad=True)
        environments = self.environments(numbers, angstrom)
        symbols = np.array([SYMBOLS[int(number)] for number in numbers])
        energies = torch.zeros(len(self._layers["H"][0][0]), dtype=torch.float64)
        for element in sorted(set(symbols)):
            x = environments[torch.from_numpy(np.flatnonzero(symbols == element))]
            *hidden, (last_weight, last_bias) = self._layers[element]
            x = x.expand(len(energies), -1, -1)
            for weight, bias in hidden:
                x = torch.nn.functional.gelu(torch.baddbmm(bias[:, None], x, weight.transpose(1, 2)))
            energies = energies + torch.baddbmm(last_bias[:, None], x, last_weight.transpose(1, 2)).sum(
                (1, 2)
            )
        (gradient,) = torch.autograd.grad(energies.mean(), angstrom)
        return energies.detach().numpy(), gradient.numpy() * (BOHR / ANGSTROM)
