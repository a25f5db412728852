"""What a reference method is asked: shapes and numbers that cannot be are refused."""

import numpy as np
import pytest

from mlmm.errors import ConfigError
from mlmm.reference.labels import Molecule, PointCharges


def test_a_molecule_says_what_it_is():
    charges = PointCharges(np.ones((3, 3)), [0.5, -0.75, 0.25])
    water = Molecule([8, 1, 1], np.zeros((3, 3)), external=charges)
    assert (
        repr(water) == "Molecule(atoms: 3; elements: H2 O1; charge: 0 e; multiplicity: 1; point charges: 3)"
    )
    assert repr(charges) == "PointCharges(charges: 3; sum: +0.000 e)"


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Molecule([8, 1], np.zeros((3, 3))), "one position for each atom"),
        (lambda: Molecule([8], [[np.nan, 0, 0]]), "finite positions"),
        (lambda: PointCharges(np.zeros((2, 3)), [1.0]), "one position for each point charge"),
        (lambda: PointCharges(np.zeros((1, 3)), [np.inf]), "finite point charges"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_a_molecule_is_a_structure_among_its_charges_and_back():
    charges = PointCharges(np.ones((2, 3)), [0.5, -0.75])
    hydroxide = Molecule([8, 1], np.eye(2, 3), -1, 1, external=charges)
    structure = hydroxide.structure(0.03)
    assert structure.numbers.tolist() == [8, 1] and structure.charge == -1 and structure.spin == 1
    assert structure.external.charges.tolist() == [0.5, -0.75] and structure.external.width == 0.03
    assert Molecule([8], np.zeros((1, 3))).structure().external is None
    again = PointCharges.of(hydroxide.structure().external)
    assert np.array_equal(again.positions, charges.positions) and np.array_equal(
        again.charges, charges.charges
    )
    with pytest.raises(ConfigError, match="Gaussian ones"):
        PointCharges.of(structure.external)
