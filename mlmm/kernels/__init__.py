"""Compiled kernels (C++ in `cpp/`) and their doors to Python and torch."""
