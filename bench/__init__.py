"""Benchmarks of quality and speed; each module answers one question: `python -m bench.NAME`."""
