"""The same numbers through every door: compiled as eager, from a file as from memory, some atoms as all."""

from __future__ import annotations

import io

import torch

from mlmm.check_report import CheckResult
from mlmm.potentials.base import PotentialModel, bound_module, scriptable_module
from mlmm.structures import Structure

__all__ = ["compiled_rows", "reload_rows"]


def compiled_rows(
    model: PotentialModel, structure: Structure, tolerance: float, scale: float
) -> list[CheckResult]:
    """TorchScript against eager, called often enough for its profiler to rewrite the graph, and from a file.

    Parameters
    ----------
    model : PotentialModel
        With a TorchScript form.
    structure : Structure
    tolerance : float
        Fraction of `scale`.
    scale : float
        kJ/mol.
    """
    numbers = structure.numbers.tolist()
    factory = scriptable_module(model)
    assert factory is not None
    whole = bound_module(model, numbers, structure.charge, structure.spin)
    assert whole is not None
    result = model.atom_energies(structure)
    eager = (result.energies.unsqueeze(0) if result.members is None else result.members).detach()
    module = torch.jit.script(whole.eval())
    device = getattr(model, "device", torch.device("cpu"))
    where = structure.positions.detach().to(device)
    worst = 0.0
    forces: list[torch.Tensor] = []
    for _ in range(4):
        positions = where.clone().requires_grad_(True)
        found = module(positions, None)
        (gradient,) = torch.autograd.grad(found.mean(dim=0).sum(), positions)
        worst = max(worst, float((found.detach().cpu() - eager).abs().max()))
        forces.append(gradient)
    worst_force = max(float((force - forces[0]).norm(dim=1).max()) for force in forces)
    limit = tolerance * scale
    rows = [_row("TorchScript less eager", worst, "kJ/mol", limit)]
    force_limit = 100 * tolerance * max(float(forces[0].norm(dim=1).max()), 1.0)
    rows.append(_row("TorchScript: force of four calls", worst_force, "kJ/mol/nm", force_limit))
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    again = torch.jit.load(buffer)(where, None).detach().cpu()
    rows.append(_row("TorchScript, saved and loaded", float((again - eager).abs().max()), "kJ/mol", limit))
    if model.spec.per_atom:
        some = list(range(0, len(numbers), 3))
        bound = factory(numbers, some)(where, None).detach().cpu()
        given = factory(numbers)(where, None, torch.tensor(some, device=device)).detach().cpu()
        error = max(float((found - eager[:, some]).abs().max()) for found in (bound, given))
        rows.append(_row("some atoms less the same among all", error, "kJ/mol", limit))
    return rows


def reload_rows(
    model: PotentialModel, again: PotentialModel, structure: Structure, tolerance: float, scale: float
) -> list[CheckResult]:
    """A model against the same loaded once more: its energies and what it says of itself."""
    error = float(
        (again.atom_energies(structure).energies - model.atom_energies(structure).energies)
        .detach()
        .abs()
        .max()
    )
    rows = [_row("loaded again less as it was", error, "kJ/mol", tolerance * scale)]
    return [*rows, _row("declared otherwise when loaded again", int(again.spec != model.spec), "", 0)]


def _row(name: str, value: float, unit: str, limit: float) -> CheckResult:
    return CheckResult(name, float(value), unit, limit=limit, passed=bool(value <= limit))
