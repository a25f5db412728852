"""A potential as a reference method: a teacher, whose labels cost little, for another model to learn from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlmm.errors import ConfigError
from mlmm.options import check_fields, documented, setting, word
from mlmm.reference.labels import Label, Molecule
from mlmm.reference.method import Stopwatch, check_molecule, failed

__all__ = ["PotentialMethod"]


@documented
@dataclass(frozen=True)
class PotentialMethod:
    """A potential of mlmm, by name or file, in open boundaries."""

    #: Among charges if the potential sees them; one that does not refuses such a molecule.
    point_charges: ClassVar[bool] = True

    potential: str = setting(
        "ani1x", "name or file, as in [potential] of a run file", example="runs/first/model.safetensors"
    )
    precision: str = word("float64", ("float64", "float32"), "of its network")

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def title(self) -> str:
        """Name of the potential; the beginning of the hash of its file, since files change."""
        path = Path(self.potential)
        if not path.is_file():
            return f"potential {self.potential}"
        return f"potential {path.name} {_hash(str(path), path.stat().st_mtime_ns)}"

    def label(self, molecule: Molecule) -> Label:
        """Energy, forces, and forces on the point charges around.

        Raises
        ------
        ConfigError
            Point charges, a charge or an element that the potential does not know.
        PotentialError
            A potential that cannot be loaded.
        """
        from mlmm.potentials.base import energy_and_all_forces

        watch = Stopwatch()
        model = _loaded(self.potential, self.precision)
        check_molecule(self, molecule, most=0, elements=model.spec.elements)
        _check_state(molecule, model.spec)
        energy, forces, outer = energy_and_all_forces(model, molecule.structure())
        energy += sum(model.spec.reference_energies.get(int(z), 0.0) for z in molecule.numbers)
        record = {"program": "mlmm", "settings": f"potential {self.potential}, precision {self.precision}"}
        on_charges = None if molecule.external is None else outer.numpy()
        parts = [np.asarray(energy), forces.numpy(), *([] if on_charges is None else [on_charges])]
        if not all(np.isfinite(part).all() for part in parts):
            return failed(self, "energy or forces that are not finite", record, watch)
        facts = {**record, "seconds": str(watch)}
        return Label(float(energy), forces.numpy(), on_charges, method=self.title, record=facts)


def _check_state(molecule: Molecule, spec: Any) -> None:
    """Refuse charges around, a charge or an open shell that the potential would not see."""
    if molecule.external is not None and spec.external == "none":
        raise ConfigError(
            "a potential that sees point charges, for a molecule among them",
            spec.name,
            'take one that was trained among charges, or write radius = "0 nm" in [structures]',
        )
    if spec.trained_charges and molecule.charge not in spec.trained_charges:
        known = " or ".join(f"{charge:+d}" for charge in spec.trained_charges)
        raise ConfigError(
            f"charge {known} for {spec.name}, which was trained on such molecules alone",
            f"charge {molecule.charge:+d}",
            "choose another method for this molecule",
        )
    if molecule.multiplicity != 1 and not spec.spins:
        raise ConfigError(
            f"multiplicity 1 for {spec.name}, which describes closed shells",
            f"multiplicity {molecule.multiplicity}",
            "choose another method for this molecule",
        )


@lru_cache(maxsize=2)
def _loaded(name: str, precision: str) -> Any:
    """The potential, once for each process."""
    from mlmm.potentials.registry import load_potential

    return load_potential(name, precision=precision)


@lru_cache(maxsize=8)
def _hash(path: str, changed: int) -> str:
    """The beginning of the SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]
