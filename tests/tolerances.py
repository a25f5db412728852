"""One table of tolerances: what is exact in theory is tested at what the arithmetic allows."""

FINITE_DIFFERENCE = 1e-6  # of max|F|, float64, central differences of 1e-5 nm
BRIDGES = 1e-9  # of max|F|, float64: the same model through two hosts
PEER_ENERGY_HARTREE = 1e-6  # float32, against torchani
PEER_FORCE_HARTREE_PER_ANGSTROM = 1e-5
PEER_RELATIVE = 1e-6  # hybrid system against OpenMM-ML
IMAGES = 1e-8  # kJ/mol, moving molecules by box vectors
IDENTITY = 1e-8  # kJ/mol, energy identities on the Reference platform without a mesh
IDENTITY_MESH = 1e-8  # kJ/mol, the same under PME: an exception removes the reciprocal part too
