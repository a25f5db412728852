"""What a potential keeps among charges: one energy for both sides, charge conserved, vacuum as a limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from mlmm.check_report import CheckResult
from mlmm.errors import PotentialError
from mlmm.potentials.base import PotentialModel, energy_and_all_forces, scriptable_module
from mlmm.potentials.multipoles import multipole_energies, potential_of_charges
from mlmm.structures import ExternalCharges, Structure
from mlmm.units import COULOMB

__all__ = ["charges_around", "external_rows", "refusal_row"]

_FAR = 300.0  # nm: what is not charge or dipole has fallen off
#: nm; of the charges that are tried, from the nearest atom: a hydrogen bond, and the field of a solvent.
_DISTANCES = (0.19, 0.25, 0.4, 0.6, 0.9, 1.3)


def charges_around(structure: Structure, seed: int = 0) -> ExternalCharges:
    """Charges of both signs around a structure, between a hydrogen bond and far away.

    Parameters
    ----------
    structure : Structure
    seed : int
    """
    random = torch.Generator().manual_seed(seed)
    where = structure.positions.detach().to(torch.float64)
    places: list[torch.Tensor] = []
    for k in range(4 * len(_DISTANCES)):
        direction = torch.randn(3, dtype=torch.float64, generator=random)
        direction = direction / direction.norm()
        wanted = _DISTANCES[k % len(_DISTANCES)]
        # From outside to where the nearest atom is as far as wanted.
        outermost = where[int((where @ direction).argmax())]
        place = outermost + wanted * direction
        nearest = float((where - place).norm(dim=1).min())
        places.append(place + max(0.0, wanted - nearest) * direction)
    charges = torch.randn(len(places), dtype=torch.float64, generator=random)
    return ExternalCharges(torch.stack(places), 0.4 * charges)


def refusal_row(model: PotentialModel, structure: Structure) -> CheckResult:
    """A model that does not take charges refuses them instead of passing over them."""
    try:
        model.atom_energies(replace(structure, external=charges_around(structure)))
    except PotentialError:
        silent = 0
    else:
        silent = 1
    return _row("charges around that are passed over in silence (check_state refuses them)", silent, "", 0)


def external_rows(
    model: PotentialModel,
    structure: Structure,
    limits: tuple[float, float, float, float],
    scale: float,
    *,
    compiled: bool = True,
    seed: int = 0,
) -> list[CheckResult]:
    """The clauses for a model that takes charges around.

    Parameters
    ----------
    model : PotentialModel
    structure : Structure
        Open.
    limits : tuple of float
        What arithmetic allows: of energies and of forces as a fraction, of a finite difference, and its
        displacement in nm.
    scale : float
        Of the energies, kJ/mol.
    compiled : bool
        Whether the TorchScript form is tried.
    seed : int
    """
    # An ion with as many unpaired electrons: the charge of the whole is not zero by chance.
    ion = structure.charge + 2 if model.spec.charges else structure.charge
    among = replace(structure, charge=ion, external=charges_around(structure, seed))
    check = _External(model, among, limits, scale)
    rows = [
        *check.charge(),
        *check.finite_differences(),
        *check.whole(),
        *check.nothing(),
        *check.superposition(),
        *check.distant(),
    ]
    if compiled and scriptable_module(model) is not None:
        rows += check.compiled()
    return rows


class _External:
    """The clauses; `structure` has charges around."""

    def __init__(
        self,
        model: PotentialModel,
        structure: Structure,
        limits: tuple[float, float, float, float],
        scale: float,
    ):
        self.model, self.structure, self.spec = model, structure, model.spec
        self.limit, self.force_limit, self.difference, self.step = limits
        assert structure.external is not None
        self.external = structure.external
        self.result = model.atom_energies(structure)
        self.energy, self.forces, self.outer = energy_and_all_forces(model, structure)
        self.vacuum = float(model.atom_energies(replace(structure, external=None)).energies.detach().sum())
        self.scale = max(scale, float(self.result.energies.detach().abs().max()))
        self.largest = max(float(torch.cat([self.forces, self.outer]).norm(dim=1).max()), 1e-12)

    def _energy_among(self, external: ExternalCharges | None) -> float:
        return float(
            self.model.atom_energies(replace(self.structure, external=external)).energies.detach().sum()
        )

    def charge(self) -> list[CheckResult]:
        """Charges are given in the field, and they add up to the net charge."""
        charges = self.result.charges
        missing = int(charges is None or charges.shape != self.result.energies.shape)
        rows = [_row("charges that are not given in the field", missing, "", 0)]
        if charges is not None and not missing:
            error = abs(float(charges.detach().sum()) - self.structure.charge)
            rows.append(_row("in the field: sum of the charges less the net charge", error, "e", 1e-4))
        return rows

    def finite_differences(self) -> list[CheckResult]:
        """Fourth-order central differences, of every atom and of charges near and far."""
        places = self.external.positions
        distances = torch.cdist(places, self.structure.positions.detach()).min(dim=1).values
        order = distances.argsort().tolist()
        chosen = [*order[:3], order[len(order) // 2], order[-1]]

        def move_atom(atom: int, shift: torch.Tensor) -> Structure:
            where = self.structure.positions.detach().clone()
            where[atom] += shift
            return replace(self.structure, positions=where)

        def move_charge(charge: int, shift: torch.Tensor) -> Structure:
            where = places.clone()
            where[charge] += shift
            return replace(self.structure, external=replace(self.external, positions=where))

        rows = []
        for side, members, move, forces in (
            ("atoms", list(range(len(self.structure))), move_atom, self.forces),
            ("charges", chosen, move_charge, self.outer),
        ):
            worst = max(self._misfit(move, k, forces[k]) for k in members)
            noise = self.limit * self.scale / (self.step * self.largest)
            name = f"in the field: finite differences less forces on the {side} / largest force"
            rows.append(_row(name, worst / self.largest, "", self.difference + 0.1 * noise))
        return rows

    def _misfit(
        self, move: Callable[[int, torch.Tensor], Structure], which: int, force: torch.Tensor
    ) -> float:
        """Largest difference between slope and force along three axes, kJ/mol/nm."""
        worst = 0.0
        for axis in torch.eye(3, dtype=torch.float64):
            slope = 0.0
            for factor, weight in ((1, 8.0), (2, -1.0)):
                for sign in (1, -1):
                    moved = move(which, sign * factor * self.step * axis)
                    slope += sign * weight * float(self.model.atom_energies(moved).energies.detach().sum())
            worst = max(worst, abs(slope / (12 * self.step) + float(force @ axis)))
        return worst

    def whole(self) -> list[CheckResult]:
        """Atoms and charges together feel no net force and no torque."""
        net = float((self.forces.sum(dim=0) + self.outer.sum(dim=0)).norm())
        torque = torch.linalg.cross(self.structure.positions.detach(), self.forces).sum(0)
        torque = torque + torch.linalg.cross(self.external.positions, self.outer).sum(0)
        limit = self.force_limit * self.largest
        return [
            _row("in the field: net force on atoms and charges", net, "kJ/mol/nm", limit),
            _row("in the field: torque on atoms and charges", float(torque.norm()), "kJ/mol", limit),
        ]

    def nothing(self) -> list[CheckResult]:
        """No charges, and charges of zero, are a vacuum."""
        none = ExternalCharges(self.external.positions[:0], self.external.charges[:0])
        zero = replace(self.external, charges=torch.zeros_like(self.external.charges))
        limit = self.limit * self.scale
        return [
            _row(f"{name} less vacuum", abs(self._energy_among(e) - self.vacuum), "kJ/mol", limit)
            for name, e in (("no charges around", none), ("charges of zero", zero))
        ]

    def superposition(self) -> list[CheckResult]:
        """A charge in two halves at one place is that charge, and their order does not matter."""
        order = torch.arange(len(self.external) - 1, -1, -1)
        twice = torch.cat([order, order])
        halves = ExternalCharges(self.external.positions[twice], 0.5 * self.external.charges[twice])
        error = abs(self._energy_among(halves) - self.energy)
        return [_row("charges in two halves, in another order", error, "kJ/mol", 4 * self.limit * self.scale)]

    def distant(self) -> list[CheckResult]:
        """A distant charge c meets the net charge and the dipole that the model predicts by itself."""
        alone = self.model.atom_energies(replace(self.structure, external=None))
        if alone.charges is None:
            return []
        n = len(self.structure)
        charges = alone.charges.detach().to(torch.float64)
        dipoles = charges.new_zeros(n, 3) if alone.dipoles is None else alone.dipoles.detach()
        thetas = charges.new_zeros(n, 3, 3) if alone.quadrupoles is None else alone.quadrupoles.detach()
        where = self.structure.positions.detach()
        centre = where.mean(0)
        r = (where - centre).norm(dim=1)
        dipole = (charges.unsqueeze(1) * (where - centre) + dipoles).sum(0)
        direction = torch.tensor([0.36, -0.48, 0.8], dtype=torch.float64)
        one = torch.ones(1, dtype=torch.float64)
        shift = self._energy_among(ExternalCharges((centre + _FAR * direction).unsqueeze(0), one))
        expected = COULOMB * (self.structure.charge / _FAR + float(dipole @ direction) / _FAR**2)
        # The quadrupole of the whole is at most this; what comes after it is smaller by size / distance.
        moments = charges.abs() * r**2 + 2 * dipoles.norm(dim=1) * r + 3 * thetas.norm(dim=(1, 2))
        limit = 1.1 * COULOMB * float(moments.sum()) / _FAR**3 + 4 * self.limit * self.scale
        error = abs(shift - self.vacuum - expected)
        return [_row(f"charge at {_FAR:g} nm less that with charge and dipole", error, "kJ/mol", limit)]

    def compiled(self) -> list[CheckResult]:
        """The TorchScript form in the field, and what it must not depend on."""
        factory = scriptable_module(self.model)
        assert factory is not None
        state = {"charge": self.structure.charge} if self.spec.charges else {}
        state |= {"multiplicity": self.structure.spin} if self.spec.spins else {}
        module = torch.jit.script(factory(self.structure.numbers.tolist(), **state).eval())
        device = getattr(self.model, "device", torch.device("cpu"))
        structure = self.structure.to(device)
        assert structure.external is not None
        where, strengths = structure.external.positions, structure.external.charges
        x = structure.positions.detach()
        around = potential_of_charges(where.unsqueeze(0) - x.unsqueeze(1), strengths)
        limit = self.limit * self.scale
        if self.spec.external == "charges":
            energies, q, mu, theta = module.in_field(x, None, where, strengths, 0.0)
            outer = multipole_energies(q, mu, theta, *around)
            total = float((energies.mean(dim=0) + outer).sum().detach())
            within = torch.cdist(x, where).min(dim=0).values < self.spec.polarisation_range
            fewer, *_ = module.in_field(x, None, where[within], strengths[within], 0.0)
            error = float((fewer - energies).abs().max())
            rows = [_row("charges beyond the range of polarisation", error, "kJ/mol", limit)]
        else:
            given = [tensor.detach().requires_grad_(True) for tensor in around]
            energies, *multipoles = module.in_potential(x, None, *given)
            total = float(energies.mean(dim=0).sum().detach())
            slopes = torch.autograd.grad(energies.mean(dim=0).sum(), given, allow_unused=True)
            error = max(
                float((q.detach() - (0.0 if slope is None else slope)).abs().max())
                for q, slope in zip(multipoles, slopes, strict=True)
            )
            name = "multipoles less derivatives of the energy in the potential"
            rows = [_row(name, error, "e, nm", max(self.force_limit, 1e-8))]
        return [_row("TorchScript in the field less eager", abs(total - self.energy), "kJ/mol", limit), *rows]


def _row(name: str, value: float, unit: str, limit: float) -> CheckResult:
    return CheckResult(name, float(value), unit, limit=limit, passed=bool(value <= limit))
