"""What `scripts/benchmark.py` runs: the frameworks, the processes that measure them, and the tables."""
