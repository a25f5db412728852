"""Schemes at an equal number of atoms: every row against an evaluation made in another way."""

from __future__ import annotations

import dataclasses
import logging
import re

import numpy as np
import pytest
from toys import SpringPotential, energy_and_forces, zones_with

from mlmm.cli.program import main
from mlmm.errors import ConfigError, EmbeddingError
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials import load_potential
from mlmm.validation.boundary_error import boundary_error
from mlmm.validation.compare_schemes import SchemeComparison, SchemeError, compare_schemes
from mlmm.zones.region import select_region
from mlmm.zones.static import static_zones

LOCAL = ("per_atom, all plateau", "per_atom, half plateau, half zone", "per_atom, all zone")
DIFFERENCE = ("supermolecular",)
INTRA = ("additive with caps and tail", "additive (mechanical)")
METHYL = "resname ALA and name CB HB1 HB2 HB3"
PLATEAU = 0.24


@pytest.fixture(scope="module")
def ani() -> object:
    """One member of ANI-1x, float64."""
    return load_potential("ani1x", precision="float64", members=[0])


def methyl(built):
    return select_region(built, METHYL, complete="atoms")


def two_frames(built) -> list[np.ndarray]:
    """The built structure, and one with every atom moved a little."""
    return [built.positions, built.positions + 0.003 * np.sin(np.arange(3 * built.n_atoms)).reshape(-1, 3)]


@pytest.fixture(scope="module")
def comparison(dipeptide_water, ani) -> SchemeComparison:
    return compare_schemes(
        dipeptide_water, methyl(dipeptide_water), ani, two_frames(dipeptide_water), PLATEAU
    )


def zones_of(built, name: str):
    plateau, width = {
        "per_atom, half plateau, half zone": (PLATEAU / 2, PLATEAU / 2),
        "per_atom, all zone": (0.0, PLATEAU),
    }.get(name, (PLATEAU, 0.0))
    return static_zones(built, methyl(built), plateau, width)


@pytest.mark.parametrize("name", LOCAL)
def test_rows_of_per_atom_are_its_boundary_error(dipeptide_water, ani, comparison, name):
    """Two force evaluations of the table give what the linear formula gives from one backward pass."""
    hybrid = hybrid_system(dipeptide_water, zones_of(dipeptide_water, name), ani, scheme="per_atom")
    errors = [boundary_error(hybrid, frame) for frame in two_frames(dipeptide_water)]
    row = comparison[name]
    np.testing.assert_allclose(row.errors, [e.errors for e in errors], atol=1e-6)
    np.testing.assert_allclose(row.percent, [e.percent for e in errors], rtol=1e-6)
    assert row.largest == pytest.approx(max(e.largest for e in errors), rel=1e-6)
    counts = hybrid.zone_counts()
    assert row.active == counts["core"] + counts["transition"]
    assert row.inputs == row.active + counts["buffer"]
    assert row.mean > 0.1


def test_rows_of_additive_against_the_model_on_all_atoms(dipeptide_water, ani, comparison):
    """Reference and row from hybrid systems of their own: lambda = 1 everywhere, and the hard region."""
    built, region = dipeptide_water, list(methyl(dipeptide_water).atoms)
    everywhere, bridge = zones_with(built, dict.fromkeys(range(built.n_atoms), 1.0)), "pythonforce"
    whole = hybrid_system(built, everywhere, ani, scheme="per_atom", bridge=bridge)
    whole = whole.reassembled(mm_side="torch")
    for name, tail in zip(INTRA, (True, False), strict=True):
        hybrid = hybrid_system(
            built, zones_of(built, name), ani, scheme="additive", mm_tail=tail, bridge=bridge
        )
        for k, frame in enumerate(two_frames(built)):
            exact = energy_and_forces(whole.system, frame)[1][region]
            found = energy_and_forces(hybrid.system, frame)[1][region]
            np.testing.assert_allclose(comparison[name].errors[k], found - exact, atol=1e-5)
        assert comparison[name].mean > 1.0


def test_supermolecular_has_no_error_on_the_region(comparison):
    """Not one cut bond ends on the region: rounding is all that is left."""
    assert comparison.capped == 0
    for name in DIFFERENCE:
        assert comparison[name].mean < 1e-9 and len(comparison[name].percent) == 2
    assert "end a cut bond" not in str(comparison)


def test_supermolecular_has_an_error_where_a_cut_bond_ends(dipeptide_vacuum, ani):
    """Negative control: CA in the region, CA–C cut. One atom is capped, the others stay exact."""
    region = select_region(dipeptide_vacuum, "resname ALA and name CA CB HB1 HB2 HB3", complete="atoms")
    found = compare_schemes(dipeptide_vacuum, region, ani, None, 0.1)
    assert found.capped == 1 and "1 atoms of the region end a cut bond" in str(found)
    errors = np.linalg.norm(found["supermolecular"].errors[0], axis=1)
    carbon = region.atoms.index(8)  # CA
    assert list(dipeptide_vacuum.topology.atoms())[8].name == "CA"
    assert errors[carbon] > 1.0 and np.delete(errors, carbon).max() < 1e-8


def test_all_rows_have_the_same_atoms(dipeptide_water, comparison):
    active = zones_of(dipeptide_water, "").active
    assert active == tuple(range(22))
    assert [row.active for row in comparison.schemes] == [len(active)] * 6
    assert [row.name for row in comparison.schemes] == [*LOCAL, *DIFFERENCE, *INTRA]
    assert [row.passes for row in comparison.schemes] == [1, 1, 1, 2, 1, 1]
    assert comparison["additive (mechanical)"].inputs == len(active)
    assert comparison["supermolecular"].inputs > comparison["per_atom, all zone"].inputs > len(active)
    # A zone cuts bonds between residues that a plateau holds whole.
    assert comparison["per_atom, all plateau"].cut_bonds == 0 < comparison["per_atom, all zone"].cut_bonds


def test_the_model_everywhere_is_its_own_reference(dipeptide_vacuum, ani):
    """S is the whole system: no error under any scheme that keeps the tail, one under that without."""
    found = compare_schemes(dipeptide_vacuum, methyl(dipeptide_vacuum), ani, None, "2 nm")
    for name in (LOCAL[0], *DIFFERENCE, INTRA[0]):
        assert found[name].active == 22 and found[name].mean < 1e-9, name
    assert found["additive (mechanical)"].mean > 0.01
    assert found["per_atom, all zone"].mean > 1e-6
    assert "±" not in str(found) and np.isnan(found["supermolecular"].standard_error)


def test_a_refused_scheme_leaves_the_others(dipeptide_vacuum, ani):
    """Two caps of the remainder would collide; the blend needs no cap, and the region's own stand apart."""
    region = select_region(dipeptide_vacuum, "resname ALA and name N H", complete="atoms")
    found = compare_schemes(dipeptide_vacuum, region, ani, None, 0.01, snap="hydrogen")
    assert not found["per_atom, all plateau"].refused and found["per_atom, all plateau"].mean > 1.0
    for name in DIFFERENCE:
        assert "caps at least 0.1 nm apart" in found[name].refused and np.isnan(found[name].mean)
    assert all(found[name].mean > 1.0 and not found[name].refused for name in INTRA)
    text = str(found)
    assert (
        text.count("refused") == len(DIFFERENCE)
        and "supermolecular: Expected caps at least 0.1 nm apart" in text
    )


def test_mean_standard_error_and_largest():
    errors = np.zeros((2, 2, 3))
    errors[1, 1] = (3.0, 0.0, 4.0)
    row = SchemeError("per_atom", errors, np.array([1.0, 3.0]), 14, 22, 1, 3)
    assert (row.mean, row.standard_error, row.largest) == (2.0, pytest.approx(1.0), 5.0)
    table = SchemeComparison(0.3, (row,), 2, 0, 900.0, 2, "resname LIG, toy")
    line = next(line for line in str(table).splitlines() if line.startswith("per_atom"))
    assert re.split(r"\s{2,}", line) == ["per_atom", "2.0 ± 1.0", "5.0", "14", "22", "1", "3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": []}, "at least one frame and a plateau above 0 nm, but got 0"),
        ({"plateau": 0.0}, "a plateau above 0 nm, but got 1 and 0 nm"),
        ({"plateau": "3 nm"}, "meets its own periodic image"),
        ({"snap": "chain"}, "snap = residue"),
    ],
)
def test_bad_comparisons_are_rejected(dipeptide_water, ani, arguments, message):
    with pytest.raises(ConfigError, match=message):
        compare_schemes(dipeptide_water, methyl(dipeptide_water), ani, **arguments)


def test_a_potential_without_a_reference_force_is_refused(dipeptide_water):
    """Trained on isolated molecules: its force on all atoms says nothing of a liquid."""
    potential = SpringPotential()
    with pytest.raises(EmbeddingError, match="a scheme for springs"):
        compare_schemes(dipeptide_water, methyl(dipeptide_water), potential, None, PLATEAU)
    potential.spec = dataclasses.replace(potential.spec, trained_on="total", per_atom=False)
    with pytest.raises(EmbeddingError, match="per_atom = False"):
        compare_schemes(dipeptide_water, methyl(dipeptide_water), potential, None, PLATEAU)


@pytest.mark.slow
def test_order_of_the_schemes_in_a_protein(root, models_folder):
    """Around a residue of T4 lysozyme: plateau before caps, caps before a zone without plateau."""
    import mlmm

    built = mlmm.build_system(
        root / "systems/lysozyme_xylene/input.pdb",
        ligands=["p-xylene.xml"],
        solvate=False,
        constraints="none",
        rigid_water=False,
    )
    region = select_region(built, "resSeq 153")
    potential = load_potential("ani2x", precision="float64", members=[0])
    found = compare_schemes(built, region, potential, mlmm.draw_frames(built, 1), "0.3 nm")
    error = {row.name: row.mean for row in found.schemes}
    assert max(error[name] for name in DIFFERENCE) < 1e-9
    assert 0.1 < 2 * error[LOCAL[0]] < error[INTRA[0]] < error[LOCAL[2]]
    assert error[LOCAL[0]] < error[LOCAL[1]] < error[LOCAL[2]]
    assert error[INTRA[0]] < error[INTRA[1]]
    assert all(row.cut_bonds > 10 for row in found.schemes)


QUICK = ["--set", "system.solvate=false", "--set", "potential.members=[0]", "--set", "run.platform=Reference"]


def test_comparison_on_the_command_line(root, capsys):
    """Two plateaus, one frame: two tables with their warnings; progress elsewhere."""
    zone_file = str(root / "systems/alanine_dipeptide/zone.toml")
    command = ["check", "schemes", zone_file, "--plateaus", "0.2, 0.3 nm", "--frames", "1"]
    assert main([*command, *QUICK]) == 0
    # What hides the warnings of seven hybrid systems is gone afterwards.
    assert not any(handler.filters for handler in logging.getLogger("mlmm").handlers)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line for line in lines if line.startswith("plateau")] == ["plateau 0.2 nm", "plateau 0.3 nm"]
    rows = [re.split(r"\s{2,}", line) for line in lines if line.startswith(("per_atom", "super", "additive"))]
    assert [row[0] for row in rows] == [*LOCAL, *DIFFERENCE, *INTRA] * 2
    assert {row[3] for row in rows[:6]} == {"14"} and {row[3] for row in rows[6:]} == {"22"}
    assert "supermolecular: 14 atoms" in printed.err
    assert sum(line.startswith("bonds join atoms of different lambda") for line in lines) == 1
    assert "WARNING" not in printed.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plateaus", "0.3 fs"], "--plateaus as a length"),
        (["--plateaus", "0.3,0"], "plateaus above 0 nm, but got 0.3, 0"),
        (["--frames", "0"], "--frames 1 or more"),
    ],
)
def test_bad_options_are_rejected(root, capsys, options, message):
    assert main(["check", "schemes", str(root / "systems/alanine_dipeptide/zone.toml"), *options]) == 2
    assert message in capsys.readouterr().err


def test_every_key_of_the_potential_counts_in_a_comparison(root, monkeypatch):
    """The potential of `mlmm check schemes` is the one of the run file, but in float64."""
    import mlmm.errors
    import mlmm.potentials

    asked = {}

    def load(name, **settings):
        asked.update(settings, name=name)
        raise mlmm.errors.PotentialError("a potential", "none", "this is as far as the test goes")

    monkeypatch.setattr(mlmm.potentials, "load_potential", load)
    changes = ["potential.trust=true", "potential.kernel=torch", "potential.members=[1]"]
    options = [word for change in changes for word in ("--set", change)]
    zone_file = str(root / "systems/alanine_dipeptide/zone.toml")
    assert main(["check", "schemes", zone_file, *options, "--set", "system.solvate=false"]) == 2
    assert asked == {
        "name": "ani1x",
        "members": (1,),
        "precision": "float64",
        "device": "cpu",
        "trust": True,
        "kernel": "torch",
        "polarisation_scaling": None,
    }
