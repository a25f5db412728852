"""Ligands: what the user says about them, their molecules, parameters and place in the structure."""
