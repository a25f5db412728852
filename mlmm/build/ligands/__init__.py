"""Ligands: definitions, molecules, force-field parameters and placement in the structure."""
