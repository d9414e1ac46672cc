from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from populations.network import NetworkSpec
from strategies.crossover import CloneCrossover, WeightedCrossover
from strategies.errors import ConformanceError
from strategies.operator import CrossoverOperator, Family
from strategies.testing import SPECS, check_crossover_operator


class Copy(CrossoverOperator):
    """A correct operator; the classes below break it in one way each."""

    name = "copy"
    n_parents = 2

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {name: tensor.copy() for name, tensor in parents[0].items()}


class Alias(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return parents[0]


class WritesTensor(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        parents[0][parents.spec.blocks[0].weight][:] = 0
        return super().cross(parents, rng)


class WritesMapping(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        first: Any = parents[0]
        first["extra"] = np.zeros(1)
        return super().cross(parents, rng)


class DropsTensor(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {k: v for k, v in super().cross(parents, rng).items() if k != "network.0.bias"}


class WrongShape(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {name: tensor.ravel() for name, tensor in super().cross(parents, rng).items()}


class Doubles(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {k: v.astype(np.float64) for k, v in super().cross(parents, rng).items()}


class NotFinite(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {k: np.full_like(v, np.nan) for k, v in super().cross(parents, rng).items()}


class NoMapping(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return list(super().cross(parents, rng).values())


class GlobalRandomness(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        first = np.random.random() < 0.5  # noqa: NPY002  # the fault to be found
        return {name: t.copy() for name, t in parents[0 if first else 1].items()}


class Counts(Copy):
    def __init__(self) -> None:
        self.calls = 0

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        self.calls += 1
        return {name: t.copy() for name, t in parents[self.calls % 2].items()}


class Reuses(Copy):
    def __init__(self) -> None:
        self.buffers: dict[str, Any] = {}

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        for name, tensor in parents[0].items():
            buffer = self.buffers.setdefault(f"{name}{tensor.shape}", np.empty_like(tensor))
            buffer[...] = tensor
        return {name: self.buffers[f"{name}{t.shape}"] for name, t in parents[0].items()}


class Unpicklable(Copy):
    def __init__(self) -> None:
        self.function: Callable[[int], int] = lambda x: x


class Forgetful(Copy):
    def __init__(self) -> None:
        self.index = 1

    def __getstate__(self) -> dict[str, Any]:
        return {"index": 0}

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {name: t.copy() for name, t in parents[self.index].items()}


class Noisy(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {k: v + np.float32(rng.normal()) for k, v in super().cross(parents, rng).items()}


class HonestlyNoisy(Noisy):
    idempotent = False


class HidesArgument(Copy):
    def __init__(self, share: float = 0.5) -> None:
        self._share = share


class ChangesArgument(Copy):
    def __init__(self, share: float = 0.5) -> None:
        self.share = share / 2


class BadName(Copy):
    name = "Bad Name"


class BadCount(Copy):
    n_parents = -1


class Fails(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        raise ValueError("out of luck")


@pytest.mark.parametrize("operator", [Copy(), HonestlyNoisy(), CloneCrossover()])
def test_correct_operators_pass(operator: CrossoverOperator) -> None:
    check_crossover_operator(operator)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (Alias(), "'copy' returns network.0.weight as memory of a parent; return a copy"),
        (WritesTensor(), "writes into its parents; copy what you want to change"),
        (WritesMapping(), "writes into its parents; copy what you want to change"),
        (DropsTensor(), "loop over parents.spec.shapes"),
        (WrongShape(), r"returns network.0.weight of shape \(8,\) instead of \(2, 4\)"),
        (Doubles(), "as float64 instead of float32; compute in float32"),
        (NotFinite(), "returns NaN or infinity in network.0.weight"),
        (NoMapping(), "returns a list; return a dictionary"),
        (GlobalRandomness(), "another child for an equal rng; draw all random numbers from rng"),
        (Counts(), "another child for an equal rng; .* keep no state"),
        (Reuses(), "as memory of an earlier child; make new arrays"),
        (Unpicklable(), "cannot be pickled: .*; define the class at the top of a module"),
        (Forgetful(), "gives another child after pickling"),
        (Noisy(), "something else of identical parents .* set 'idempotent = False'"),
        (HidesArgument(), "must keep its argument 'share' in an attribute"),
        (ChangesArgument(), "from the params {'share': 0.25} has the params {'share': 0.125"),
        (BadName(), "has the name 'Bad Name'; set a class attribute 'name' in snake_case"),
        (BadCount(), "has n_parents -1; set a class attribute 'n_parents'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, CrossoverOperator) else "",
)
def test_each_fault_is_found_and_explained(operator: CrossoverOperator, message: str) -> None:
    with pytest.raises(ConformanceError, match=message):
        check_crossover_operator(operator)


def test_a_failure_names_the_spec_and_is_an_assertion_error() -> None:
    with pytest.raises(AssertionError, match=r"checked with NetworkSpec\(observation_shape=\(4,\)"):
        check_crossover_operator(Alias())


def test_what_the_operator_raises_is_passed_on() -> None:
    with pytest.raises(ValueError, match="out of luck"):
        check_crossover_operator(Fails())


def test_the_specs_to_check_with_can_be_chosen() -> None:
    check_crossover_operator(WeightedCrossover(), specs=[NetworkSpec((9,), (11,), 5)])
    with pytest.raises(ConformanceError, match=r"observation_shape=\(9,\)"):
        check_crossover_operator(Alias(), specs=[NetworkSpec((9,), (11,), 5)])


def test_the_suite_leaves_global_randomness_as_it_was() -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    check_crossover_operator(Copy())
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]  # noqa: NPY002


def test_the_default_specs_cover_norms_slots_and_depths() -> None:
    assert {len(spec.hidden) for spec in SPECS} == {0, 1, 2, 3}
    assert {spec.norm for spec in SPECS} == {"none", "layer"}
    assert {spec.dropout_slots for spec in SPECS} == {False, True}
