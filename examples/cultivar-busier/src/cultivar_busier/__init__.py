"""Operators for cultivar, installed as plug-ins."""

from cultivar_busier.crossover import BusierCrossover
from cultivar_busier.mutation import SignFlipMutation

__all__ = ["BusierCrossover", "SignFlipMutation"]
