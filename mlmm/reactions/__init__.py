"""Reactions on one energy: scans, paths, transition states, frequencies, free energies."""
