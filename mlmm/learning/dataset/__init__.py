"""Labelled structures on disk: store, keys, imports, splits and checks."""
