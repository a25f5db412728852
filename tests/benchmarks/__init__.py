"""Suites of systems, variants and peers: ``python tests/benchmarks/run.py`` regenerates RESULTS.md."""
