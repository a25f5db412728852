"""Adapters: potentials of other packages and file formats, one file each."""
