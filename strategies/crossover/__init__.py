"""Crossover operators, one per file; importing the package registers all of them."""

from strategies.crossover.clone import CloneCrossover
from strategies.crossover.dare import DareCrossover
from strategies.crossover.differential import DifferentialCrossover
from strategies.crossover.fisher import FisherCrossover
from strategies.crossover.fresh import FreshCrossover
from strategies.crossover.iso_line import IsoLineCrossover
from strategies.crossover.layer import LayerCrossover
from strategies.crossover.model_stock import ModelStockCrossover
from strategies.crossover.nuslerp import NuslerpCrossover
from strategies.crossover.otfusion import OTFusionCrossover
from strategies.crossover.random import RandomCrossover
from strategies.crossover.regmean import RegMeanCrossover
from strategies.crossover.row import RowCrossover
from strategies.crossover.sbx import SbxCrossover
from strategies.crossover.sbx_swap import SbxSwapCrossover
from strategies.crossover.slerp import SlerpCrossover
from strategies.crossover.split_slerp import SplitSlerpCrossover
from strategies.crossover.task_arithmetic import TaskArithmeticCrossover
from strategies.crossover.ties import TiesCrossover
from strategies.crossover.unit import UnitCrossover
from strategies.crossover.weighted import WeightedCrossover
from strategies.registry import crossovers

__all__ = [
    # parents only
    "DifferentialCrossover",
    "IsoLineCrossover",
    "LayerCrossover",
    "NuslerpCrossover",
    "RandomCrossover",
    "RowCrossover",
    "SbxCrossover",
    "SbxSwapCrossover",
    "SlerpCrossover",
    "SplitSlerpCrossover",
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
