"""The command line, `mlmm`: one file for each verb."""

from mlmm.cli.program import main

__all__ = ["main"]
