"""Facts of a potential: what the engine has to know of it without evaluating it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlmm.elements import SYMBOLS
from mlmm.errors import PotentialError
from mlmm.potentials.calibration import Calibration
from mlmm.short_repr import ShortRepr, shortened

__all__ = ["EXTERNAL", "PotentialSpec", "ShortOfSpec"]

#: What a model may take of the charges around a region.
EXTERNAL = ("none", "charges", "potential")


@dataclass(frozen=True, repr=False)
class PotentialSpec(ShortRepr):
    """What a potential is, so that the engine can tell where it may be used.

    Parameters
    ----------
    name : str
        As shown in reports and by ``mlmm models``.
    elements : tuple of int
        Atomic numbers that the model knows.
    cutoff : float
        Largest distance of a direct neighbour, nm.
    receptive_field : float
        Distance beyond which no atom can change an atom's energy, nm: layers times cutoff for message
        passing.
    trained_on : {"total", "isolated", "correction"}
        Total energies with intermolecular contacts, isolated molecules, or a correction to a force field.
    per_atom : bool
        Whether the model gives meaningful per-atom energies.
    charges : bool
        Whether the model takes the net charge into account and predicts atomic charges: every atom then
        depends on the charge of the whole, and only whole, capped regions can be described.
    trained_charges : tuple of int
        Net charges of the molecules that a model was trained on which does not take the charge into account:
        a region of another charge is refused. Empty where that is not known: then there is a warning.
    external : {"none", "charges", "potential"}
        What the model takes of charges around a region: nothing, and then it refuses them; the charges
        themselves within `polarisation_range`; or their potential and its derivatives at the atoms. What its
        TorchScript form has then, see `PotentialModel`.
    polarisation_range : float
        Distance up to which the charges themselves change the energy within a region and its multipoles, nm;
        0 for a model that does not see them.
    polarisation_scaling : float
        Factor of what these charges polarise, as the model was loaded; 1 is that of its fit.
    spins : bool
        Whether the model takes the multiplicity into account; without it only closed shells are described.
    long_range : bool
        Whether the model has interactions beyond the receptive field (then none is declared).
    members : int
        Number of members of a committee.
    reference_energies : mapping of int to float
        Isolated-atom energy by atomic number, kJ/mol; removed from every energy that the model returns.
    alignment : mapping of int to float
        Constant for each atomic number that is added to the energies, kJ/mol, so that the members of a
        committee, or the ends of an adaptive zone, have one zero; see `mlmm.potentials.align_energies`.
    precision : {"float32", "float64"}
        Arithmetic of the networks; geometry and sums are float64 always.
    native_units : tuple of (str, str)
        Energy and length of the model itself; converted where it is called, once.
    layers : int
        Message-passing depth, 1 for a strictly local model; the receptive field is at most layers × cutoff.
    deterministic : bool
        Whether two calls with one input give the same bits.
    calibration : Calibration, optional
        What the model's own uncertainty is worth, measured on labels that it was not trained on.
    level_of_theory, licence, citation : str
        For the record.
    """

    name: str
    elements: tuple[int, ...]
    cutoff: float
    receptive_field: float
    trained_on: str
    per_atom: bool = True
    charges: bool = False
    trained_charges: tuple[int, ...] = ()
    external: str = "none"
    polarisation_range: float = 0.0
    polarisation_scaling: float = 1.0
    spins: bool = False
    long_range: bool = False
    members: int = 1
    reference_energies: Mapping[int, float] = field(default_factory=dict)
    alignment: Mapping[int, float] = field(default_factory=dict)
    precision: str = "float64"
    native_units: tuple[str, str] = ("kJ/mol", "nm")
    layers: int = 1
    deterministic: bool = True
    calibration: Calibration | None = None
    level_of_theory: str = "not stated"
    licence: str = "not stated"
    citation: str = "not stated"

    def __post_init__(self) -> None:
        if self.external not in EXTERNAL or (self.external == "charges") != (self.polarisation_range > 0.0):
            raise PotentialError(
                f"external = {' | '.join(EXTERNAL)}, with a polarisation_range for charges alone",
                f"{self.external!r} and {self.polarisation_range:g} nm",
                "declare what the model takes",
            )

    def _summary(self) -> dict[str, str]:
        trained = {"isolated": "isolated molecules", "correction": "a correction to the force field"}
        known = ", ".join(f"{charge:+d}" if charge else "0" for charge in self.trained_charges)
        return {
            "name": self.name,
            "elements": shortened(" ".join(SYMBOLS[z] for z in self.elements)),
            "members": str(self.members),
            "trained on": trained.get(self.trained_on, f"{self.trained_on} energies"),
            "charge": "any" if self.charges else known,
            "takes of charges around it": "" if self.external == "none" else self.external,
            "precision": self.precision,
            "level of theory": "" if self.level_of_theory == "not stated" else self.level_of_theory,
        }


class ShortOfSpec(ShortRepr):
    """A potential that is shown as its spec is."""

    spec: PotentialSpec

    def _summary(self) -> dict[str, str]:
        return self.spec._summary()
