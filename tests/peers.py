"""torchani and OpenMM-ML with the project's own weights, to be compared with."""

from __future__ import annotations

import os

import torch

os.environ.setdefault("TORCHANI_NO_WARN_EXTENSIONS", "1")

import torchani.models
from torchani.arch import Assembler

from mlmm.potentials.ani import ANIPotential


def torchani_model(potential: ANIPotential, kind: str, dtype: torch.dtype) -> torch.nn.Module:
    """torchani's ANI-1x or ANI-2x with the weights of `potential`; its symmetry functions are torchani's own.

    Parameters
    ----------
    potential : ANIPotential
    kind : {"1x", "2x"}
    dtype : torch.dtype
    """
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
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if "neural_networks" in key]
    model = model.to(dtype)
    order = [parameters.elements.index(symbol) for symbol in model.symbols]
    model.energy_shifter.self_energies = torch.tensor(parameters.self_energies[order], dtype=torch.float64)
    model.requires_grad_(False)
    return model
