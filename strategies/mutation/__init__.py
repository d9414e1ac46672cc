"""Mutations: changes of a child that its parents had no part in."""

from strategies.mutation.contract import Mutation, Newborn, mutations
from strategies.mutation.gaussian import GaussianMutation
from strategies.mutation.integer_steps import IntegerStepMutation
from strategies.mutation.safe import SafeMutation

__all__ = [
    # contract
    "Mutation",
    "Newborn",
    # by name
    "mutations",
    # one class per mutation
    "GaussianMutation",
    "IntegerStepMutation",
    "SafeMutation",
]
