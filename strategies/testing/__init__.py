"""The conformance suite: what every operator has to keep to.

A plug-in author runs it from a test of their own, or with ``cultivar operators check``::

    from strategies.testing import check_crossover_operator

    def test_my_operator_keeps_the_contract():
        check_crossover_operator(MyCrossover(strength=0.3))
"""

from strategies.testing.crossover import check_crossover_operator, examine_crossover
from strategies.testing.families import random_family
from strategies.testing.mutation import check_mutation, examine_mutation
from strategies.testing.networks import SPECS
from strategies.testing.report import Outcome
from strategies.testing.selection import check_selection, examine_selection

__all__ = [
    # raise at what an operator does wrong
    "check_crossover_operator",
    "check_mutation",
    "check_selection",
    # tell what became of each check
    "Outcome",
    "examine_crossover",
    "examine_mutation",
    "examine_selection",
    # what operators are tried on
    "SPECS",
    "random_family",
]
