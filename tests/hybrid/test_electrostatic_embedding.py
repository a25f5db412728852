"""Electrostatic embedding with AMP-BMS: an ion in water, its forces on all atoms, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import pytest
import torch
from field_models import Equilibrated
from field_networks import field_potential

import mlmm
from mlmm.build import BuiltSystem, build_system
from mlmm.dynamics.fingerprint import differences, settings_of
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.records import embedding_facts, run_facts
from mlmm.dynamics.uncertainty import UncertaintyMonitor
from mlmm.electrostatics.fixed_charges import read_charges
from mlmm.errors import ConfigError, EmbeddingError, PotentialError
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials.amp_bms.potential import AMPPotential
from mlmm.structures import Structure
from mlmm.units import COULOMB
from mlmm.zones.region import select_region
from mlmm.zones.static import hard_zones

pytest.importorskip("rdkit", reason='pip install "mlmm[ligands]"')


class Formless(Equilibrated):
    """Declares that it takes the potential, and has no method for it."""

    def scriptable(self, numbers, centres=None, charge=0):
        return torch.nn.Identity()


@pytest.fixture(scope="module")
def amp() -> AMPPotential:
    return mlmm.load_potential("amp-bms", precision="float64")


@pytest.fixture(scope="module")
def acetate() -> BuiltSystem:
    """Acetate in a small box of flexible water, a sodium ion with it."""
    pytest.importorskip("parmed", reason='pip install "mlmm[ligands]"')
    return build_system(
        smiles="CC(=O)[O-]",
        padding="0.7 nm",
        nonbonded_cutoff="0.8 nm",
        constraints="none",
        rigid_water=False,
    )


def context_of(system: openmm.System) -> openmm.Context:
    platform = openmm.Platform.getPlatformByName("Reference")
    return openmm.Context(system, openmm.VerletIntegrator(0.001), platform)


def energy_of(context: openmm.Context, positions: np.ndarray, groups: int = -1) -> float:
    context.setPositions(positions)
    return context.getState(energy=True, groups=groups).getPotentialEnergy()._value


def embedded(built: BuiltSystem, amp: AMPPotential, **options):
    zones = hard_zones(built, select_region(built, "resid 0"))
    return hybrid_system(built, zones, amp, **{"electrostatics": "embedded", "scheme": "additive"} | options)


@pytest.mark.parametrize("inside", ["amp-bms", "field-aware ANI"])
def test_forces_on_the_ion_and_on_the_water_are_gradients(acetate, amp, inside):
    """Central differences of the whole system: an atom inside, one near it, one beyond every range."""
    model = amp if inside == "amp-bms" else field_potential((6, 8, 1))
    hybrid = embedded(acetate, model, bridge="pythonforce")
    context = context_of(hybrid.system)
    context.setPositions(acetate.positions)
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    distances = np.linalg.norm(acetate.positions - acetate.positions[0], axis=1)
    water = np.arange(acetate.n_atoms) > 10
    near = int(np.flatnonzero(water)[distances[water].argmin()])
    far = int(np.flatnonzero(water)[distances[water].argmax()])
    for atom, axis in ((0, 0), (2, 1), (near, 2), (far, 0)):
        values = []
        for sign in (1, -1):
            moved = np.array(acetate.positions)
            moved[atom, axis] += sign * 2e-6
            values.append(energy_of(context, moved))
        slope = -(values[0] - values[1]) / 4e-6
        assert slope == pytest.approx(forces[atom, axis], abs=2e-6 * np.abs(forces).max())


def test_reaction_field_in_a_hybrid(amp):
    """Central differences of the whole system: inside, near it, and where a charge crosses r_c of atoms."""
    built = build_system(smiles="CC(=O)[O-]", padding="1.2 nm", constraints="none", rigid_water=False)
    hybrid = embedded(built, amp, bridge="pythonforce", far_field="reaction_field")
    inside, context = list(hybrid.zones.core), context_of(hybrid.system)
    context.setPositions(built.positions)
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    distances = np.linalg.norm(built.positions - built.positions[0], axis=1)
    distances[inside] = np.inf
    near, border = int(distances.argmin()), int(np.abs(distances - 1.15).argmin())
    for atom, axis in ((0, 0), (near, 2), (border, 1)):
        values = []
        for sign in (1, -1):
            moved = np.array(built.positions)
            moved[atom, axis] += sign * 2e-6
            values.append(energy_of(context, moved))
        slope = -(values[0] - values[1]) / 4e-6
        assert slope == pytest.approx(forces[atom, axis], abs=2e-6 * np.abs(forces).max())
    # Control: by Ewald's sum it is another force.
    other = context_of(embedded(built, amp, bridge="pythonforce").system)
    other.setPositions(built.positions)
    ewald = other.getState(forces=True).getForces(asNumpy=True)._value
    assert np.abs(ewald - forces)[inside].max() > 1.0


def test_the_permittivity_of_the_medium_is_that_of_the_far_term():
    """The far term is linear in 1 − 1/eps where multipoles do not answer to it; run.json has the number."""
    built = build_system(smiles="CC(=O)[O-]", padding="1.2 nm", constraints="none", rigid_water=False)
    energies = {}
    for value in (1.0, 4.0, None):
        hybrid = embedded(
            built,
            mlmm.load_potential("amp-bms", precision="float64"),
            bridge="pythonforce",
            far_field="reaction_field",
            far_permittivity=value,
        )
        group = 1 << hybrid.force_groups["ml"]
        used = embedding_facts(hybrid)["far_permittivity"]
        energies[used] = energy_of(context_of(hybrid.system), built.positions, group)
    assert sorted(energies) == [1.0, 4.0, 78.4]
    medium = energies[78.4] - energies[1.0]
    assert abs(medium) > 0.1
    assert energies[4.0] - energies[1.0] == pytest.approx(medium * 0.75 / (1 - 1 / 78.4), rel=1e-6)


def test_scaled_polarisation_is_recorded_and_compared(acetate, amp):
    """The energy changes, run.json has the factor, and a run does not go on with another."""
    found = {}
    for scaling in (None, 1.0):
        potential = mlmm.load_potential("amp-bms", precision="float64", polarisation_scaling=scaling)
        hybrid = embedded(acetate, potential, bridge="pythonforce")
        facts = run_facts(hybrid, [], 1, "title")
        settings = settings_of(hybrid, [], RunOptions(), UncertaintyMonitor(hybrid), acetate.positions)
        found[facts["potential"]["polarisation_scaling"]] = settings
        assert embedding_facts(hybrid)["far_permittivity"] is None
    assert sorted(found) == [0.35, 1.0]
    (difference, *_) = differences(found[0.35], found[1.0])
    assert difference == "potential.polarisation_scaling = 1 (the run: 0.35)"
    assert abs(found[0.35]["potential.energy"] - found[1.0]["potential.energy"]) > 1.0
    with pytest.raises(PotentialError, match=r"0\.5 for ani1x, which has no such factor"):
        mlmm.load_potential("ani1x", polarisation_scaling=0.5)
    with pytest.raises(PotentialError, match="between 0"):
        mlmm.load_potential("amp-bms", polarisation_scaling=-0.1)


def test_both_bridges_have_one_energy_and_no_net_force(acetate, amp):
    found = []
    for bridge in ("torchforce", "pythonforce"):
        hybrid = embedded(acetate, amp, bridge=bridge)
        context = context_of(hybrid.system)
        context.setPositions(acetate.positions)
        group = 1 << hybrid.force_groups["ml"]
        state = context.getState(energy=True, forces=True, groups=group)
        forces = state.getForces(asNumpy=True)._value
        assert np.abs(forces.sum(0)).max() < 1e-9 * np.abs(forces).max()
        assert np.abs(forces[10:]).max() > 1.0
        found.append((state.getPotentialEnergy()._value, forces))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-10)
    assert np.abs(found[1][1] - found[0][1]).max() < 1e-8


@pytest.mark.parametrize(
    "model", [Equilibrated(), field_potential((6, 8, 1))], ids=["toy", "field-aware ANI"]
)
def test_a_model_that_takes_the_potential_runs_through_both_bridges(acetate, model):
    """One energy and one force, without net force; on a water far away too."""
    found = []
    for bridge in ("torchforce", "pythonforce"):
        hybrid = embedded(acetate, model, bridge=bridge)
        context = context_of(hybrid.system)
        context.setPositions(acetate.positions)
        state = context.getState(energy=True, forces=True, groups=1 << hybrid.force_groups["ml"])
        forces = state.getForces(asNumpy=True)._value
        assert np.abs(forces.sum(0)).max() < 1e-9 * np.abs(forces).max()
        assert np.abs(forces[10:]).max() > 1.0
        found.append((state.getPotentialEnergy()._value, forces))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-10)
    assert np.abs(found[1][1] - found[0][1]).max() < 1e-8


def test_field_aware_ani_has_one_energy_in_the_kernel_and_in_torch(acetate):
    """Both bridges, compiled and in torch, under PME: energy and forces on all atoms."""
    found = {}
    for kernel in ("native", "torch"):
        for bridge in ("torchforce", "pythonforce"):
            hybrid = embedded(acetate, field_potential((6, 8, 1), kernel=kernel), bridge=bridge)
            assert run_facts(hybrid, [], 1, "title")["potential"]["kernel"] == kernel
            context = context_of(hybrid.system)
            context.setPositions(acetate.positions)
            state = context.getState(energy=True, forces=True, groups=1 << hybrid.force_groups["ml"])
            forces = state.getForces(asNumpy=True)._value
            found[kernel, bridge] = state.getPotentialEnergy()._value, forces
    energy, forces = found["torch", "torchforce"]
    largest = np.abs(forces).max()
    for other_energy, other_forces in found.values():
        assert other_energy == pytest.approx(energy, rel=1e-10)
        assert np.abs(other_forces - forces).max() < 1e-10 * largest
    # Control: another network of the field.
    hybrid = embedded(acetate, field_potential((6, 8, 1), seed=2), bridge="pythonforce")
    group = 1 << hybrid.force_groups["ml"]
    assert abs(energy_of(context_of(hybrid.system), acetate.positions, group) - energy) > 1.0


def test_without_charges_around_it_is_the_potential_alone(acetate, amp):
    """All charges of the water set to zero: what the force of the region adds is its energy in vacuum."""
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(acetate.system))
    (force,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    for atom in range(7, acetate.n_atoms):
        _, sigma, epsilon = force.getParticleParameters(atom)
        force.setParticleParameters(atom, 0.0, sigma, epsilon)
    for k in range(force.getNumExceptions()):
        a, b, _, sigma, epsilon = force.getExceptionParameters(k)
        if a >= 7:
            force.setExceptionParameters(k, a, b, 0.0, sigma, epsilon)
    built = BuiltSystem(acetate.topology, acetate.positions, system, acetate.provenance)
    hybrid = embedded(built, amp, bridge="pythonforce")
    numbers = torch.tensor([atom.element.atomic_number for atom in list(built.topology.atoms())[:7]])
    alone = Structure(numbers, torch.tensor(built.positions[:7]), None, -1)
    vacuum = float(amp.atom_energies(alone).energies.sum())
    added = energy_of(context_of(hybrid.system), built.positions, 1 << hybrid.force_groups["ml"])
    # What is left is the region with its own images.
    assert added == pytest.approx(vacuum, abs=1.0)
    surrounded = embedded(acetate, amp, bridge="pythonforce")
    with_water = energy_of(
        context_of(surrounded.system), acetate.positions, 1 << surrounded.force_groups["ml"]
    )
    assert abs(with_water - vacuum) > 1.0


def test_the_total_charge_reaches_the_network(acetate, amp):
    """Under mechanical embedding too, in every host: acetate with another charge is another energy."""
    zones = hard_zones(acetate, select_region(acetate, "resid 0"))
    energies = {}
    for bridge in ("torchforce", "pythonforce"):
        for charge in (-1, 1):
            hybrid = hybrid_system(acetate, zones, amp, scheme="additive", bridge=bridge, charge=charge)
            context = context_of(hybrid.system)
            energies[bridge, charge] = energy_of(context, acetate.positions)
    assert energies["torchforce", -1] == pytest.approx(energies["pythonforce", -1], rel=1e-10)
    assert energies["torchforce", 1] == pytest.approx(energies["pythonforce", 1], rel=1e-10)
    assert abs(energies["torchforce", 1] - energies["torchforce", -1]) > 1.0


def test_a_box_that_a_barostat_scaled_is_the_box_of_a_fresh_build(acetate, amp):
    """Molecules and box scaled in a running context: the energy of a system that was built that way."""
    hybrid = embedded(acetate, amp)
    context, group = context_of(hybrid.system), 1 << hybrid.force_groups["ml"]
    molecules = np.array([atom.residue.index for atom in acetate.topology.atoms()])
    for scale in (0.97, 1.03):
        positions = np.array(acetate.positions)
        for molecule in range(molecules.max() + 1):
            own = molecules == molecule
            positions[own] += (scale - 1.0) * positions[own].mean(0)
        box = scale * acetate.box_vectors
        context.setPeriodicBoxVectors(*box)
        system = openmm.XmlSerializer.clone(acetate.system)
        system.setDefaultPeriodicBoxVectors(*box)
        fresh = dataclasses.replace(acetate, system=system, positions=positions)
        moved = context_of(embedded(fresh, amp).system)
        # OpenMM's own mesh stays that of the old box; this is the force of the region.
        found = energy_of(context, positions, group)
        assert found == pytest.approx(energy_of(moved, positions, group), abs=1e-3)
        assert abs(found - energy_of(context, acetate.positions, group)) > 0.1


def test_a_charge_that_falls_onto_an_atom_is_bounded(acetate, amp):
    """A hydrogen of water without a wall, drawn onto acetate: Gaussian charges hold, points do not."""
    water = next(r for r in acetate.topology.residues() if r.index > 0 and len(list(r.atoms())) == 3)
    hydrogen = [atom.index for atom in water.atoms()][1]
    oxygen = next(
        a.index for a in acetate.topology.atoms() if a.residue.index == 0 and a.element.symbol == "O"
    )
    direction = np.array([0.48, 0.6, 0.64])

    def energies(width: float) -> np.ndarray:
        hybrid = embedded(acetate, amp, charge_width=width, bridge="pythonforce")
        groups = 1 << hybrid.force_groups["ml"]
        context, values = context_of(hybrid.system), []
        charge = read_charges(acetate.system).charge
        for distance in (0.03, 0.01, 3e-3, 1e-3, 3e-4):
            positions = np.array(acetate.positions)
            positions[hydrogen] = positions[oxygen] + distance * direction
            fixed = COULOMB * charge[oxygen] * charge[hydrogen] / distance
            values.append(energy_of(context, positions, groups) + fixed)
        return np.array(values)

    smooth, bare = energies(0.03), energies(0.0)
    assert np.ptp(smooth) < 3000.0
    assert np.ptp(bare) > 30 * np.ptp(smooth)


def test_what_cannot_be_embedded_is_refused(acetate, amp, ani1x, dipeptide_vacuum):
    zones = hard_zones(acetate, select_region(acetate, "resid 0"))
    with pytest.raises(PotentialError, match="sees the charges around it"):
        hybrid_system(acetate, zones, ani1x, scheme="additive", electrostatics="embedded")
    with pytest.raises(EmbeddingError, match="add up to its charge"):
        embedded(acetate, amp, charge=0)
    with pytest.raises(EmbeddingError, match="Gaussian charges"):
        embedded(acetate, amp, charge_width="0.2 nm")
    on_top = np.array(acetate.positions)
    on_top[-1] = on_top[0] + 0.01
    with pytest.raises(EmbeddingError, match="on top of"):
        embedded(dataclasses.replace(acetate, positions=on_top), amp)
    # A region, and a range of polarisation, beyond half of the box.
    long = np.array(acetate.positions)
    half = np.array([0.45, 0.0, 0.0]) * float(acetate.box_vectors[0, 0])
    long[0], long[2] = long[1] + half, long[1] - half
    with pytest.raises(EmbeddingError, match="twice the extent of the region"):
        embedded(dataclasses.replace(acetate, positions=long), amp)
    small = openmm.XmlSerializer.clone(acetate.system)
    small.setDefaultPeriodicBoxVectors(*(1.5 * np.eye(3)))
    next(f for f in small.getForces() if isinstance(f, openmm.NonbondedForce)).setCutoffDistance(0.7)
    with pytest.raises(EmbeddingError, match=r"at least 1\.60 nm wide"):
        embedded(dataclasses.replace(acetate, system=small), amp)
    with pytest.raises(PotentialError, match=r"in_potential\(…\) in the TorchScript form"):
        embedded(acetate, Formless())
    with pytest.raises(EmbeddingError, match=r"at least 2\.40 nm wide"):
        embedded(acetate, amp, far_field="reaction_field")
    with pytest.raises(ConfigError, match="far_field = ewald"):
        embedded(acetate, amp, far_field="cutoff")
    with pytest.raises(ConfigError, match="has no such medium"):
        embedded(acetate, amp, far_permittivity=4.0)
    with pytest.raises(ConfigError, match=r"1 \(no medium\) or more"):
        embedded(acetate, amp, far_field="reaction_field", far_permittivity=0.5)
    with pytest.raises(ConfigError, match="looks at all charges"):
        embedded(acetate, amp, bridge="native")
    side_chain = hard_zones(dipeptide_vacuum, select_region(dipeptide_vacuum, "resname ALA"))
    with pytest.raises(EmbeddingError, match="whole molecules"):
        hybrid_system(dipeptide_vacuum, side_chain, amp, scheme="additive", electrostatics="embedded")
