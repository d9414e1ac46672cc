"""How fast the crossover strategies are, and how far their children are from parent A."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.learning.qnetwork import sequential
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.recombination.crossover import STRATEGIES, Strategy, cross
from engine.stages.states import synthetic_states
from engine.stages.validation.fidelity import compare

CROSSOVER_SEED = 42  # what the documented child of ``random`` is drawn with


@dataclass(frozen=True)
class CrossoverFigures:
    """What was measured of one strategy.

    Attributes:
        strategy: ``random``, ``layer`` or ``weighted``.
        alpha: Share of parent A; None for ``layer``, which has none.
        mean_time_ms: Mean wall time of one crossing, and of loading the child into a module.
        mean_q_error: Mean ``|Q of the child - Q of parent A|`` over states and actions.
        max_q_error: The largest of these differences.
        action_agreement: Share of states in which both choose the same action.
    """

    strategy: Strategy
    alpha: float | None
    mean_time_ms: float
    mean_q_error: float
    max_q_error: float
    action_agreement: float


def benchmark_crossover(
    *,
    n_inputs: int = 8,
    n_actions: int = 4,
    hidden: int = 64,
    n_states: int = 256,
    n_repeats: int = 20,
    seed_a: int = 0,
    seed_b: int = 1,
    state_seed: int = 42,
    alpha: float = 0.5,
    strategies: Sequence[Strategy] = STRATEGIES,
) -> list[CrossoverFigures]:
    """Cross two untrained networks by each strategy.

    The defaults give the documented figures; only the times depend on the machine.

    Args:
        n_inputs: Inputs of the networks.
        n_actions: Their outputs.
        hidden: Units in each of their two hidden layers.
        n_states: States to compare Q-values on, drawn from the standard normal distribution.
        n_repeats: Crossings to take the mean time of, at least 1; one more warms up.
        seed_a: Seed of the initial weights of parent A.
        seed_b: Seed of those of parent B.
        state_seed: Seed of the states.
        alpha: Share of parent A in ``random`` and ``weighted``, in ``[0, 1]``.
        strategies: Which to measure.

    Returns:
        Figures of each strategy, in that order.

    Raises:
        StageError: ``alpha`` is out of range.
    """
    spec = teacher_spec(n_inputs, n_actions, hidden)
    a, b = (Network(spec, initial_weights(spec, seed)) for seed in (seed_a, seed_b))
    states = synthetic_states(n_states, n_inputs, state_seed)
    reference = a.q_values(states)
    figures = []
    for strategy in strategies:
        child = Network(spec, cross(a, b, strategy, alpha, CROSSOVER_SEED))
        metrics = compare(reference, child.q_values(states))
        figures.append(
            CrossoverFigures(
                strategy,
                None if strategy == "layer" else alpha,
                _mean_time_ms(a, b, strategy, alpha, n_repeats),
                metrics["mean_q_error"],
                metrics["max_q_error"],
                metrics["action_agreement"],
            )
        )
    return figures


def _mean_time_ms(a: Network, b: Network, strategy: Strategy, alpha: float, repeats: int) -> float:
    with torch.random.fork_rng(devices=[]):
        module = sequential(a.spec)
    start = time.perf_counter()
    for _ in range(repeats):
        child = cross(a, b, strategy, alpha, CROSSOVER_SEED)
        module.load_state_dict({name: torch.from_numpy(child[name]) for name in child})
    return (time.perf_counter() - start) / repeats * 1000
