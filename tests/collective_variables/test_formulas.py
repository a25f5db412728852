"""Collective variables of structures whose values are known, and sentences where there is none."""

from __future__ import annotations

import math

import numpy as np
import openmm
import pytest
import torch
from cases import system_of
from openmm import app, unit

import mlmm
from mlmm.collective_variables.bind import bind, bind_variable
from mlmm.collective_variables.options import Restraint, Variable
from mlmm.collective_variables.values import value, value_and_gradient
from mlmm.errors import ConfigError, SelectionError


def at(variable: Variable, *places: tuple[float, float, float], box: float | None = None) -> float:
    """Value with the first atoms at some places."""
    built = system_of(box)
    positions = torch.tensor(built.positions)
    positions[: len(places)] = torch.tensor(places, dtype=torch.float64)
    cell = None if box is None else torch.tensor(np.array(built.box_vectors))
    return float(value(bind_variable(built, variable), positions, cell))


def test_distances_angles_and_torsions_by_hand():
    corner = [(0.3, 0, 0), (0, 0, 0), (0, 0.4, 0)]
    pairs = [[0], [1], [1], [2]]
    assert at(Variable("x", "distance", [[0], [2]]), *corner) == pytest.approx(0.5)
    assert at(Variable("x", "angle", [[0], [1], [2]]), *corner) == pytest.approx(math.pi / 2)
    assert at(Variable("x", "difference", pairs), *corner) == pytest.approx(-0.1)
    assert at(Variable("x", "sum", pairs), *corner) == pytest.approx(0.7)
    assert at(Variable("x", "sum", pairs, coefficients=[2, -1]), *corner) == pytest.approx(0.2)
    assert at(Variable("x", "distance", [[0, 2], [1]]), *corner) == pytest.approx(0.25)
    # Seen along the middle bond, the last atom clockwise of the first: positive (IUPAC).
    for angle in (-170, -60, 60, 90, 179):
        last = (0.1 * math.cos(math.radians(angle)), 0.1 * math.sin(math.radians(angle)), 0.2)
        chain = [(0.1, 0, 0), (0, 0, 0), (0, 0, 0.2), last]
        found = at(Variable("x", "torsion", [[0], [1], [2], [3]]), *chain)
        assert math.degrees(found) == pytest.approx(angle)


def test_masses_are_those_of_the_elements(dipeptide_vacuum):
    """Also with heavier hydrogens: C and H of a bond at 12.011 : 1.008."""
    heavier = mlmm.select_region(dipeptide_vacuum, "all").atoms
    from mlmm.build.masses import heavier_hydrogens

    built = heavier_hydrogens(dipeptide_vacuum, heavier, "3 amu")
    for system in (dipeptide_vacuum, built):
        bound = bind_variable(
            system, Variable("x", "distance", ["name CA HA and resname ALA", "resname NME"])
        )
        assert sorted(bound.weights[0]) == pytest.approx([1.008 / 13.019, 12.011 / 13.019], rel=1e-4)
    assert built.system.getParticleMass(9)._value != dipeptide_vacuum.system.getParticleMass(9)._value


def test_position_along_an_axis():
    """0 at its beginning, its length at its end, negative behind; sideways nothing changes."""
    axis = [(0, 0, 0), (0, 0, 0.5)]
    for along in (-0.2, 0.0, 0.3, 0.7):
        for aside in (0.0, 0.4):
            places = [*axis, (aside, 0, along)]
            assert at(Variable("x", "axis", [[0], [1], [2]]), *places) == pytest.approx(along, abs=1e-12)


def test_coordination_counts_half_at_the_contact_distance():
    for n in (6, 12):
        contact = Variable("x", "coordination", [[0], [1, 2]], contact_distance="0.3 nm", exponent=n)
        assert at(contact, (0, 0, 0), (0.3, 0, 0), (0, 0, 2)) == pytest.approx(0.5)
        assert at(contact, (0, 0, 0), (0.01, 0, 0), (0, 0.01, 0)) == pytest.approx(2.0, abs=1e-6)
        x = 0.4 / 0.3
        rational = (1 - x**n) / (1 - x ** (2 * n))
        assert at(contact, (0, 0, 0), (0.4, 0, 0), (0, 0, 2)) == pytest.approx(rational)
    # Smooth where pairs cease to count, which is at three contact distances.
    ends = [at(contact, (0, 0, 0), (0.9 - h, 0, 0), (0, 0, 2)) for h in (0.0, 1e-3, 2e-3)]
    assert ends[0] == 0.0 and ends[2] / ends[1] == pytest.approx(8, rel=0.1)


def test_rmsd_of_a_turned_and_shifted_reference_is_zero():
    built = system_of(None)
    turned = built.positions @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]) + 3.0
    variable = bind_variable(built, Variable("x", "rmsd", [[0, 1, 2, 3]], reference=turned))
    found, gradient = value_and_gradient(variable, torch.tensor(built.positions))
    assert found < 1e-8 and torch.isfinite(gradient).all()
    # One atom moved along the longest axis by d: at most d/2, and not by the mean alone.
    stretched = torch.tensor(built.positions)
    stretched[3, 0] += 0.1
    assert 0.01 < float(value(variable, stretched)) < 0.05


def test_path_is_progress_and_distance():
    """At image k of K: s = k/(K − 1) with a tail from its neighbours, z = 0 to within them."""
    built = system_of(None)
    step = np.random.default_rng(0).normal(0, 0.05, (4, 3))
    images = np.stack([built.positions[:4] + k * step for k in range(4)])
    s, z = (
        bind_variable(built, Variable("x", kind, [[0, 1, 2, 3]], images=images, sharpness="4000 1/nm^2"))
        for kind in ("path_s", "path_z")
    )
    for k, image in enumerate(images):
        positions = torch.tensor(built.positions)
        positions[:4] = torch.tensor(image)
        assert float(value(s, positions)) == pytest.approx(k / 3, abs=1e-3)
        assert float(value(z, positions)) == pytest.approx(0.0, abs=1e-6)
    positions = torch.tensor(built.positions)
    positions[:4] = torch.tensor(0.5 * (images[1] + images[2]))
    assert float(value(s, positions)) == pytest.approx(0.5, abs=0.02)
    assert float(value(z, positions)) > 1e-4
    # By default an image has a tenth of its weight at the place of its neighbour.
    default = bind_variable(built, Variable("x", "path_s", [[0, 1, 2, 3]], images=images))
    squares = [float(value(bind_variable(built, Variable("r", "rmsd", [[0, 1, 2, 3]], reference=images[k])),
                           _with(built, images[k + 1]))) ** 2 for k in range(3)]  # fmt: skip
    assert math.exp(-default.sharpness * np.mean(squares)) == pytest.approx(0.1, rel=0.01)


def _with(built, places) -> torch.Tensor:
    positions = torch.tensor(built.positions)
    positions[:4] = torch.tensor(places)
    return positions


def test_files_give_references_and_images(tmp_path):
    import mdtraj

    built = system_of(None)
    topology = mdtraj.Topology.from_openmm(built.topology)
    frames = np.stack([built.positions, built.positions + np.random.default_rng(0).normal(0, 0.05, (8, 3))])
    whole, part = tmp_path / "whole.pdb", tmp_path / "part.pdb"
    mdtraj.Trajectory(frames, topology).save_pdb(str(whole))
    mdtraj.Trajectory(frames[:, :4], topology.subset(range(4))).save_pdb(str(part))
    found = [
        bind_variable(built, Variable("x", "path_s", [[0, 1, 2, 3]], images=str(p))) for p in (whole, part)
    ]
    for variable in found:
        assert variable.references == pytest.approx(frames[:, :4], abs=1e-4)
    with pytest.raises(
        ConfigError, match=r"of the 3 selected or of all 8 atoms for variable x, but got 4 in"
    ):
        bind_variable(built, Variable("x", "path_s", [[0, 1, 2]], images=str(part)))
    text = part.read_text().replace("           C  ", "           N  ", 1)
    (tmp_path / "other.pdb").write_text(text)
    with pytest.raises(
        ConfigError, match=r"order of the system in .*other.pdb, but got N in the place of CH0"
    ):
        bind_variable(built, Variable("x", "rmsd", [[0, 1, 2, 3]], reference=str(tmp_path / "other.pdb")))
    with pytest.raises(ConfigError, match=r"nowhere\.pdb: No such file"):
        bind_variable(built, Variable("x", "rmsd", [[0, 1, 2]], reference="nowhere.pdb"))
    (tmp_path / "broken.pdb").write_text("nothing\n")
    with pytest.raises(ConfigError, match=r"file for variable x in PDB or mmCIF, but got .*broken\.pdb"):
        bind_variable(built, Variable("x", "rmsd", [[0, 1, 2]], reference=str(tmp_path / "broken.pdb")))


@pytest.mark.parametrize(
    ("arguments", "facts", "message"),
    [
        (("x", "distance", [[0]]), {}, "2 groups in variable x of kind distance, but got 1"),
        (("x", "sum", [[0], [1], [2]]), {}, "an even number of groups"),
        (("x y", "distance", [[0], [1]]), {}, "a variable whose name is a letter"),
        (("x", "dihedral", [[0], [1]]), {}, 'Write kind = "torsion"'),
        (("x", "rsmd", [[0], [1]]), {}, 'Write variable.x.kind = "rmsd"'),
        (("x", "distance", [[0], [1]]), {"cutoff": "1 nm"}, "cutoff with kind coordination only"),
        (("x", "coordination", [[0], [1]]), {}, "contact_distance in variable x of kind coordination"),
        (("x", "path_s", [[0, 1, 2]]), {}, "images in variable x of kind path_s"),
        (("x", "sum", [[0], [1]]), {"coefficients": [1, 2]}, "1 coefficients in variable x"),
        (("x", "distance", [[0], [99]]), {}, "different atom indices between 0 and 7 in variable x"),
        (("x", "distance", [[0, 0], [1]]), {}, "different atom indices"),
        (("x", "distance", ["name C0", "name XX"]), {}, "a selection that matches atoms"),
        (("x", "distance", [[0], 1.5]), {}, "as selections or lists of indices, but got 1.5"),
        (("x", "distance", [[0, 1], [0, 1]]), {}, "groups 1 and 2 with the same centre"),
        (("x", "rmsd", [[0, 1]]), {}, "three atoms or more to superpose"),
        (("x", "coordination", [[0, 1], [1, 2]]), {"contact_distance": 0.3}, "C1 in both"),
        (("x", "path_s", [[0, 1, 2]]), {"images": np.zeros((1, 3, 3))}, "two images or more"),
        (("x", "path_s", [[0, 1, 2]]), {"images": np.zeros((2, 3, 3))}, "image 2, which is the one before"),
        (("x", "rmsd", [[0, 1, 2]]), {"reference": np.full((3, 3), np.nan)}, "finite coordinates"),
    ],
)
def test_what_is_no_variable_is_a_sentence(arguments, facts, message):
    with pytest.raises((ConfigError, SelectionError), match=message):
        bind_variable(system_of(None), Variable(*arguments, **facts))


def straight(**changes) -> object:
    """Chains with three atoms on a line."""
    import dataclasses

    built = system_of(None)
    positions = np.array(built.positions)
    positions[:3] = [(0, 0, 0), (0, 0, 0.15), (0, 0, 0.3)]
    return dataclasses.replace(built, positions=positions)


@pytest.mark.parametrize(("kind", "groups"), [("angle", [[0], [1], [2]]), ("torsion", [[0], [1], [2], [3]])])
def test_atoms_on_a_line_are_refused(kind, groups):
    with pytest.raises(ConfigError, match="groups 1, 2 and 3 on a straight line"):
        bind_variable(straight(), Variable("x", kind, groups))
    # OpenMM itself gives NaN, or forces without direction; a bend of a degree is enough.
    bind_variable(system_of(None), Variable("x", kind, groups))


def test_virtual_sites_have_no_mass():
    model = app.Modeller(app.Topology(), [])
    force_field = app.ForceField("amber14/tip4pew.xml")
    model.addSolvent(force_field, model="tip4pew", boxSize=openmm.Vec3(1.7, 1.7, 1.7) * unit.nanometer)
    system = force_field.createSystem(model.topology, nonbondedMethod=app.NoCutoff)
    built = mlmm.BuiltSystem.from_openmm(model.topology, system, model.positions)
    site = int(np.flatnonzero(built.virtual_sites)[0])
    with pytest.raises(ConfigError, match="a virtual site or a particle without mass"):
        bind_variable(built, Variable("x", "distance", [[site], [0]]))
    with pytest.raises(ConfigError, match="a virtual site"):
        bind_variable(built, Variable("x", "rmsd", [[0, 1, 2, site]]))
    # Beside atoms it has no weight.
    bound = bind_variable(built, Variable("x", "distance", [[0, 1, 2, 3], [8]]))
    assert bound.weights[0][3] == 0 and bound.weights[0].sum() == pytest.approx(1)


def test_groups_that_are_split_over_the_box_are_refused():
    import dataclasses

    built = system_of(1.5)
    bind_variable(built, Variable("x", "distance", [[0, 4], [1]]))
    positions = np.array(built.positions)
    positions[4:] += [1.5, 0, 0]
    split = dataclasses.replace(built, positions=positions)
    with pytest.raises(ConfigError, match=r"stand in one periodic image in variable x, but got CH1.*in two"):
        bind_variable(split, Variable("x", "distance", [[0, 4], [1]]))
    bind_variable(split, Variable("x", "distance", [[0], [4]]))
    with pytest.raises(ConfigError, match=r"below half the box, 0.75 nm, but got 0.9 nm"):
        bind_variable(built, Variable("x", "coordination", [[0], [4]], contact_distance="0.3 nm"))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "force_constant in the restraint on x, but got none"),
        (
            {"force_constant": 1},
            'at of the restraint on x, but got none. Write at = "…" with the unit of a length',
        ),
        ({"at": "0.3 rad", "force_constant": 1}, "at of the restraint on x as a length"),
        ({"at": 0.3, "force_constant": "5 kJ/mol"}, "as an energy per length squared"),
        ({"at": 0.3, "force_constant": -1}, "force_constant of the restraint on x of 0 or more"),
        ({"at": -0.3, "force_constant": 1}, "at of the restraint on x between 0 and inf, but got -0.3"),
        (
            {"at": 0.3, "force_constant": 1, "width": 0.1},
            "width in the restraint on x with shape flat_bottom",
        ),
        ({"at": 0.3, "force_constant": 1, "shape": "flat_bottom"}, 'Write width = "0.05 nm"'),
        ({"at": 0.3, "force_constant": 1, "shape": "wall"}, 'Write shape = "lower" or shape = "upper"'),
    ],
)
def test_what_is_no_restraint_is_a_sentence(facts, message):
    with pytest.raises(ConfigError, match=message):
        bind(system_of(None), [Restraint(Variable("x", "distance", [[0], [1]]), **facts)])


def test_restraints_that_have_no_direction_or_no_variable_are_refused():
    built = system_of(None)
    rmsd = Variable("x", "rmsd", [[0, 1, 2, 3]])
    with pytest.raises(ConfigError, match="an rmsd of 0, from which no force leads away"):
        bind(built, [Restraint(rmsd, at="0.1 nm", force_constant=1)])
    bind(built, [Restraint(rmsd, at="0.1 nm", force_constant=1, shape="upper"), Restraint(rmsd, 0.0, 1)])
    with pytest.raises(ConfigError, match=r"on a variable that is defined, but got one on 'y'"):
        bind(built, [Restraint("y", at=1, force_constant=1)], [rmsd])
    with pytest.raises(ConfigError, match="two that are called x"):
        bind(built, [Restraint(rmsd, 0, 1), Restraint(Variable("x", "distance", [[0], [1]]), 0.1, 1)])
    torsion = Variable("t", "torsion", [[0], [1], [2], [3]])
    with pytest.raises(ConfigError, match='Write shape = "flat_bottom" and a width'):
        bind(built, [Restraint(torsion, at=0, force_constant=1, shape="lower")])
    with pytest.raises(ConfigError, match="Leave it out: at is the reference"):
        bind(built, [Restraint(Variable("p", "position", [[0]]), at=0.1, force_constant=1)])
