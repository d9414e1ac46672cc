"""The parts of ``scripts/compare_operators.py``."""
