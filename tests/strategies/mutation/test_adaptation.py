"""Step sizes of mutations that misbehave; those of the built-in ones are in test_recipes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from strategies.mutation import GaussianMutation, IntegerStepMutation, Mutation
from strategies.mutation.adaptation import adapted, check_adaptable


class Step(Mutation):
    """Keeps its step size; the classes below refuse some."""

    name = "step"
    step_size = "size"

    def __init__(self, size: Any = 0.4, note: str = "") -> None:
        self.size = size
        self.note = note

    def mutate(self, child: Any, rng: np.random.Generator) -> Any:
        raise AssertionError("never mutated")


class Limited(Step):
    name = "limited"

    def __init__(self, size: float = 0.4, note: str = "") -> None:
        if not 0 <= size <= 0.5:
            raise ValueError(f"size must be in [0, 0.5], not {size}")
        super().__init__(size, note)


class Whole(Step):
    name = "whole"

    def __init__(self, size: int = 3) -> None:
        if not isinstance(size, int):
            raise TypeError("size must be a whole number")
        super().__init__(size)


class Misnamed(Step):
    name = "misnamed"
    step_size = "sigma"


class Forgetful(Step):
    name = "forgetful"

    def with_step_size(self, value: float) -> Any:
        return None


class Exiting(Step):
    name = "exiting"

    def with_step_size(self, value: float) -> Any:
        raise SystemExit("enough")


@pytest.mark.parametrize(
    ("mutation", "message"),
    [
        (Misnamed(), "misnamed names 'sigma' as its step size, which is no argument of its const"),
        (Step(None), "the step size size of the mutation step must be a finite number, not None"),
        (Step(math.inf), "must be a finite number, not inf"),
        (Step(0), "the step size size of the mutation step is 0, and must be above 0 to adapt"),
        (Step(-1.0), "is -1, and must be above 0 to adapt"),
        (Whole(), "the mutation whole refuses the step size 3.03: TypeError: size must be a whole"),
        (Forgetful(), "forgetful refuses the step size 0.4: AttributeError: "),
        (Exiting(), "exiting refuses the step size 0.4: SystemExit: enough"),
    ],
)
def test_what_cannot_adapt_is_refused_before_it_has_to(mutation: Mutation, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_adaptable(mutation)


@pytest.mark.parametrize(
    "mutation",
    [Step(), Limited(), Limited(0.5), GaussianMutation(), IntegerStepMutation(rate=1.0)],
    ids=repr,
)
def test_what_takes_numbers_near_its_own_can_adapt(mutation: Mutation) -> None:
    check_adaptable(mutation)


def test_a_size_that_is_refused_leaves_that_of_the_parent() -> None:
    parent = Limited(0.45)
    sizes = []
    for seed in range(200):
        child = adapted(Limited(0.1, note="own"), parent, 0.5, np.random.default_rng(seed))
        wanted = 0.45 * math.exp(0.5 * np.random.default_rng(seed).standard_normal())
        assert child.params["size"] == (wanted if wanted <= 0.5 else 0.45)
        sizes.append(child.params["size"])
    assert 20 < sizes.count(0.45) < 180


def test_a_size_never_shrinks_to_zero() -> None:
    child: Any = Step(1e-300)
    for seed in range(100):
        child = adapted(Step(), child, 10, np.random.default_rng(seed))
        assert 0 < child.size < math.inf
