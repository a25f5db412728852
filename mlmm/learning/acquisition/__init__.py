"""Structures worth a label: from runs, dynamics, normal modes and paths, and the choice among them."""
