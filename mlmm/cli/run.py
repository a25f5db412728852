"""``mlmm run``: what its help says about a run file."""

from __future__ import annotations

__all__ = ["RUN_EPILOG"]

RUN_EPILOG = """where lambda goes from 1 (potential) to 0 (force field), [zones] of the run file:
  kind = "auto"       hard under scheme "additive", else static (default)
  kind = "hard"       ends at the region
  kind = "static"     plateau and width in nm or "2 bonds"; snap, shape = "skin" | "sphere"
  kind = "residues"   lambda by name: a table [zones.residues] with lines "resid 3" = 0.5; plateau_select
  kind = "adaptive"   molecules = ["HOH"] get the lambda of their place; plateau, width, centre, compensation,
                      walls = "none" to let protons pass

who owns which interaction, [embedding]:
  scheme = "auto"     what suits the potential; or per_atom, supermolecular, additive, delta
  mm_tail (additive), keep: see the README

on a GPU, ANI in a zone that stays, [potential] (not measured):

[uncertainty]: limits energy, atom, force, distance (training_set); action = "warn" | "save" | "stop"

how often forces act, [run]:
  timestep = "0.5 fs" the potential and bonded terms; at most 1 fs, unless hydrogens are heavier
  nonbonded_every = 2  the force field's non-bonded forces at every second time step (default 1: at each)
  reciprocal_every = 2 PME's reciprocal sum at every second of those (default 1); saves nothing on a CPU
mass of hydrogens; heavier ones, at the cost of their heavy atoms, leave averages as they are:
  region.hydrogen_mass = "3 amu"   those where lambda is above 0 or may become so, water included
  system.hydrogen_mass = "3 amu"   all but those of rigid water
None of these is safe by itself: mlmm check my/run.toml --timestep tests them on your system. Steps longer
than those in tests/benchmarks/TIMESTEPS.md give a warning.

each of them can be tried with --set:
  mlmm run my/run.toml --set zones.kind=static --set zones.plateau="0.4 nm"
"""
