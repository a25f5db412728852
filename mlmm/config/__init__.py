"""Run files: their schema, reading them, and the objects that they describe."""
