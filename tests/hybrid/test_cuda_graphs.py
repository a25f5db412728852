"""CUDA graphs without CUDA: what can have them, the form they need, the same numbers on other platforms."""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import pytest
import torch
from toys import energy_and_forces

from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Produce
from mlmm.errors import ConfigError, PotentialError, SimulationError
from mlmm.hybrid.bridge import make_force
from mlmm.hybrid.cuda_graphs import EnergyAndForces, SamePlaces, has_cuda_graphs
from mlmm.hybrid.hosts import RegionEnergy, RegionModule
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials import load_potential
from mlmm.zones.adaptive import adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones, static_zones


@pytest.fixture(scope="module")
def water():
    """Some 130 flexible water molecules."""
    return build_bulk_water("1.62 nm", nonbonded_cutoff="0.8 nm")


def make(built, kind, *, mm_side="openmm", bridge="torchforce", cuda_graphs="on", **options):
    """A hybrid system around the first molecule, or around the first nine atoms of a peptide."""
    kept = {"members": [0, 1], "precision": "float64", "kernel": "torch", "shapes": "fixed"}
    potential = load_potential("ani1x", **(kept | options))
    region = region_from_atoms(built.topology, range(6 if kind == "capped" else 3), "atoms")
    compensation = None
    if kind in ("additive", "capped"):
        zones, scheme = hard_zones(built, region), "additive"
    elif kind == "adaptive":
        zones, scheme = adaptive_zones(built, region, "0.25 nm", "0.3 nm"), "per_atom"
        compensation = Compensation({"HOH": 0.0})
    else:
        zones, scheme = static_zones(built, region, "0.2 nm", "0.25 nm"), kind
    hybrid = hybrid_system(built, zones, potential, scheme=scheme, bridge=bridge, compensation=compensation)
    return hybrid.reassembled(mm_side=mm_side, cuda_graphs=cuda_graphs)


@pytest.mark.parametrize("kind", ["additive", "per_atom", "capped"])
@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_the_same_numbers_where_there_is_no_cuda(kind, platform, water, dipeptide_vacuum):
    """Energy and forces of a TorchForce prepared for graphs, at every call, equal those of the usual one."""
    built = dipeptide_vacuum if kind == "capped" else water
    usual = make(built, kind, shapes="lists", cuda_graphs="off")
    graphs = make(built, kind)
    assert graphs.cuda_graphs and not usual.cuda_graphs
    groups = 1 << usual.force_groups["ml"]
    energy, forces = energy_and_forces(usual.system, built.positions, groups=groups)
    context = openmm.Context(
        graphs.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform)
    )
    shift = np.random.default_rng(1).normal(0, 2e-3, built.positions.shape)
    for moved in (0.0, 1.0, 0.0, 0.0):
        context.setPositions(built.positions + moved * shift)
        state = context.getState(energy=True, forces=True, groups=groups)
        found = state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value
        # A context of its own for the displaced atoms would be another test: here results must follow.
        changed = abs(found[0] - energy) > 1e-3
        assert changed if moved else found[0] == pytest.approx(energy, rel=1e-10)
        if not moved:
            assert np.abs(found[1] - forces).max() < 1e-10 * np.abs(forces).max()


def host(module):
    """What openmm-torch keeps of its two graphs, with and without forces: results of the last recorded."""
    results = None

    def execute(x, record):
        nonlocal results
        made = module(x)
        if record:
            results = made
        return results

    return execute


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_graph_replays_renew_shared_results(frozen, dtype, dipeptide_vacuum):
    """Replaying either graph renews what was taken from the other; without `SamePlaces` it stays old."""
    numbers = [atom.element.atomic_number for atom in dipeptide_vacuum.topology.atoms()]
    bound = load_potential("ani1x", kernel="torch", shapes="fixed", members=[0]).scriptable(numbers)
    positions = torch.tensor(dipeptide_vacuum.positions, dtype=dtype)
    for kept in (True, False):
        module = RegionModule(bound, torch.arange(22))
        module = torch.jit.script((SamePlaces(module, 22) if kept else module).eval())
        execute = host(torch.jit.freeze(module) if frozen else module)
        execute(positions, record=True)
        first = [x.clone() for x in execute(positions, record=True)]
        second = execute(1.01 * positions, record=False)
        renewed = [not torch.equal(a, b) for a, b in zip(first, second, strict=True)]
        assert renewed == [kept, kept]
        assert second[1].dtype == dtype
        # A result with a history would keep that of all steps before it.
        assert not kept or not any(x.requires_grad for x in second)


def test_a_blend_gives_its_forces_itself(water):
    """The gradient by the module is that by its host; the positions of the host stay as they are."""
    blend = make(water, "per_atom").blend
    positions, box = torch.tensor(water.positions), torch.tensor(water.box_vectors)
    x = positions.clone().requires_grad_(True)
    energy = blend(x, box)
    (gradient,) = torch.autograd.grad(energy, x)
    found, forces = EnergyAndForces(blend)(positions, box)
    assert torch.equal(found, energy) and torch.equal(forces, -gradient)
    assert not positions.requires_grad


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("adaptive", {}),
        ("supermolecular", {}),
        ("per_atom", {"mm_side": "torch"}),
        ("per_atom", {"bridge": "pythonforce"}),
        ("per_atom", {"shapes": "lists"}),
        ("additive", {"shapes": "lists"}),
    ],
)
def test_systems_without_a_cuda_graph_are_rejected_or_run_without(water, kind, options):
    """ "on" says why; "off" goes on without."""
    with pytest.raises(ConfigError, match="for CUDA graphs a TorchForce with ANI in a static zone"):
        make(water, kind, **options)
    assert not make(water, kind, cuda_graphs="off", **options).cuda_graphs


def test_unknown_settings_and_models_without_graphs_are_rejected(water):
    with pytest.raises(ConfigError, match="cuda_graphs = off"):
        make(water, "additive", cuda_graphs="yes")
    assert make(water, "additive", cuda_graphs="on").cuda_graphs
    # Nobody has measured yet.
    assert not make(water, "additive", cuda_graphs="measured").cuda_graphs

    class Other(torch.nn.Module):
        def forward(self, positions: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
            return positions.square().sum(dim=1).unsqueeze(0)

    potential = load_potential("ani1x", members=[0])
    potential.scriptable = lambda numbers, centres=None: Other()
    energy = RegionEnergy(potential, [8, 1, 1], range(3))
    options = {"bridge": "torchforce", "periodic": False, "name": "water", "n_particles": 3}
    with pytest.raises(ConfigError, match="water, whose tensors change their shapes"):
        make_force(energy, cuda_graphs="on", **options)
    assert not has_cuda_graphs(make_force(energy, cuda_graphs="off", **options))
    assert not has_cuda_graphs(openmm.NonbondedForce())


def test_a_structure_with_too_many_neighbours_is_refused_before_the_run(water):
    """The message says how much room there must be; that much is enough."""
    with pytest.raises(PotentialError, match=r"at most \d+ neighbours within 0\.52 nm") as caught:
        make(water, "per_atom", neighbour_density=60.0)
    wanted = float(str(caught.value).rpartition("neighbour_density = ")[2])
    assert 100 < wanted < 250
    make(water, "per_atom", neighbour_density=wanted)
    # Lists that are as long as they have to be have no such limit.
    make(water, "per_atom", neighbour_density=60.0, shapes="lists", cuda_graphs="off")


def test_a_run_that_ends_in_nan_says_what_else_makes_it(dipeptide_vacuum, tmp_path, monkeypatch):
    """Where lists have a fixed length, the room in them is in the message; elsewhere it is not."""
    for check in ("check_room", "check_contract"):
        monkeypatch.setattr(f"mlmm.hybrid.system.{check}", lambda *_: None)
    region = region_from_atoms(dipeptide_vacuum.topology, range(22), "molecule")
    on_top = np.array(dipeptide_vacuum.positions)
    on_top[0] = on_top[1]
    for shapes, positions in (("fixed", dipeptide_vacuum.positions), ("lists", on_top)):
        built = dataclasses.replace(dipeptide_vacuum, positions=positions)
        potential = load_potential(
            "ani1x", kernel="torch", shapes=shapes, neighbour_density=20.0, members=[0]
        )
        hybrid = hybrid_system(
            built, hard_zones(built, region), potential, scheme="additive", bridge="torchforce"
        )
        with pytest.raises(SimulationError, match="NaN") as caught:
            simulate(hybrid, tmp_path / shapes, seed=1, stages=[Produce("0.01 ps")], platform="Reference")
        assert ("denser than 20 per nm³" in str(caught.value)) == (shapes == "fixed")
