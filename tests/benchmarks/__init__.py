"""Timings and results beside peers: ``python -m tests.benchmarks --help``, or ``pytest -m benchmark``."""
