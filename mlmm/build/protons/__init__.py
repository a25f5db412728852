"""Protons: protonation states, tautomers, and hydrogens on the right side of their atom."""
