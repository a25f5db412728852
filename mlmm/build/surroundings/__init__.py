"""Surroundings: boxes of water and ions, droplets, bulk solvent, walls."""
