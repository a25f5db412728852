"""The table of elements against OpenMM's own."""

from __future__ import annotations

from openmm.app.element import Element

from mlmm.elements import SYMBOLS, element_names


def test_symbols_are_those_of_openmm():
    assert len(SYMBOLS) == 119 and SYMBOLS[0] == "X"
    for number, symbol in enumerate(SYMBOLS[1:112], 1):  # OpenMM calls the heavier ones Uub to Uuh
        assert Element.getByAtomicNumber(number).symbol == symbol


def test_messages_name_numbers_that_are_no_elements():
    assert element_names([1, 17, 0, 119]) == "H, Cl, atomic number 0, atomic number 119"
    assert element_names([6, 8], " ") == "C O"
