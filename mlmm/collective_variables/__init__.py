"""Collective variables, and restraints on them: one definition each, evaluated by OpenMM and by torch."""
