"""Crossover operators, one per file."""
