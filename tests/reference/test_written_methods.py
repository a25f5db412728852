"""Reference methods as a text: one parser for corrections and for surfaces."""

from __future__ import annotations

import numpy as np
import pytest

from mlmm.errors import ConfigError, SimulationError
from mlmm.reactions.molecules import molecule_system
from mlmm.reactions.surfaces import method_surface
from mlmm.reference import Label, Molecule, reference_method, written_method
from mlmm.reference.methods import is_written_method
from mlmm.reference.pyscf import PySCF
from mlmm.reference.tblite import TBLite
from mlmm.reference.xtb import XTB


def test_names_with_and_without_options():
    """Commas inside a value stay; a short name stands for another program among charges."""
    assert written_method("gfn2") == TBLite()
    assert written_method("gfn1") == TBLite(hamiltonian="GFN1-xTB")
    assert written_method("gfn2", point_charges=True) == XTB()
    assert written_method("xtb: accuracy=0.01, iterations=90") == XTB(accuracy=0.01, iterations=90)
    made = written_method("pyscf:functional=pbe0,basis=6-31g(d,p)", point_charges=True)
    assert made == PySCF(functional="pbe0", basis="6-31g(d,p)")
    assert written_method("xtb:electronic_temperature=1000 K").electronic_temperature == 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "a reference method"),
        ("xtb:nonsense=1", "nonsense"),
        ("xtb:accuracy=-1", "accuracy"),
        ("xtb:accuracy", "key=value"),
        ("gfn2:accuracy=1", "gfn2"),
    ],
)
def test_texts_that_name_no_method_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        written_method(text)


def test_a_method_without_point_charges_is_refused_among_them():
    with pytest.raises(ConfigError, match="xtb, aiqm2, pyscf"):
        written_method("gfn1", point_charges=True)


def test_methods_and_potentials_are_told_apart():
    assert all(map(is_written_method, ("gfn2", "aiqm2", "pyscf", "pyscf:basis=sto-3g")))
    assert not any(map(is_written_method, ("ani1x", "tblite:GFN2-xTB", "other/run.toml", "mm", "model.pt")))


def test_a_surface_of_a_method_is_its_labels(tmp_path):
    """Energy and forces of every structure, whichever came before; forces are slopes of the energy."""
    file = tmp_path / "water.xyz"
    file.write_text("3\nwater\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    built = molecule_system(file)
    surface = method_surface("pyscf:functional=hf,basis=sto-3g", built)
    method = reference_method("pyscf", functional="hf", basis="sto-3g")
    moved = np.array(built.positions)
    moved[1, 0] += 0.01
    for where in (moved, built.positions):
        label, found = method.label(Molecule(built.numbers, where)), surface.evaluate(where)
        assert found.energy == pytest.approx(label.energy, abs=1e-6)
        np.testing.assert_allclose(found.forces, label.forces, atol=1e-4)
    step = np.zeros_like(moved)
    step[1, 0] = 1e-5
    slope = (surface.evaluate(moved + step).energy - surface.evaluate(moved - step).energy) / 2e-5
    assert -slope == pytest.approx(surface.evaluate(moved).forces[1, 0], abs=0.05)
    with pytest.raises(AssertionError):
        assert slope == pytest.approx(surface.evaluate(moved).forces[1, 0], abs=0.05)


def test_a_surface_refuses_what_the_method_cannot(tmp_path):
    file = tmp_path / "hydrogen.xyz"
    file.write_text("2\nH2\nH 0 0 0\nH 0.74 0 0\n")
    built = molecule_system(file)

    class Failing:
        title, point_charges = "a method that fails", False

        def label(self, molecule):
            return Label(float("nan"), converged=False, record={"failure": "it fell over"})

    class WithoutForces:
        title, point_charges = "a method without forces", False

        def label(self, molecule):
            return Label(1.0)

    with pytest.raises(SimulationError, match="it fell over"):
        method_surface(Failing(), built)
    with pytest.raises(ConfigError, match="gives forces"):
        method_surface(WithoutForces(), built)
    from mlmm.reactions.options import SurfaceOptions

    with pytest.raises(ConfigError, match="electrons"):
        method_surface("gfn2", built, SurfaceOptions(multiplicity=2))
