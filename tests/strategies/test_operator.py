from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from populations.network import NetworkSpec, Weights
from strategies.operator import CrossoverOperator, Family, constructor_params

SPEC = NetworkSpec((2,), (), 1)


class Keeps:
    def __init__(self, size: int, share: float = 0.5) -> None:
        self.size = size
        self.share = share


class Forgets:
    def __init__(self, size: int) -> None:
        pass


def test_constructor_params_are_read_from_the_attributes() -> None:
    assert constructor_params(Keeps(3)) == {"size": 3, "share": 0.5}


def test_a_class_without_constructor_has_no_params() -> None:
    assert constructor_params(object()) == {}


def test_an_argument_that_is_not_kept_is_named() -> None:
    with pytest.raises(TypeError, match="Forgets must keep its argument 'size'"):
        constructor_params(Forgets(3))


def test_a_family_is_a_sequence_of_weights() -> None:
    parents: list[Weights] = [{"x": np.zeros(1, np.float32)}, {"x": np.ones(1, np.float32)}]
    family = Family(parents, SPEC, ["a", "b"], [2.0, 1.0])
    assert len(family) == 2
    assert list(family) == parents
    assert list(family[1:]) == parents[1:]
    assert (family.ids, family.fitness) == (("a", "b"), (2.0, 1.0))


def test_an_operator_shows_its_params() -> None:
    class Half(CrossoverOperator):
        name = "half"

        def __init__(self, share: float = 0.5) -> None:
            self.share = share

        def cross(self, parents: Family, rng: np.random.Generator) -> Any:
            return parents[0]

    assert Half(0.25).params == {"share": 0.25}
