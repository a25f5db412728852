"""The scheme that is taken where none is named, and the tail of the force field that other schemes leave."""

from __future__ import annotations

import json
import logging
import re

import numpy as np
import openmm
import pytest
import torch
from mm_systems import pair_loop
from toys import energy_and_forces, toy_spec

import mlmm
from mlmm.errors import EmbeddingError
from mlmm.hybrid.mm_tail import tail_energies
from mlmm.hybrid.rules import choose_scheme
from mlmm.hybrid.system import hybrid_system
from mlmm.schemes import take_scheme
from mlmm.structures import Structure
from mlmm.zones.adaptive import adaptive_zones
from mlmm.zones.region import select_region
from mlmm.zones.static import hard_zones, static_zones

_ANGLES = [(-80.0, 80.0), (-160.0, 165.0), (60.0, -60.0), (-75.0, -20.0)]  # phi, psi; degrees


@pytest.fixture(scope="module")
def conformers(dipeptide_vacuum):
    """Four conformers of alanine dipeptide, (4, 22, 3) nm, relaxed at given phi and psi."""
    built = dipeptide_vacuum
    index = {(atom.residue.name, atom.name): atom.index for atom in built.topology.atoms()}
    phi = [index[key] for key in (("ACE", "C"), ("ALA", "N"), ("ALA", "CA"), ("ALA", "C"))]
    psi = [index[key] for key in (("ALA", "N"), ("ALA", "CA"), ("ALA", "C"), ("NME", "N"))]
    found = []
    for angles in _ANGLES:
        system = openmm.XmlSerializer.clone(built.system)
        force = openmm.CustomTorsionForce("1000*(1-cos(theta-target))")
        force.addPerTorsionParameter("target")
        for atoms, angle in zip((phi, psi), angles, strict=True):
            force.addTorsion(*atoms, [np.radians(angle)])
        system.addForce(force)
        context = openmm.Context(
            system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
        )
        context.setPositions(built.positions)
        openmm.LocalEnergyMinimizer.minimize(context, 1.0, 500)
        found.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    return np.array(found)


def bare_energies(built, potential, conformers):
    """Energies of the potential alone, kJ/mol."""
    numbers = torch.tensor(built.numbers)
    return np.array(
        [
            float(potential.atom_energies(Structure(numbers, torch.tensor(where))).energies.sum())
            for where in conformers
        ]
    )


def test_conformer_energies_of_the_default_are_those_of_the_potential(dipeptide_vacuum, ani1x, conformers):
    """A molecule that is the potential's alone keeps its conformer energies; not so under ``per_atom``."""
    zones = hard_zones(dipeptide_vacuum, select_region(dipeptide_vacuum, "all"))
    own = bare_energies(dipeptide_vacuum, ani1x, conformers)
    assert np.ptp(own) > 1.0
    hybrid = hybrid_system(dipeptide_vacuum, zones, ani1x)
    assert hybrid.scheme == "additive" and not hybrid.warnings
    energies = np.array([energy_and_forces(hybrid.system, where)[0] for where in conformers])
    np.testing.assert_allclose(energies - energies[0], own - own[0], atol=1e-6)
    other = hybrid_system(dipeptide_vacuum, zones, ani1x, scheme="per_atom")
    energies = np.array([energy_and_forces(other.system, where)[0] for where in conformers])
    wrong = (energies - energies[0]) - (own - own[0])
    assert np.abs(wrong).max() > 1.0
    # What stays is what the warning counts, in every conformer.
    tails = [tail_energies(other.spec, where) for where in conformers]
    np.testing.assert_allclose(energies - own, [tail.total for tail in tails], atol=1e-6)
    (warning,) = other.warnings
    size = float(re.match(r"([-+][\d.]+) kJ/mol of the force field stay inside", warning)[1])
    built = tail_energies(other.spec)
    assert size == pytest.approx(built.total, abs=0.006) and abs(size) > 1.0
    for part in (f"Coulomb {built.coulomb:+.2f}", f"Lennard-Jones {built.lennard_jones:+.2f}", "ACE1–NME3"):
        assert part in warning


def test_the_tail_is_in_log_and_record_of_a_run(dipeptide_vacuum, ani1x, tmp_path, caplog):
    zones = hard_zones(dipeptide_vacuum, select_region(dipeptide_vacuum, "all"))
    for scheme, count in (("per_atom", 1), ("auto", 0)):
        hybrid = hybrid_system(dipeptide_vacuum, zones, ani1x, scheme=scheme)
        with caplog.at_level(logging.INFO, logger="mlmm"):
            run = mlmm.simulate(
                hybrid, tmp_path / scheme, [mlmm.Produce("0.002 ps", timestep="0.5 fs")], platform="Reference"
            )
        facts = json.loads(run.file("run.json").read_text())
        assert sum("stay inside molecules of lambda = 1" in said for said in facts["warnings"]) == count
        log = run.file("run.log").read_text()
        assert log.count("stay inside molecules of lambda = 1") == count
        assert f"scheme {hybrid.scheme}" in log
    assert facts["embedding"]["scheme_reason"] == "the region is whole molecules, without a zone"
    assert "(by default: the region is whole molecules, without a zone)" in log


def test_the_tail_of_a_periodic_system_is_that_of_the_molecule_alone(dipeptide_water, ani1x):
    """Under PME the pairs inside the molecule are the same ones; waters are too small for a tail of wells."""
    built = dipeptide_water
    zones = hard_zones(built, select_region(built, "resname ACE ALA NME"))
    spec = hybrid_system(built, zones, ani1x, scheme="per_atom").spec
    periodic = tail_energies(spec)
    assert periodic.molecules == ("ACE1–NME3",)
    force = next(one for one in built.system.getForces() if isinstance(one, openmm.NonbondedForce))
    alone = openmm.System()
    for _ in range(22):
        alone.addParticle(1.0)
    free = openmm.NonbondedForce()
    for i in range(22):
        free.addParticle(*force.getParticleParameters(i))
    for k in range(force.getNumExceptions()):
        i, j, *values = force.getExceptionParameters(k)
        if max(i, j) < 22:
            free.addException(i, j, *values)
    alone.addForce(free)
    everything = energy_and_forces(alone, built.positions[:22])[0]
    end = ani1x.spec.cutoff
    replaced = pair_loop(alone, built.positions[:22], None, np.ones(22, bool), 0.7 * end, end).sum()
    assert periodic.total == pytest.approx(everything - replaced, abs=1e-6)


@pytest.mark.parametrize(
    ("keys", "scheme", "reason"),
    [
        ({"cuts": False}, "additive", "whole molecules"),
        ({"cuts": False, "zones": "hard"}, "additive", "whole molecules"),
        ({"cuts": True}, "per_atom", "cuts bonds"),
        ({"cuts": False, "zones": "static"}, "per_atom", "kind static"),
        ({"cuts": False, "zones": "residues"}, "per_atom", "kind residues"),
        ({"cuts": True, "zones": "adaptive"}, "per_atom", "cuts bonds"),
        ({"cuts": False, "zones": "adaptive"}, "per_atom", "kind adaptive"),
        ({"cuts": True, "electrostatics": "embedded"}, "additive", "embedded"),
        ({"cuts": True, "mm_tail": True}, "additive", "mm_tail"),
        ({"cuts": True, "multiplicity": 3}, "additive", "multiplicity = 3"),
        ({"cuts": False, "electrostatics": "charges"}, "additive", "whole molecules"),
        ({"cuts": True, "electrostatics": "charges"}, "per_atom", "cuts bonds"),
    ],
)
def test_the_default_follows_from_region_zone_and_keys(keys, scheme, reason):
    choice = take_scheme("auto", toy_spec(trained_on="total"), **keys)
    assert choice.name == scheme and reason in choice.reason
    assert take_scheme("supermolecular", toy_spec(trained_on="total"), **keys) == type(choice)(
        "supermolecular"
    )


@pytest.mark.parametrize(
    ("facts", "whole", "cut"),
    [
        ({"trained_on": "correction"}, "delta", "delta"),
        ({"trained_on": "isolated"}, "additive", "additive"),
        ({"trained_on": "total", "long_range": True}, "additive", "additive"),
        ({"trained_on": "total", "charges": True}, "additive", "additive"),
        ({"trained_on": "total", "per_atom": False}, "additive", "supermolecular"),
    ],
)
def test_the_default_suits_the_potential(facts, whole, cut):
    spec = toy_spec(**facts)
    assert take_scheme("auto", spec, cuts=False).name == whole
    assert take_scheme("auto", spec, cuts=True).name == cut


def test_the_default_of_a_partition_is_that_of_its_kind(dipeptide_water):
    """Zones that were asked for count, also where nothing lies between lambda 0 and 1."""
    built, spec = dipeptide_water, toy_spec(trained_on="total")
    whole = select_region(built, "resname ACE ALA NME")
    part = select_region(built, "resname ALA")
    for zones, scheme in (
        (hard_zones(built, whole), "additive"),
        (hard_zones(built, part), "per_atom"),
        (static_zones(built, whole, "0 nm", "0 nm"), "per_atom"),
        (static_zones(built, whole, "0.2 nm", "0.2 nm"), "per_atom"),
        (adaptive_zones(built, whole, "0.2 nm", "0.2 nm"), "per_atom"),
    ):
        assert choose_scheme("auto", zones, spec).name == scheme
    with pytest.raises(EmbeddingError, match="a hard region under scheme 'additive'"):
        choose_scheme("auto", static_zones(built, whole), spec, mm_tail=True)


def test_rigid_water_does_not_stop_the_default(root, ani1x):
    """With the builder's own constraints; ``per_atom`` cannot have them."""
    built = mlmm.build_system(
        root / "systems/alanine_dipeptide/input.pdb", padding="0.5 nm", nonbonded_cutoff="0.9 nm"
    )
    assert built.system.getNumConstraints() > 0
    zones = hard_zones(built, select_region(built, "resname ACE ALA NME"))
    assert hybrid_system(built, zones, ani1x).scheme == "additive"
    with pytest.raises(EmbeddingError, match="flexible molecules in the zone"):
        hybrid_system(built, zones, ani1x, scheme="per_atom")
