"""Energies and forces of reference methods: electronic structure, by one call, with a record of how."""
