"""Crossover operators, one per file; importing the package registers all of them."""

from strategies.crossover.clone import CloneCrossover
from strategies.crossover.fresh import FreshCrossover
from strategies.crossover.layer import LayerCrossover
from strategies.crossover.random import RandomCrossover
from strategies.crossover.unit import UnitCrossover
from strategies.crossover.weighted import WeightedCrossover
from strategies.registry import crossovers

__all__ = [
    # parents only
    "LayerCrossover",
    "RandomCrossover",
    "UnitCrossover",
    "WeightedCrossover",
    # controls
    "CloneCrossover",
    "FreshCrossover",
    # by name
    "crossovers",
]
