"""Kernel models: sparse Gaussian processes on descriptors, gradient-domain models of one molecule."""
