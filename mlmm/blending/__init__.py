"""The blend in torch: energies of the model and of the force field, weighted with lambda."""
