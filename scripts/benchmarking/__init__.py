"""The parts of `scripts/benchmark.py`: the frameworks, the processes that measure them, and the tables."""
