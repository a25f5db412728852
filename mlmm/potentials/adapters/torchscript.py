"""A potential from a TorchScript file: the door for any model that can be compiled.

The file's module has ``forward(positions, cell, numbers)``: positions (N, 3) float64, cell (3, 3) float64 or
None, numbers (N,) int64, in the units that its metadata name; it returns per-atom energies (N,), or (K, N)
for K members. The metadata are JSON in the extra file ``mlmm.json``; `save_torchscript` writes both.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import torch

from mlmm.elements import SYMBOLS
from mlmm.errors import PotentialError
from mlmm.modules import Module
from mlmm.potentials.adapters.graph import ENERGY_UNITS, LENGTH_UNITS, check_finite, within_reach
from mlmm.potentials.adapters.script_code import check_script
from mlmm.potentials.base import AtomEnergies, PotentialSpec, check_state
from mlmm.potentials.spec import ShortOfSpec
from mlmm.structures import Structure

__all__ = ["TorchScriptPotential", "is_torchscript", "save_torchscript"]

_EXTRA = "mlmm.json"
_ARGUMENTS = (("positions", "Tensor"), ("cell", "Optional[Tensor]"), ("numbers", "Tensor"))
_REQUIRED = ("name", "elements", "cutoff", "receptive_field", "trained_on", "units")
_OPTIONAL = ("layers", "members", "precision", "level_of_theory", "licence", "citation", "deterministic")


class _Bound(Module):
    """The file's module bound to atomic numbers: (members, centres) in kJ/mol, reference energies removed."""

    def __init__(
        self,
        module: torch.nn.Module,
        numbers: torch.Tensor,
        centres: torch.Tensor,
        references: torch.Tensor,
        units: tuple[float, float],
        reach: float,
    ):
        super().__init__()
        self.module, self.reach = module, reach
        self.energy_unit, self.length_unit = units
        self.numbers = torch.nn.Buffer(numbers)
        self.centres = torch.nn.Buffer(centres)
        self.references = torch.nn.Buffer(references)

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        central = self.centres if centres is None else centres
        positions = positions.to(torch.float64)
        numbers: torch.Tensor = self.numbers
        place, references = central, self.references.index_select(0, central)
        if central.shape[0] < positions.shape[0]:
            # Only what the wanted atoms can see is evaluated.
            seen, place = within_reach(positions, cell, central, self.reach)
            positions, numbers = positions.index_select(0, seen), numbers.index_select(0, seen)
        box: Optional[torch.Tensor] = None
        if cell is not None:
            box = cell.to(torch.float64) / self.length_unit
        energies = self.module(positions / self.length_unit, box, numbers)
        if energies.dim() == 1:
            energies = energies.unsqueeze(0)
        return energies.to(torch.float64).index_select(1, place) * self.energy_unit - references


class TorchScriptPotential(ShortOfSpec):
    """A potential from a TorchScript file.

    Parameters
    ----------
    path : path
    device : str
    trust : bool
        Load also code that reaches beyond arithmetic, such as reading and writing files.

    Raises
    ------
    PotentialError
        No TorchScript, code that is not trusted, another signature, metadata that are missing or unknown,
        weights that are not finite.
    """

    def __init__(self, path: str | Path, device: str = "cpu", trust: bool = False):
        extra = {_EXTRA: ""}
        try:
            if not trust:
                check_script(path)
            self._module = torch.jit.load(str(path), map_location=device, _extra_files=extra).eval()
        except PotentialError:
            raise
        except (RuntimeError, OSError, ValueError) as error:
            raise PotentialError(
                f"a TorchScript file at {path}", _first_line(error), "write it with torch.jit.save"
            ) from error
        _check_signature(self._module, path)
        facts = _facts(extra[_EXTRA], path)
        units = facts["units"]
        self._units = (ENERGY_UNITS[units["energy"]], LENGTH_UNITS[units["length"]])
        self.spec = _spec(facts, self._units)
        self._included = bool(facts.get("reference_energies_included", False))
        self.device = torch.device(device)
        check_finite(self._module, str(path))

    def scriptable(self, numbers: Sequence[int], centres: Sequence[int] | None = None) -> torch.nn.Module:
        """The file's module bound to atomic numbers (and centres)."""
        wanted = range(len(numbers)) if centres is None else centres
        removed = [self.spec.reference_energies.get(int(z), 0.0) if self._included else 0.0 for z in numbers]
        return _Bound(
            self._module,
            torch.tensor([int(z) for z in numbers]),
            torch.tensor([int(c) for c in wanted]),
            torch.tensor(removed, dtype=torch.float64),
            self._units,
            self.spec.receptive_field,
        ).to(self.device)

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """Per-atom energies, kJ/mol; raises what `check_state` raises."""
        check_state(self.spec, structure)
        bound = self.scriptable(structure.numbers.tolist())
        cell = None if structure.cell is None else structure.cell.to(self.device)
        found = bound(structure.positions.to(self.device), cell).to(structure.positions.device)
        return AtomEnergies(found.mean(dim=0), found if len(found) > 1 else None)


def save_torchscript(module: torch.nn.Module, path: str | Path, facts: dict[str, Any]) -> None:
    """Compile a module and write it with its metadata, so that `load_potential(path)` reads it.

    Parameters
    ----------
    module : torch.nn.Module
        ``forward(positions, cell, numbers)`` as above.
    path : path
        Ending in ``.pt``.
    facts : dict
        ``name``, ``elements`` (symbols), ``cutoff`` and ``receptive_field`` (in the length unit),
        ``trained_on`` ("total", "isolated", "bonded" or "correction"), ``units`` such as
        ``{"energy": "eV", "length": "angstrom"}``; optional: ``reference_energies`` by symbol in the energy
        unit, ``reference_energies_included`` (whether the module's energies hold them), ``layers``,
        ``members``, ``precision``, ``level_of_theory``, ``licence``, ``citation``.

    Raises
    ------
    PotentialError
        Metadata that are missing or unknown, or another signature.
    """
    _facts(json.dumps(facts), path)
    scripted = torch.jit.script(module.eval())
    _check_signature(scripted, path)
    torch.jit.save(scripted, str(path), _extra_files={_EXTRA: json.dumps(facts, sort_keys=True)})


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive, which holds code of its own and no pickled Python objects."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _check_signature(module: torch.jit.ScriptModule, path: str | Path) -> None:
    forward: Any = module.forward  # a ScriptMethod, which torch's annotations do not tell
    arguments = forward.schema.arguments[1:]
    found = tuple((argument.name, str(argument.type)) for argument in arguments)
    if found != _ARGUMENTS:
        text = ", ".join(f"{name}: {kind}" for name, kind in found)
        raise PotentialError(
            f"forward(positions: Tensor, cell: Optional[Tensor], numbers: Tensor) in {path}",
            f"forward({text})",
            "wrap the model in a module with that signature and write it with save_torchscript",
        )


def _facts(text: str | bytes, path: str | Path) -> dict[str, Any]:
    """The metadata, once everything in them is known."""
    try:
        facts = json.loads(text or "null")
    except ValueError as error:
        raise PotentialError(f"JSON in {_EXTRA} of {path}", str(error), "use save_torchscript") from error
    if not isinstance(facts, dict):
        raise PotentialError(
            f"metadata in the extra file {_EXTRA} of {path}", "none", "write the file with save_torchscript"
        )
    known = {*_REQUIRED, *_OPTIONAL, "reference_energies", "reference_energies_included"}
    missing, unknown = set(_REQUIRED) - set(facts), set(facts) - known
    if missing or unknown:
        raise PotentialError(
            f"{', '.join(_REQUIRED)} in the metadata of {path}",
            f"missing {sorted(missing)}, unknown {sorted(unknown)}",
            "correct the metadata",
        )
    units = facts["units"]
    if units.get("energy") not in ENERGY_UNITS or units.get("length") not in LENGTH_UNITS:
        raise PotentialError(
            f"units of {' | '.join(ENERGY_UNITS)} and {' | '.join(LENGTH_UNITS)}",
            repr(units),
            'write "units": {"energy": "eV", "length": "angstrom"}',
        )
    strange = [e for e in [*facts["elements"], *facts.get("reference_energies", {})] if e not in SYMBOLS]
    if strange:
        raise PotentialError(f"symbols of elements in {path}", ", ".join(map(str, strange)), "correct them")
    return facts


def _spec(facts: dict[str, Any], units: tuple[float, float]) -> PotentialSpec:
    references = {
        SYMBOLS.index(symbol): float(energy) * units[0]
        for symbol, energy in facts.get("reference_energies", {}).items()
    }
    return PotentialSpec(
        name=facts["name"],
        elements=tuple(SYMBOLS.index(symbol) for symbol in facts["elements"]),
        cutoff=float(facts["cutoff"]) * units[1],
        receptive_field=float(facts["receptive_field"]) * units[1],
        trained_on=facts["trained_on"],
        reference_energies=references,
        native_units=(facts["units"]["energy"], facts["units"]["length"]),
        **{key: facts[key] for key in _OPTIONAL if key in facts},
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
