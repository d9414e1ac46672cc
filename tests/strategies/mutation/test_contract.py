"""What holds for every mutation."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

from populations.network import NetworkSpec
from populations.quantization import dequantize, quantize
from strategies.mutation import Mutation, Newborn, mutations
from strategies.testing import SPECS, random_family

STEPPING = [name for name in mutations.available() if mutations.get(name).step_size]
OTHER_PARAMS: dict[str, dict[str, Any]] = {
    "gaussian": {"scale": 0.2, "share": 0.7},
    "integer_steps": {"rate": 0.5, "n_steps": 3},
    "safe": {"change": 0.3},
}


class StepLess(Mutation):
    name = "step_less"

    def mutate(self, child: Newborn, rng: np.random.Generator) -> dict[str, Any]:
        return dict(child.weights)


def newborn(spec: NetworkSpec, seed: int = 0) -> Newborn:
    (weights,) = random_family(spec, 1, seed)  # read-only
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((40, spec.n_inputs), dtype=np.float32)
    states.setflags(write=False)
    return Newborn(weights, spec, states)


@pytest.fixture(params=mutations.available())
def mutation(request: pytest.FixtureRequest) -> Mutation:
    return mutations.create(request.param)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_mutation_gives_new_finite_tensors_of_the_spec(
    mutation: Mutation, spec: NetworkSpec
) -> None:
    child = newborn(spec)
    mutant = mutation.mutate(child, np.random.default_rng(0))
    spec.check(mutant, "mutant")
    assert not any(np.shares_memory(mutant[name], child.weights[name]) for name in spec.shapes)


def test_every_mutation_is_a_function_of_its_rng(mutation: Mutation) -> None:
    child = newborn(SPECS[2])
    same = pickle.loads(pickle.dumps(mutation))
    a = mutation.mutate(child, np.random.default_rng(1))
    b = same.mutate(child, np.random.default_rng(1))
    c = mutation.mutate(child, np.random.default_rng(2))
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)
    assert not all(np.array_equal(a[name], c[name]) for name in a)


@pytest.mark.parametrize("name", STEPPING)
def test_another_step_size_leaves_the_other_arguments(name: str) -> None:
    mutation = mutations.create(name, OTHER_PARAMS[name])
    other = mutation.with_step_size(0.9)
    assert type(other) is type(mutation)
    assert other.params == {**OTHER_PARAMS[name], mutation.step_size: 0.9}
    assert mutation.params == OTHER_PARAMS[name]


@pytest.mark.parametrize("name", STEPPING)
def test_a_step_size_outside_its_range_becomes_the_nearer_end(name: str) -> None:
    mutation = mutations.create(name)
    low, high = mutation.step_size_range
    assert mutation.step_size is not None
    assert mutation.with_step_size(low - 1).params[mutation.step_size] == low
    if high < math.inf:
        assert mutation.with_step_size(high + 1).params[mutation.step_size] == high


@pytest.mark.parametrize("name", STEPPING)
def test_a_step_of_zero_gives_the_weights_back(name: str) -> None:
    child = newborn(SPECS[2])
    mutant = mutations.create(name).with_step_size(0).mutate(child, np.random.default_rng(0))
    for tensor, weights in child.weights.items():
        quantized = name == "integer_steps" and tensor in child.spec.matrices
        expected = dequantize(*quantize(weights)) if quantized else weights
        np.testing.assert_array_equal(mutant[tensor], expected)


@pytest.mark.parametrize("name", STEPPING)
def test_a_step_size_that_is_no_number_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be a .*number.*, not nan"):
        mutations.create(name).with_step_size(math.nan)


def test_a_mutation_without_a_step_size_says_so() -> None:
    with pytest.raises(ValueError, match="step_less has no step size to adapt; name the argument"):
        StepLess().with_step_size(1.0)


def test_only_the_safe_mutation_looks_at_states() -> None:
    needs = {name: mutations.get(name).needs for name in mutations.available()}
    assert needs == {"gaussian": (), "integer_steps": (), "safe": ("states",)}
