"""Simulation: stages, integrators, barostat, reporters, run directories."""
