"""What is asked of a selection of parents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.declaration import Fault, name_faults, params_faults
from strategies.errors import SelectionError
from strategies.selection import Selection, fittest_first
from strategies.testing.observe import Call, observe
from strategies.testing.report import (
    Check,
    NotAsked,
    Outcome,
    error_fault,
    raise_failed,
    refuse_class,
    run_checks,
)
from strategies.testing.state import State
from strategies.user_code import raised

MISSING = float("nan")
POPULATIONS: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("8 candidates", (3.0, -1.0, 500.0, 20.5, 7.0, 0.0, 8.0, 9.0)),
    ("one candidate", (5.0,)),
    ("equal candidates", (2.0, 2.0, 2.0, 2.0, 2.0)),
    ("ties", (1.0, 4.0, 4.0, 1.0, 9.0, 4.0)),
    ("candidates without a fitness", (MISSING, 4.0, MISSING, -3.0, 10.0, 4.0, MISSING)),
    ("candidates of very different fitness", (-1e300, 1e300, 1e-300, 0.0, -1e-300, 1.0)),
    ("nobody with a fitness", (MISSING, MISSING)),
)
"""Fitness of the candidates, higher is better; NaN was never scored."""
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Choice:
    """One call of a selection.

    Attributes:
        fitness: What it chooses by.
        n_parents: How many it is to choose.
        seed: Seed of the random stream.
        call: What it did.
        again: What it did when it was asked again, with an equal random stream.
    """

    fitness: NDArray[np.float64]
    n_parents: int
    seed: int
    call: Call
    again: Call

    @property
    def where(self) -> str:
        """What was given, for messages."""
        return self.call.where


class Choices:
    """All choices that one selection is asked for, made when a check first looks at them."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.state = State(selection)

    @cached_property
    def all(self) -> list[Choice]:
        """Every choice, from no parents to as many as there are."""
        return [
            self._choice(kind, _frozen(fitness), n_parents, seed)
            for kind, fitness in POPULATIONS
            for n_parents in range(_with_fitness(fitness) + 1)
            for seed in SEEDS
        ]

    @cached_property
    def alone(self) -> list[Call]:
        """What it chooses in every case, each as if it were the first one."""
        return [
            choose(self.state.restored(), each.fitness, each.n_parents, each.seed, each.where)
            for each in self.all
        ]

    @property
    def made(self) -> list[tuple[Choice, tuple[int, ...]]]:
        """The choices that gave indices of candidates, with these."""
        found = []
        for each in self.all:
            indices = _indices(each.call.result)
            if indices is not None and all(0 <= index < len(each.fitness) for index in indices):
                found.append((each, indices))
        if not found:
            raise NotAsked("it gives no indices that could be checked")
        return found

    def _choice(self, kind: str, fitness: NDArray[np.float64], n_parents: int, seed: int) -> Choice:
        where = f"{kind}, n_parents {n_parents}, seed {seed}"
        first, second = (choose(self.selection, fitness, n_parents, seed, where) for _ in "12")
        return Choice(fitness, n_parents, seed, first, second)


def check_selection(selection: Selection) -> None:
    """Check that a selection keeps the contract of :class:`Selection`.

    It gives as many distinct indices as are asked for, from none to all, fitter first and of equal
    ones the lower index first, and never one without a fitness; it refuses to choose more than
    there are. It takes all randomness from ``rng``, leaves the fitness alone and survives pickling.

    Args:
        selection: The instance to check.

    Raises:
        ConformanceError: The selection breaks the contract, or raises an error itself. The text has
            a line for every check that failed. It is an AssertionError.
        TypeError: It is given a class.
    """
    raise_failed("selection", selection, examine_selection(selection))


def examine_selection(selection: Selection) -> tuple[Outcome, ...]:
    """Return what becomes of each check; see :func:`check_selection`."""
    refuse_class(selection)
    choices = Choices(selection)
    asked = (
        ("name", "has a name in snake_case", name_faults(selection)),
        ("params", "can be built again from its params", params_faults(selection)),
        ("errors", "chooses from none to all candidates", _error_faults(choices)),
        ("indices", "gives distinct indices of candidates", _index_faults(choices)),
        ("number", "gives as many as are asked for", _number_faults(choices)),
        ("order", "gives the fitter first", _order_faults(choices)),
        ("no fitness", "never chooses who has no fitness", _missing_faults(choices)),
        ("too few", "refuses to choose more than there are", _too_few_faults(choices)),
        ("read-only", "leaves the fitness as it is", _write_faults(choices)),
        ("repeatable", "makes an equal choice for an equal rng", _repeat_faults(choices)),
        ("global rng", "leaves global randomness alone", _global_faults(choices)),
        ("pickling", "makes an equal choice after pickling", _pickle_faults(choices)),
    )
    return run_checks([Check(*each) for each in asked], selection)


def choose(
    selection: Selection, fitness: NDArray[np.float64], n_parents: int, seed: int, where: str
) -> Call:
    """Let a selection choose, with a random stream of its own."""
    return observe(lambda: selection.select(fitness, n_parents, np.random.default_rng(seed)), where)


def _error_faults(choices: Choices) -> Iterator[Fault]:
    for each in choices.all:
        if each.call.error is not None and not each.call.wrote:
            mend = "every number of parents has to work, from 0 to all that have a fitness"
            yield error_fault(each.call.error, choices.selection, mend, each.where)


def _index_faults(choices: Choices) -> Iterator[Fault]:
    for each in choices.all:
        if each.call.error is not None:
            continue
        indices, n = _indices(each.call.result), len(each.fitness)
        if indices is None:
            what = f"returns {each.call.result!r}, which is no tuple of whole numbers"
            yield Fault(what, "return tuple(int(index) for index in ...)", each.where)
        elif len(set(indices)) < len(indices):
            what = f"chooses somebody twice: {indices}"
            yield Fault(what, "draw without replacement", each.where)
        elif not all(0 <= index < n for index in indices):
            what = f"chooses {indices} of {n} candidates"
            yield Fault(what, f"return indices into fitness, 0 to {n - 1} here", each.where)


def _number_faults(choices: Choices) -> Iterator[Fault]:
    for each, indices in choices.made:
        if len(indices) != each.n_parents:
            what = f"chooses {len(indices)} instead of {each.n_parents} parents"
            yield Fault(what, "choose exactly n_parents", each.where)


def _order_faults(choices: Choices) -> Iterator[Fault]:
    for each, indices in choices.made:
        ranking = [int(index) for index in fittest_first(each.fitness)]
        if not set(indices) <= set(ranking):
            continue  # another check tells it
        if [*indices] != sorted(indices, key=ranking.index):
            what = f"chooses {indices} in this order of a fitness of {each.fitness.tolist()}"
            yield Fault(what, "sort by falling fitness, equal ones by index", each.where)


def _missing_faults(choices: Choices) -> Iterator[Fault]:
    for each, indices in choices.made:
        missing = [index for index in indices if np.isnan(each.fitness[index])]
        if missing:
            what = f"chooses candidate {missing[0]}, whose fitness is NaN"
            yield Fault(what, "choose among those with numpy.isfinite(fitness)", each.where)


def _too_few_faults(choices: Choices) -> Iterator[Fault]:
    for kind, fitness in POPULATIONS:
        n_parents = _with_fitness(fitness) + 1
        where = f"{kind}, n_parents {n_parents}"
        call = choose(choices.selection, _frozen(fitness), n_parents, 0, where)
        if not isinstance(call.error, SelectionError):
            told = "chooses some" if call.error is None else raised(call.error, choices.selection)
            mend = "raise strategies.errors.SelectionError and say how many there are"
            yield Fault(f"{told} where there are too few candidates", mend, where)


def _write_faults(choices: Choices) -> Iterator[Fault]:
    for each in choices.all:
        mine = each.fitness.copy()
        choose(choices.selection, mine, each.n_parents, 0, each.where)
        if each.call.wrote or mine.tobytes() != each.fitness.tobytes():
            yield Fault("writes into the fitness", "change a copy", each.where)


def _repeat_faults(choices: Choices) -> Iterator[Fault]:
    for each in choices.all:
        if each.call.error is None and not _equal(each.call, each.again):
            what = "makes another choice for equal arguments and an equal rng"
            mend = "draw all random numbers from rng, and keep no state between calls"
            yield Fault(what, mend, each.where)
    for each, alone in zip(choices.all, choices.alone, strict=True):
        if each.call.error is None and not _equal(each.call, alone):
            what = "makes another choice where it has made others before"
            mend = "keep nothing between calls, neither on the selection nor on its class or module"
            yield Fault(what, mend, each.where)


def _global_faults(choices: Choices) -> Iterator[Fault]:
    for each in choices.all:
        if each.call.touched:
            what = f"uses the global generator of {each.call.touched}"
            yield Fault(what, "draw all random numbers from rng", each.where)


def _pickle_faults(choices: Choices) -> Iterator[Fault]:
    state = choices.state
    if state.pickle_fault is not None:
        yield state.pickle_fault
        return
    for each, alone in zip(choices.all, choices.alone, strict=True):
        copied = choose(state.unpickled(), each.fitness, each.n_parents, each.seed, each.where)
        if alone.error is None and not _equal(alone, copied):
            mend = "keep everything it needs in attributes that are pickled"
            yield Fault("makes another choice after pickling", mend, each.where)


def _equal(one: Call, other: Call) -> bool:
    return other.error is None and repr(one.result) == repr(other.result)


def _indices(result: Any) -> tuple[int, ...] | None:
    """Return what was chosen, or None where it is no sequence of whole numbers."""
    if not isinstance(result, tuple | list):
        return None
    if any(isinstance(each, bool) or not isinstance(each, Integral) for each in result):
        return None
    return tuple(int(each) for each in result)


def _frozen(fitness: tuple[float, ...]) -> NDArray[np.float64]:
    return np.frombuffer(np.array(fitness, np.float64).tobytes(), np.float64)


def _with_fitness(fitness: tuple[float, ...]) -> int:
    return sum(not math.isnan(each) for each in fitness)
