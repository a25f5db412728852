"""The sections of a run file about the potential, and who owns which interaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlmm.options import Quantity, number, quantity, setting, word

__all__ = ["EmbeddingSettings", "PotentialSettings"]


@dataclass(frozen=True)
class PotentialSettings:
    """The machine-learned potential and where it is evaluated."""

    name: str = setting(
        "ani1x", "name (mlmm models lists them) or file of a potential", path=True, example="ani1x"
    )
    members: Sequence[int] = setting((), "members of a committee; empty: all", item=int, example=[0, 1])
    precision: str = word(
        "float32", ("float32", "float64"), "arithmetic of the networks; geometry and sums are float64 always"
    )
    device: str = setting("cpu", "torch device of the networks", example="cuda")
    kernel: str = word(
        "auto",
        ("auto", "torch", "native"),
        "evaluate ANI, field-aware ANI and AMP-BMS in torch or in C++; auto: C++ on a processor",
    )
    bridge: str = word(
        "auto",
        ("auto", "torchforce", "pythonforce", "native"),
        "how OpenMM calls the potential; all give the same numbers, auto takes the fastest",
    )
    polarisation_scaling: float | None = number(
        None,
        "amp-bms, embedded: factor of what the charges around do to its dipoles and quadrupoles, 0 to 1; "
        "left out: that of the weights, 0.35 as published for simulations in water; 1: the fit to DFT",
        optional=True,
        least=0,
        most=1,
        example=1.0,
    )
    trust: bool = setting(
        False, "read a pickle, which runs code when it is loaded, or TorchScript that touches files"
    )


@dataclass(frozen=True)
class EmbeddingSettings:
    """Who owns which interaction."""

    scheme: str = word(
        "auto",
        ("auto", "per_atom", "supermolecular", "additive", "delta"),
        "how both energies are combined; auto: additive where the region is whole molecules without a zone, "
        "else per_atom, as far as that suits the potential and the other keys. per_atom: lambda times the "
        "energy of each atom; supermolecular: region and surroundings less surroundings; additive: the "
        "region by itself, caps on cut bonds; delta: a correction to the force field",
        instead={
            "mechanical": 'write scheme = "additive" and electrostatics = "mechanical"',
            "electrostatic": 'write scheme = "additive" and electrostatics = "embedded"',
        },
    )
    mm_tail: bool = setting(
        False, "scheme additive: leave pairs of the region beyond the potential's range to the force field"
    )
    keep: Sequence[str] = setting(
        (), "forces that stay whole although they act inside the region (biases)", example=["CustomCVForce"]
    )
    electrostatics: str = word(
        "mechanical",
        ("mechanical", "charges", "embedded"),
        "fixed charges of the force field; those that the potential predicts at every step (per_atom, "
        "additive); or electrostatic embedding: polarised by all charges around (additive, amp-bms)",
    )
    charges: str = word(
        "force field",
        ("force field", "model"),
        "fixed charges of the region: those of the force field, or predicted once in the built structure",
    )
    charge_range: Quantity = quantity(
        "1.2 nm", "length", "where predicted charges cease to act in a periodic system", above=0
    )
    charge_width: Quantity = quantity(
        "0.03 nm",
        "length",
        "standard deviation of the Gaussian charges around an embedded region, up to 0.05 nm; 0 nm: points",
        least=0,
    )
    far_field: str = word(
        "ewald", ("ewald", "reaction_field"), "charges by Ewald's sum; or to 1.2 nm, then a medium"
    )
    far_permittivity: float | None = number(
        None,
        "relative permittivity of that medium; left out: 78.4, water; 1: no medium",
        optional=True,
        least=1,
        most=1e6,
        example=4.0,
    )
