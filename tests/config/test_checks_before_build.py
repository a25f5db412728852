"""What is wrong with a run file is said before anything is built, and the cheapest first."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlmm.cli import main

_BASE = """
[system]
pdb = "{root}/systems/{pdb}"
{system}
[region]
select = {select!r}
{region}
[zones]
{zones}
[potential]
name = "{name}"
{potential}
[embedding]
{embedding}
[run]
produce = "0.01 ps"
{run}
"""
_EMPTY = dict.fromkeys(("system", "region", "zones", "potential", "embedding", "run"), "")
_DIPEPTIDE = {"pdb": "alanine_dipeptide/input.pdb", "select": "resname ACE ALA NME", "name": "ani1x"}

#: Neither the structure nor the potential is read: problem -> what the file has, part of the sentence.
KEYS = {
    "potential": ({"name": "ani1y"}, 'Did you mean "ani1x"'),
    "weights": ({"name": "no/file.pt"}, "an existing file"),
    "selection": ({"select": "resname = ALA"}, "Write == where two things are compared"),
    "selection of the zone": (
        {"zones": 'kind = "adaptive"\ncentre = "nam C"'},
        "a selection in mdtraj's language, but got 'nam C'",
    ),
    "selection of a variable": (
        {"run": '[variable.d]\ngroups = ["name CA", "nam CB"]'},
        "a selection in mdtraj's language, but got 'nam CB'",
    ),
    "reference of a variable": (
        {"run": '[variable.r]\nkind = "rmsd"\ngroups = ["all"]\nreference = "none.pdb"'},
        "reference of variable r, a structure file, but got no file none.pdb",
    ),
    "unit of a restraint": (
        {
            "run": '[variable.d]\ngroups = ["name CA", "name CB"]\n[[restraint]]\nvariable = "d"\n'
            'at = "3 K"\nforce_constant = "1 kJ/mol/nm^2"'
        },
        "at of the restraint on d as a length",
    ),
    "tail": ({"embedding": 'scheme = "per_atom"\nmm_tail = true'}, "mm_tail = true under scheme 'additive'"),
    "scheme": ({"embedding": 'scheme = "delta"'}, 'Use scheme = "per_atom"'),
    "embedded": ({"embedding": 'electrostatics = "embedded"'}, "Use amp-bms"),
    "zone of a global charge": ({"name": "amp-bms", "zones": 'kind = "static"'}, "a hard region"),
    "adaptive": ({"embedding": 'scheme = "additive"', "zones": 'kind = "adaptive"'}, "an adaptive zone"),
    "sizes": ({"embedding": 'scheme = "additive"', "zones": 'width = "0.2 nm"'}, "whose region is hard"),
    "bridge": (
        {"name": "amp-bms", "embedding": 'electrostatics = "charges"', "potential": 'bridge = "torchforce"'},
        "bridge = pythonforce for electrostatics",
    ),
    "polarisation that nothing causes": (
        {"name": "amp-bms", "potential": "polarisation_scaling = 1.0"},
        'polarisation_scaling with electrostatics = "embedded"',
    ),
    "polarisation beyond the fit": (
        {"name": "amp-bms", "potential": "polarisation_scaling = 3.5"},
        "polarisation_scaling between 0 and 1",
    ),
    "permittivity of no medium": (
        {"name": "amp-bms", "embedding": 'electrostatics = "embedded"\nfar_permittivity = 4.0'},
        "far_field = 'ewald', which has no such medium. Leave far_permittivity out",
    ),
    "charge": ({"region": "charge = -1"}, "Use amp-bms"),
    "multiplicity": ({"region": "multiplicity = 3"}, 'write outside_training = "warn"'),
    "training set": ({"run": '[uncertainty]\ntraining_set = "none.npz"'}, "a training_set that is there"),
}
#: The structure is read, nothing is built.
STRUCTURE = {
    "nothing selected": ({"select": "resname LIG"}, "matches none"),
    "nothing in a variable": (
        {"run": '[variable.d]\ngroups = ["name CA HA", "resname LIG"]'},
        "'resname LIG', which matches none",
    ),
    "element": (
        {
            "pdb": "lysozyme_xylene/input.pdb",
            "system": 'ligands = ["p-xylene.xml"]',
            "select": "resname MET",
        },
        "only elements that ANI-1x knows",
    ),
    "charge by residue": (
        {
            "pdb": "lysozyme_xylene/input.pdb",
            "system": 'ligands = ["p-xylene.xml"]\nhydrogens = "strip"',
            "select": "resname ASP",
        },
        "a neutral region for ANI-1x",
    ),
    "rigid molecules": ({"select": "resname ALA"}, 'Write constraints = "none" and rigid_water = false'),
    "rigid water": (
        {"zones": 'kind = "adaptive"', "system": 'constraints = "none"'},
        "under scheme 'per_atom', which is taken because a zone of kind adaptive",
    ),
    "rigid water around a static zone": (
        {"zones": 'kind = "static"', "system": 'constraints = "none"'},
        "got rigid_water = true, and there will be water within the 0.5 nm of the zone. Write constraints",
    ),
    "parity": ({"name": "amp-bms", "region": "charge = 1"}, "a multiplicity that the region's electrons can"),
    "no box": (
        {"system": "solvate = false", "run": 'ensemble = "NPT"'},
        "a periodic system for ensemble NPT",
    ),
    "platform": ({"run": 'platform = "Quantum"'}, "platform = "),
    "no structure": ({"pdb": "nowhere/input.pdb"}, "nowhere"),
}


@pytest.fixture
def message(root, tmp_path, capsys, monkeypatch):
    """What `mlmm run` says of a run file, with doors that must stay shut."""

    def said(changes, *shut):
        def entered(*_, **__):
            raise AssertionError("too late")

        for door in shut:
            monkeypatch.setattr(door, entered)
        path = tmp_path / "run.toml"
        path.write_text(_BASE.format(root=root, **_EMPTY | _DIPEPTIDE | changes))
        assert main(["run", str(path), "--out", str(tmp_path / "out")]) == 2
        assert not (tmp_path / "out").exists()
        error = capsys.readouterr().err
        assert error.startswith("mlmm: error: ") and error.count("\n") == 1
        return error

    return said


@pytest.mark.parametrize("problem", KEYS)
def test_keys_are_checked_before_the_structure_and_the_potential_are_read(problem, message):
    changes, sentence = KEYS[problem]
    shut = (
        "mlmm.cli.session.check_structure",
        "mlmm.cli.session.build_from",
        "mlmm.cli.session.potential_from",
    )
    assert sentence in message(changes, *shut)


@pytest.mark.parametrize("problem", STRUCTURE)
def test_the_region_is_checked_in_the_structure_before_anything_is_built(problem, message):
    changes, sentence = STRUCTURE[problem]
    shut = (
        "mlmm.cli.session.potential_from",
        "mlmm.cli.session.build_from",
        "mlmm.build.repair.apply_repairs",
    )
    assert sentence in message(changes, *shut)


def test_a_run_file_that_is_right_is_built(message):
    """The doors are the right ones: without a problem the build is entered."""
    with pytest.raises(AssertionError, match="too late"):
        message({}, "mlmm.cli.session.build_from")
    with pytest.raises(AssertionError, match="too late"):
        message({}, "mlmm.cli.session.potential_from")


def test_no_numerical_library_is_needed_for_the_keys(root):
    """Importing torch takes longer than all the checks of keys together."""
    code = (
        "import sys; from mlmm.config.load import load_config; from mlmm.config.checks import check_keys; "
        f"check_keys(load_config({str(root / 'systems/alanine_dipeptide/run.toml')!r})); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "select",
    [
        "name HB1",
        "index 3",
        "water",
        "resname HOH and resSeq 5",
        "resname NA",
        "not protein",
        "resSeq 2 and name H",
        "element H and resname ALA",
        "all",
    ],
)
def test_atoms_that_the_build_adds_may_be_selected(root, select):
    """Hydrogens, water and ions are not in the file yet; a selection of them is not refused."""
    from mlmm.build.options import BuildOptions
    from mlmm.build.plan import plan_structure
    from mlmm.build.preview import preview_region

    options = BuildOptions()
    planned = plan_structure(root / "systems/alanine_dipeptide/input.pdb", options)
    preview_region(planned, options, select)


@pytest.mark.parametrize(
    ("pdb", "select", "complete", "ligands", "charge", "cuts"),
    [
        ("alanine_dipeptide", "resname ACE ALA NME", "residue", (), 0, False),
        ("alanine_dipeptide", "resname ALA", "residue", (), 0, True),
        ("alanine_dipeptide", "name CB", "atoms", (), None, True),
        ("lysozyme_xylene", "resname ARG and resSeq 8", "residue", ("p-xylene.xml",), 1, True),
        ("lysozyme_xylene", "resSeq 1", "residue", ("p-xylene.xml",), 1, True),
        ("lysozyme_xylene", "resname TMP", "residue", ("p-xylene.xml",), None, False),
    ],
)
def test_cuts_and_charge_before_the_build(root, pdb, select, complete, ligands, charge, cuts):
    from mlmm.build.options import BuildOptions
    from mlmm.build.plan import plan_structure
    from mlmm.build.preview import preview_region

    options = BuildOptions(ligands=ligands)
    planned = plan_structure(root / "systems" / pdb / "input.pdb", options)
    preview = preview_region(planned, options, select, complete)
    assert (preview.charge, preview.cuts) == (charge, cuts)
