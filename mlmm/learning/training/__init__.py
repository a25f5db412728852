"""Training of potentials: networks on symmetry functions, kernel models, corrections to a base."""
