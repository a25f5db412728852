"""Charges of the region: better fixed ones, or predicted ones that follow the atoms."""
