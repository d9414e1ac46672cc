"""How parents are chosen and combined: operators, alignment, mutation, selection.

Importing the package registers all built-in operators. Alignment is imported from
``strategies.alignment``, since it needs SciPy, which is slow to import; plug-in authors find the
conformance suite in ``strategies.testing``.
"""

from strategies.bandit import RecipeBandit
from strategies.crossover import crossovers
from strategies.mutation import Mutation, Newborn, mutations
from strategies.operator import CrossoverOperator, Family
from strategies.plugins import load_plugin_file, plugin_modules
from strategies.recipes import Outcome, RecipeDraw, RecipeGrid, RecipeMix
from strategies.registry import Registry
from strategies.selection import Selection, selections

__all__ = [
    # contracts
    "CrossoverOperator",
    "Family",
    "Mutation",
    "Newborn",
    "Selection",
    # by name
    "Registry",
    "crossovers",
    "mutations",
    "selections",
    # of the user
    "load_plugin_file",
    "plugin_modules",
    # draws of recipes
    "Outcome",
    "RecipeBandit",
    "RecipeDraw",
    "RecipeGrid",
    "RecipeMix",
]
