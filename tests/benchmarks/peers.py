"""torchani and OpenMM-ML with the project's own weights, to be compared with."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Sequence
from unittest import mock

import openmm
import torch

from mlmm.build import BuiltSystem
from mlmm.errors import MissingPackageError
from mlmm.potentials.ani.potential import ANIPotential

__all__ = ["missing_peer", "openmm_ml_system", "torchani_model"]

_INSTALL = "pip install openmmml==1.8 torchani==2.9.0"


def missing_peer() -> str | None:
    """What OpenMM-ML with torchani lacks here, or None."""
    missing = [name for name in ("openmmml", "torchani") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed: {_INSTALL}" if missing else None


def torchani_model(potential: ANIPotential, kind: str, dtype: torch.dtype) -> torch.nn.Module:
    """torchani's ANI-1x or ANI-2x with the weights of `potential`; its symmetry functions are torchani's own.

    Parameters
    ----------
    potential : ANIPotential
    kind : {"1x", "2x"}
    dtype : torch.dtype
    """
    os.environ.setdefault("TORCHANI_NO_WARN_EXTENSIONS", "1")
    import torchani.models
    from torchani.arch import Assembler

    parameters = potential.parameters
    assembler = Assembler(periodic_table_index=True)
    assembler.set_symbols(getattr(torchani.models, f"SYMBOLS_{kind.upper()}"))
    assembler.set_atomic_networks(ctor=f"ani{kind}")
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(angular=f"ani{kind}", radial=f"ani{kind}", strategy="pyaev")
    assembler.set_neighborlist("all_pairs")
    assembler.set_gsaes_as_self_energies("wb97x-631gd")
    model = assembler.assemble(parameters.members)
    weights = {}
    for element in parameters.elements:
        depth = len(parameters.weights[element])
        for k in range(depth):
            layer = "final_layer" if k == depth - 1 else f"layers.{k}"
            for m in range(parameters.members):
                # An ensemble of one is stored without the "members" level.
                member = f"members.{m}." if parameters.members > 1 else ""
                name = f"potentials.nnp.neural_networks.{member}atomics.{element}.{layer}"
                weights[f"{name}.weight"] = torch.from_numpy(parameters.weights[element][k][m])
                weights[f"{name}.bias"] = torch.from_numpy(parameters.biases[element][k][m])
    result = model.load_state_dict(weights, strict=False)
    lacking = [key for key in result.missing_keys if "neural_networks" in key]
    if result.unexpected_keys or lacking:
        raise MissingPackageError(
            "torchani 2.9, whose networks have known names",
            f"others: {(result.unexpected_keys or lacking)[:2]}",
            _INSTALL,
        )
    model = model.to(dtype)
    order = [parameters.elements.index(symbol) for symbol in model.symbols]
    model.energy_shifter.self_energies = torch.tensor(parameters.self_energies[order], dtype=torch.float64)
    model.requires_grad_(False)
    return model


def openmm_ml_system(
    built: BuiltSystem, atoms: Sequence[int], potential: ANIPotential, kind: str, group: int
) -> openmm.System:
    """OpenMM-ML's mechanical embedding of a region, its own code with the weights of `potential`.

    OpenMM-ML knows two ANI models by name; the third way in is its plug-in point: the loading of torchani's
    model is all that differs from the release.

    Parameters
    ----------
    built : BuiltSystem
    atoms : sequence of int
    potential : ANIPotential
    kind : {"1x", "2x"}
    group : int
        Force group of the potential.

    Raises
    ------
    MissingPackageError
    """
    problem = missing_peer()
    if problem is not None:
        raise MissingPackageError("OpenMM-ML with torchani", problem, _INSTALL)
    model = torchani_model(potential, kind, torch.float32)
    import torchani.models
    from openmmml import MLPotential
    from openmmml.mlpotential import MLPotentialImplFactory
    from openmmml.models.anipotential import ANIPotentialImpl

    class SameWeights(ANIPotentialImpl):
        def addForces(self, *arguments, **named):  # noqa: N802, OpenMM-ML's name
            with mock.patch.object(torchani.models, "ANI2x", lambda **_: model):
                super().addForces(*arguments, **named)

    class Factory(MLPotentialImplFactory):
        def createImpl(self, name, **_):  # noqa: N802, OpenMM-ML's name
            return SameWeights("ani2x")

    MLPotential.registerImplFactory("mlmm-benchmarks", Factory())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = MLPotential("mlmm-benchmarks")
        return peer.createMixedSystem(built.topology, built.system, list(atoms), forceGroup=group)
