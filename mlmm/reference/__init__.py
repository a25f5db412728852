"""Energies and forces of reference methods: electronic structure, by one call, with a record of how."""

from mlmm.reference.labelling import label
from mlmm.reference.labels import Label, Molecule, PointCharges
from mlmm.reference.methods import METHODS, reference_method, written_method

__all__ = ["METHODS", "Label", "Molecule", "PointCharges", "label", "reference_method", "written_method"]
