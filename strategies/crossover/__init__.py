"""Crossover operators, one per file; importing the package registers all of them."""

from strategies.crossover.clone import CloneCrossover
from strategies.crossover.dare import DareCrossover
from strategies.crossover.fisher import FisherCrossover
from strategies.crossover.fresh import FreshCrossover
from strategies.crossover.layer import LayerCrossover
from strategies.crossover.model_stock import ModelStockCrossover
from strategies.crossover.otfusion import OTFusionCrossover
from strategies.crossover.random import RandomCrossover
from strategies.crossover.regmean import RegMeanCrossover
from strategies.crossover.task_arithmetic import TaskArithmeticCrossover
from strategies.crossover.ties import TiesCrossover
from strategies.crossover.unit import UnitCrossover
from strategies.crossover.weighted import WeightedCrossover
from strategies.registry import crossovers

__all__ = [
    # parents only
    "LayerCrossover",
    "RandomCrossover",
    "UnitCrossover",
    "WeightedCrossover",
    # with a common ancestor
    "DareCrossover",
    "ModelStockCrossover",
    "TaskArithmeticCrossover",
    "TiesCrossover",
    # with states
    "FisherCrossover",
    "OTFusionCrossover",
    "RegMeanCrossover",
    # controls
    "CloneCrossover",
    "FreshCrossover",
    # by name
    "crossovers",
]
