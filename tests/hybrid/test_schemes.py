"""Every scheme through `hybrid_system`: two routes to one number, forces, capped cuts, sites, buffers."""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import pytest
import tolerances
import torch
from differences import Messages
from mm_systems import four_site_water
from toys import (
    ForceFieldPotential,
    InPython,
    OnRealAtoms,
    PlainSprings,
    chains,
    energy_and_forces,
    random_zones,
    toy_spec,
)

import mlmm
from mlmm.errors import ConfigError, EmbeddingError, PotentialError
from mlmm.hybrid.rules import choose_scheme
from mlmm.hybrid.system import hybrid_system
from mlmm.validation.check import finite_difference_error
from mlmm.zones.adaptive import adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import Region, molecules_of, region_from_atoms, select_region
from mlmm.zones.static import ZonePartition, hard_zones, static_zones


class Described:
    """A potential said to have been trained on something else."""

    def __init__(self, potential, **facts):
        self.potential, self.spec = potential, dataclasses.replace(potential.spec, **facts)

    def scriptable(self, numbers, centres=None):
        return self.potential.scriptable(numbers, centres)

    def atom_energies(self, structure):
        return self.potential.atom_energies(structure)


@pytest.fixture(scope="module")
def cut_zone(dipeptide_water):
    """The alanine methyl group, a plateau and a zone that cut CA–C bonds."""
    region = select_region(dipeptide_water, "resname ALA and name CB HB1 HB2 HB3", complete="atoms")
    return static_zones(dipeptide_water, region, plateau="0.1 nm", width="0.3 nm", snap="fragment")


CASES = [
    ("per_atom", {}),
    ("supermolecular", {}),
    ("delta", {}),
]


@pytest.mark.parametrize(("scheme", "options"), CASES)
def test_three_implementations_of_the_mm_side_agree(dipeptide_water, cut_zone, ani1x, scheme, options):
    """In OpenMM with pairs by the C++ kernel, in OpenMM alone, and in torch: energy, forces to 1e-8 (V6)."""
    trained_on = {"delta": "correction"}.get(scheme, "total")
    potential = Described(ani1x, trained_on=trained_on)
    assert cut_zone.cut_bonds and cut_zone.transition
    hybrid = hybrid_system(dipeptide_water, cut_zone, potential, scheme=scheme, **options)
    assert hybrid.mm_side == "openmm"
    found = [
        energy_and_forces(hybrid.create_system(**change), dipeptide_water.positions)
        for change in ({}, {"direct_pairs": False}, {"mm_side": "torch"})
    ]
    for energy, forces in found[1:]:
        assert found[0][0] == pytest.approx(energy, abs=tolerances.IDENTITY)
        assert np.abs(found[0][1] - forces).max() < 1e-8
    # The model is in it.
    mm, _ = energy_and_forces(dipeptide_water.system, dipeptide_water.positions)
    assert abs(found[0][0] - mm) > 1.0


@pytest.mark.parametrize(("scheme", "options"), CASES)
def test_forces_are_the_gradient(dipeptide_water, cut_zone, ani1x, scheme, options):
    """Central differences of the whole hybrid system (V1)."""
    trained_on = {"delta": "correction"}.get(scheme, "total")
    potential = Described(ani1x, trained_on=trained_on)
    hybrid = hybrid_system(dipeptide_water, cut_zone, potential, scheme=scheme, **options)
    assert finite_difference_error(hybrid, n_coordinates=9) < tolerances.FINITE_DIFFERENCE


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("mm_side", ["openmm", "torch"])
def test_identity_over_random_force_fields_and_zones(mm_side, seed):
    """eps^ML = eps^MM: the force field comes back for random parameters, cuts and weights (T4)."""
    built = chains(n_molecules=3, n_atoms=5, seed=seed, box=2.6 if seed % 2 else None)
    zones = random_zones(built, 4 + seed % 9, seed)
    hybrid = hybrid_system(built, zones, ForceFieldPotential(built), scheme="per_atom")
    expected, forces = energy_and_forces(built.system, built.positions)
    energy, found = energy_and_forces(hybrid.create_system(mm_side=mm_side), built.positions)
    assert energy == pytest.approx(expected, abs=tolerances.IDENTITY_MESH)
    assert np.abs(found - forces).max() < 1e-9 * np.abs(forces).max() + 1e-8


def test_200_steps_with_the_force_field_as_model_are_those_of_the_force_field(dipeptide_vacuum):
    """The same trajectory to 1e-9 nm (V2)."""
    zones = static_zones(
        dipeptide_vacuum, select_region(dipeptide_vacuum, "name CB"), "0 nm", "0.3 nm", "atom"
    )
    hybrid = hybrid_system(dipeptide_vacuum, zones, ForceFieldPotential(dipeptide_vacuum), scheme="per_atom")
    ends = []
    for system in (dipeptide_vacuum.system, hybrid.system):
        context = openmm.Context(
            system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName("Reference")
        )
        context.setPositions(dipeptide_vacuum.positions)
        context.setVelocitiesToTemperature(300, 4)
        context.getIntegrator().step(200)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.abs(ends[0] - ends[1]).max() < 1e-9
    assert np.abs(ends[0] - dipeptide_vacuum.positions).max() > 1e-3


def test_the_pressure_is_that_of_one_energy(dipeptide_water, cut_zone):
    """−dE/dV by scaling positions: the force field's own if eps^ML = eps^MM, else not (V22)."""

    def pressure(system):
        system = openmm.XmlSerializer.clone(system) if system is dipeptide_water.system else system
        barostat = openmm.MonteCarloBarostat(1.0, 300.0, 0)
        # Which atoms OpenMM takes for one molecule depends on the forces that join them.
        barostat.setScaleMoleculesAsRigid(False)
        system.addForce(barostat)
        context = openmm.Context(
            system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
        )
        context.setPositions(dipeptide_water.positions)
        return barostat.computeCurrentPressure(context)._value

    expected = pressure(dipeptide_water.system)
    found = []
    for scale in (1.0, 1.3):
        potential = ForceFieldPotential(dipeptide_water, scale)
        # OpenMM holds Python's lock in this call, with which a TorchForce cannot differentiate.
        hybrid = hybrid_system(dipeptide_water, cut_zone, potential, scheme="per_atom", bridge="pythonforce")
        found.append(pressure(hybrid.system))
    assert found[0] == pytest.approx(expected, abs=1e-3)
    assert abs(found[1] - expected) > 1.0


def test_turned_and_shifted(dipeptide_vacuum, ani1x):
    """Neither translation nor rotation changes the energy; no net force, no torque (V11, V15)."""
    zones = static_zones(dipeptide_vacuum, select_region(dipeptide_vacuum, "name CB"), "0.1 nm", "0.2 nm")
    system = hybrid_system(dipeptide_vacuum, zones, ani1x, scheme="per_atom").system
    x = dipeptide_vacuum.positions
    energy, forces = energy_and_forces(system, x)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    moved, turned = energy_and_forces(system, x @ turn.T + np.array([3.0, -1.0, 2.0]))
    assert moved == pytest.approx(energy, abs=1e-8)
    assert np.abs(turned - forces @ turn.T).max() < 1e-8 * np.abs(forces).max()
    assert np.abs(forces.sum(axis=0)).max() < 1e-9 * np.abs(forces).sum()
    assert np.abs(np.cross(x - x.mean(axis=0), forces).sum(axis=0)).max() < 1e-9 * np.abs(forces).sum()


def test_only_the_receptive_field_is_given_to_a_model(dipeptide_water):
    """Two layers of message passing on S and what lies within R equal the whole system (V12)."""
    zones = hard_zones(dipeptide_water, select_region(dipeptide_water, "resname ALA"))

    def model_forces(potential):
        hybrid = hybrid_system(dipeptide_water, zones, potential, scheme="per_atom")
        group = 1 << hybrid.force_groups["ml"]
        return energy_and_forces(hybrid.system, dipeptide_water.positions, groups=group)[1]

    exact = Messages(cutoff=0.4)
    whole = dataclasses.replace(exact.spec, receptive_field=1.1)
    short = dataclasses.replace(exact.spec, receptive_field=0.6)
    forces = model_forces(exact)
    same = model_forces(InPython(exact, whole))
    assert np.abs(forces - same).max() < 1e-12 * np.abs(forces).max()
    # Negative control: neighbours that the second layer asks for are missing.
    assert np.abs(forces - model_forces(InPython(exact, short))).max() > 1e-6 * np.abs(forces).max()


@pytest.fixture(scope="module")
def residue(dipeptide_water):
    """Atoms of the alanine residue: cut at CA–C and at its N–C."""
    return hard_zones(dipeptide_water, select_region(dipeptide_water, "resname ALA"))


@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize("bridge", ["torchforce", "pythonforce"])
def test_capped_region(dipeptide_water, residue, ani1x, tail, bridge):
    """Link-atom embedding of a residue: forces are the gradient, through the caps too (V21)."""
    hybrid = hybrid_system(dipeptide_water, residue, ani1x, scheme="additive", mm_tail=tail, bridge=bridge)
    assert finite_difference_error(hybrid, n_coordinates=12) < tolerances.FINITE_DIFFERENCE
    assert hybrid.region_energies(dipeptide_water.positions).energies.shape == (12,)  # 10 atoms, 2 caps
    group = 1 << hybrid.force_groups["ml"]
    _, forces = energy_and_forces(hybrid.system, dipeptide_water.positions, groups=group)
    inside = set(residue.core)
    partners = [a if b in inside else b for a, b in residue.cut_bonds]
    assert np.abs(forces[partners]).min() > 1.0  # atoms that caps replace feel them
    untouched = np.delete(forces, [*residue.core, *partners], axis=0)
    assert not untouched.any()


def test_a_tail_leaves_distant_pairs_of_the_region_to_the_force_field(dipeptide_vacuum, ani1x):
    """E = E_ML + sum of (1 − f) LJ and Coulomb's tail, from an independent double loop."""
    zones = hard_zones(dipeptide_vacuum, select_region(dipeptide_vacuum, "all"))
    energies = {
        tail: energy_and_forces(
            hybrid_system(dipeptide_vacuum, zones, ani1x, scheme="additive", mm_tail=tail).system,
            dipeptide_vacuum.positions,
        )[0]
        for tail in (False, True)
    }
    from mlmm.units import COULOMB

    force = next(f for f in dipeptide_vacuum.system.getForces() if isinstance(f, openmm.NonbondedForce))
    special = {}
    for k in range(force.getNumExceptions()):
        a, b, *numbers = force.getExceptionParameters(k)
        special[frozenset((a, b))] = [n._value for n in numbers]
    x, end, expected = dipeptide_vacuum.positions, ani1x.spec.cutoff, 0.0
    for a in range(22):
        for b in range(a):
            (qa, sa, ea), (qb, sb, eb) = ([n._value for n in force.getParticleParameters(i)] for i in (a, b))
            qq, sigma, epsilon = special.get(frozenset((a, b)), (qa * qb, (sa + sb) / 2, np.sqrt(ea * eb)))
            r = np.linalg.norm(x[a] - x[b])
            p, t = min(r / end, 1.0), np.clip((r / end - 0.7) / 0.3, 0, 1)
            tail = (35 - 35 * p**2 + 21 * p**4 - 5 * p**6) / 16 / end if r < end else 1 / r
            lj = 4 * epsilon * ((sigma / r) ** 12 - (sigma / r) ** 6)
            expected += COULOMB * qq * tail + lj * t**3 * (10 - 15 * t + 6 * t**2)
    assert energies[True] - energies[False] == pytest.approx(expected, abs=1e-8)
    assert abs(expected) > 1.0


@pytest.fixture(scope="module")
def tip4p():
    return four_site_water()


def moved_with_sites(context, positions):
    """Energy and forces for real atoms anywhere, sites where they belong."""
    context.setPositions(positions)
    context.computeVirtualSites()
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


@pytest.mark.parametrize("kind", ["openmm", "torch", "adaptive"])
def test_water_with_four_sites(tip4p, kind):
    """The site goes with its molecule; its force is spread to the atoms (V19): differences on those."""
    region = region_from_atoms(tip4p.topology, range(4), "molecule")
    if kind == "adaptive":
        zones = adaptive_zones(tip4p, region, "0.25 nm", "0.25 nm")
        options = {"compensation": Compensation({"HOH": 5.0})}
    else:
        zones, options = static_zones(tip4p, region, "0.2 nm", "0.2 nm"), {}
        assert zones.transition and len(zones.active) % 4 == 0
    hybrid = hybrid_system(tip4p, zones, OnRealAtoms(), scheme="per_atom", **options)
    if kind != "adaptive":
        hybrid = hybrid.reassembled(mm_side=kind)
    platform = openmm.Platform.getPlatformByName("Reference")
    contexts = [
        openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        for system in (hybrid.system, tip4p.system)
    ]

    def added(positions):
        (energy, forces), (mm, mm_forces) = (moved_with_sites(context, positions) for context in contexts)
        return energy - mm, forces - mm_forces

    energy, forces = added(tip4p.positions)
    assert abs(energy) > 1.0
    weights = hybrid.zones.weights(torch.tensor(tip4p.positions), torch.tensor(tip4p.box_vectors)).numpy()
    sites = np.arange(3, tip4p.n_atoms, 4)
    assert (weights[sites] == weights[sites - 3]).all()
    near = np.flatnonzero((weights > 0) & (np.arange(tip4p.n_atoms) % 4 != 3))[:: max(1, len(weights) // 300)]
    for atom in near[:10]:
        slope = []
        for sign in (1, -1):
            moved = tip4p.positions.copy()
            moved[atom, 1] += sign * 1e-5
            slope.append(added(moved)[0])
        expected = -(slope[0] - slope[1]) / 2e-5
        assert expected == pytest.approx(forces[atom, 1], abs=1e-6 * np.abs(forces).max() + 1e-5)


def test_both_routes_agree_for_water_with_four_sites(tip4p):
    zones = static_zones(tip4p, region_from_atoms(tip4p.topology, range(4), "molecule"), "0.2 nm", "0.2 nm")
    energies = [
        energy_and_forces(
            hybrid_system(tip4p, zones, OnRealAtoms(), scheme="per_atom").create_system(mm_side=mm_side),
            tip4p.positions,
        )[0]
        for mm_side in ("openmm", "torch")
    ]
    assert energies[0] == pytest.approx(energies[1], abs=tolerances.IDENTITY)


def test_no_constraint_touches_the_zone(ani1x, root):
    """Rigid water outside, flexible bonds inside; a rigid molecule inside is refused (V19)."""
    pdb = root / "systems/alanine_dipeptide/input.pdb"
    built = mlmm.build_system(pdb, padding="0.5 nm", nonbonded_cutoff="0.9 nm", constraints="none", seed=3)
    region = select_region(built, "resname ACE ALA NME")
    hybrid = hybrid_system(built, hard_zones(built, region), ani1x, scheme="per_atom")
    pairs = [hybrid.system.getConstraintParameters(i)[:2] for i in range(hybrid.system.getNumConstraints())]
    assert len(pairs) == built.system.getNumConstraints() == 3 * (len(molecules_of(built.topology)) - 1)
    assert not set(region.atoms).intersection(atom for pair in pairs for atom in pair)
    with pytest.raises(EmbeddingError, match="flexible molecules in the zone"):
        hybrid_system(built, static_zones(built, region, "0.3 nm", "0 nm"), ani1x, scheme="per_atom")


def test_ions_in_the_zone_stay_with_the_force_field(ani1x, root):
    """An element that the model does not know, in the plateau: a note, and lambda = 0."""
    pdb = root / "systems/alanine_dipeptide/input.pdb"
    built = mlmm.build_system(
        pdb,
        padding="0.5 nm",
        nonbonded_cutoff="0.9 nm",
        constraints="none",
        rigid_water=False,
        ionic_strength="0.6 M",
        seed=3,
    )
    ions = select_region(built, "resname NA CL").atoms
    oxygens = np.array(select_region(built, "water and name O", complete="atoms").atoms)
    distances = np.linalg.norm(built.positions[oxygens][:, None] - built.positions[list(ions)], axis=2)
    beside = region_from_atoms(built.topology, [int(oxygens[distances.min(axis=1).argmin()])], "molecule")
    zones = static_zones(built, beside, "0.45 nm", "0 nm")
    inside = set(ions).intersection(zones.active)
    assert inside
    hybrid = hybrid_system(built, zones, ani1x, scheme="per_atom")
    assert any("stay with the force field: ANI-1x does not know" in text for text in hybrid.warnings)
    weights = hybrid.zones.weights(torch.zeros(1, 3))
    assert not weights[list(inside)].any() and len(hybrid.zones.active) == len(zones.active) - len(inside)
    with pytest.raises(PotentialError, match="only elements that ANI-1x knows"):
        hybrid_system(built, hard_zones(built, select_region(built, "resname NA")), ani1x)


def test_the_scheme_follows_from_what_the_potential_was_trained_on():
    region = Region((0,), ((0, 1),), "index 0", ("ALA1",))  # it cuts a bond
    nothing = ZonePartition(3, region, core=(0,))
    smooth = ZonePartition(3, region, core=(0,), transition=(1,), transition_weights=(0.5,))
    for facts, scheme in (
        ({"trained_on": "total"}, "per_atom"),
        ({"trained_on": "total", "per_atom": False}, "supermolecular"),
        ({"trained_on": "total", "long_range": True}, "additive"),
        ({"trained_on": "isolated"}, "additive"),
        ({"trained_on": "correction"}, "delta"),
    ):
        assert choose_scheme("auto", nothing, toy_spec(**facts)).name == scheme
        for other in ("per_atom", "delta"):
            if other != scheme:
                with pytest.raises(
                    EmbeddingError, match=rf"a scheme for springs .*, but got '{other}'\. Use scheme"
                ):
                    choose_scheme(other, nothing, toy_spec(**facts))
    assert choose_scheme("auto", smooth, toy_spec(trained_on="total")).name == "per_atom"
    with pytest.raises(EmbeddingError, match="a hard region under scheme 'additive'"):
        choose_scheme("auto", smooth, toy_spec(trained_on="isolated"))
    with pytest.raises(PotentialError, match="trained_on = total"):
        choose_scheme("auto", nothing, toy_spec(trained_on="dreams"))
    with pytest.raises(EmbeddingError, match="there is none"):
        choose_scheme("auto", nothing, toy_spec(trained_on="correction", per_atom=False))
    with pytest.raises(ConfigError, match="scheme = auto"):
        choose_scheme("locale", nothing, toy_spec())


def test_unknown_bridge_and_mm_tail_of_another_scheme_are_rejected(dipeptide_vacuum, ani1x):
    zones = hard_zones(dipeptide_vacuum, select_region(dipeptide_vacuum, "all"))
    with pytest.raises(ConfigError, match="mm_tail = true under scheme 'additive' only"):
        hybrid_system(dipeptide_vacuum, zones, ani1x, scheme="per_atom", mm_tail=True)
    whole = InPython(PlainSprings(), toy_spec(trained_on="total", per_atom=False))
    with pytest.raises(ConfigError, match="bridge = pythonforce for whole energies"):
        hybrid_system(dipeptide_vacuum, zones, whole, scheme="supermolecular", bridge="torchforce")
    assert hybrid_system(dipeptide_vacuum, zones, whole, scheme="supermolecular").bridge == "pythonforce"
