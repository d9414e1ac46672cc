"""Batched environments and the evaluation of genomes."""

from engine.playing.environments import Lanes, TaskSpec, describe, make_lanes
from engine.playing.evaluation import Evaluation, evaluate, play
from engine.playing.policies import EnsemblePolicy, EpsilonGreedy, Policy, StackedPolicy

__all__ = [
    # the task
    "TaskSpec",
    "describe",
    "Lanes",
    "make_lanes",
    # who plays it
    "Policy",
    "StackedPolicy",
    "EnsemblePolicy",
    "EpsilonGreedy",
    # what comes out
    "Evaluation",
    "evaluate",
    "play",
]
