"""The contract of every potential, measured."""
