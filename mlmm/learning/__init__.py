"""Potentials from labels: data sets, acquisition, training, uncertainty, active learning."""
