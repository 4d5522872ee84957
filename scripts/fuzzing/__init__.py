"""The parts of `scripts/fuzz.py`: the readers, what they must satisfy, and the mutations."""
