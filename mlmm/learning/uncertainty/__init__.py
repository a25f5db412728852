"""Uncertainty of learned potentials: calibration on held-out labels, reliability, extrapolation."""
