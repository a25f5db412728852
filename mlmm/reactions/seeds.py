"""Structures along a path as places where windows start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from openmm import app

from mlmm.build import BuiltSystem
from mlmm.collective_variables.bind import bind_variable
from mlmm.collective_variables.options import Variable
from mlmm.collective_variables.values import value
from mlmm.errors import ConfigError
from mlmm.reactions.windows import Coordinate, Window

__all__ = ["nearest_models"]


def nearest_models(
    path: str, built: BuiltSystem, variable: Variable, windows: Sequence[Window]
) -> list[np.ndarray]:
    """For each window the positions (N, 3) of the model whose value is nearest to its centre, nm.

    Parameters
    ----------
    path : str
        PDB or mmCIF file with the atoms of the system in their order in every model.
    built : BuiltSystem
    variable : Variable
    windows : sequence of Window

    Raises
    ------
    ConfigError
        Another number of atoms, or a file that cannot be read.
    """
    kind = app.PDBxFile if path.lower().endswith((".cif", ".mmcif")) else app.PDBFile
    try:
        file = kind(path)
        models = [file.getPositions(asNumpy=True, frame=k)._value for k in range(file.getNumFrames())]
    except OSError as error:
        raise ConfigError("structures along a path", f"{path}: {error.strerror}", "correct it") from error
    except Exception as error:  # OpenMM's readers raise many kinds
        raise ConfigError(
            "structures along a path in PDB or mmCIF", f"{path}: {error}", "correct it"
        ) from error
    if len(models[0]) != built.n_atoms:
        raise ConfigError(
            f"all {built.n_atoms} atoms of the system in every model of {path}",
            str(len(models[0])),
            "write whole structures of this system, such as final.pdb of a run; a mutant starts from its "
            "own: leave structures out, and its windows start from their neighbours",
        )
    bound = bind_variable(built, variable)
    coordinate = Coordinate(variable.name, "", 2 * np.pi if variable.kind == "torsion" else 0.0)
    cell = None if built.box_vectors is None else torch.tensor(np.array(built.box_vectors))
    values = [float(value(bound, torch.tensor(np.array(model)), cell)) for model in models]
    found = []
    for window in windows:
        apart = np.abs(coordinate.apart(np.array(values), window.centre))
        found.append(np.array(models[int(np.argmin(apart))], dtype=np.float64))
    return found
