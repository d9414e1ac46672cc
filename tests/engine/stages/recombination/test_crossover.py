"""Children against arithmetic that the tests do themselves, and against documented figures."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.errors import ConceptionError, StageError
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.recombination.crossover import STRATEGIES, cross, make_operator
from engine.stages.recombination.crossover_benchmark import benchmark_crossover
from populations.network import NetworkSpec
from strategies.crossover import TaskArithmeticCrossover, UnitCrossover
from strategies.errors import AlignmentError, NeedError
from strategies.operator import CrossoverOperator
from strategies.permutation import permute_units

torch.set_num_threads(1)

SPEC = NetworkSpec((3,), (6, 5, 4), 2, norm="layer", dropout_slots=True)
LAYERS = ([0, 1], [4, 5], [8, 9], [12])  # modules of SPEC that belong together


def network(seed: int, spec: NetworkSpec = SPEC) -> Network:
    """Return a network in which no two tensors are equal, biases included."""
    rng = np.random.default_rng(seed)
    return Network(
        spec,
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in spec.shapes.items()},
    )


def documented_parents() -> tuple[Network, Network]:
    spec = teacher_spec(8, 4, 64)
    first, second = (Network(spec, initial_weights(spec, seed)) for seed in (0, 1))
    return first, second


# Source: the table "Crossover Results" of the pipeline document (mean and largest error of
# Q-values, and agreement with parent A; the exact shares are in its close reading).
@pytest.mark.parametrize(
    ("strategy", "mean_error", "max_error", "agreement"),
    [
        ("random", 0.8350, 3.2098, 0.3828),
        ("layer", 0.8350, 3.2098, 0.3828),
        ("weighted", 0.6045, 2.7700, 0.4609),
    ],
)
def test_documented_figures_are_reproduced(strategy, mean_error, max_error, agreement) -> None:
    (row,) = benchmark_crossover(n_repeats=1, strategies=[strategy])
    assert row.strategy == strategy
    assert row.mean_q_error == pytest.approx(mean_error, abs=5e-5)
    assert row.max_q_error == pytest.approx(max_error, abs=5e-5)
    assert row.action_agreement == pytest.approx(agreement, abs=5e-5)
    assert row.mean_time_ms > 0


def test_random_draws_one_number_per_tensor_in_alphabetical_order() -> None:
    a, b = network(1), network(2)
    child = cross(a, b, "random", alpha=0.3, seed=42)
    draws = np.random.default_rng(42).random(len(child))
    owners = set()
    for name, draw in zip(sorted(child), draws, strict=True):
        owner = a if draw < 0.3 else b
        owners.add(owner is a)
        assert np.array_equal(child[name], owner.weights[name])
    assert owners == {True, False}
    assert list(child) == list(SPEC.shapes)


def test_layer_alternates_whole_layers_at_any_depth() -> None:
    a, b = network(1), network(2)
    child = cross(a, b, "layer")
    for number, modules in enumerate(LAYERS):
        owner = b if number % 2 else a
        for module in modules:
            for kind in ("weight", "bias"):
                name = f"network.{module}.{kind}"
                assert np.array_equal(child[name], owner.weights[name])


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_weighted_is_the_average_in_float32(alpha: float) -> None:
    a, b = network(1), network(2)
    child = cross(a, b, "weighted", alpha)
    for name in SPEC.shapes:
        expected = np.float32(alpha) * a.weights[name] + np.float32(1 - alpha) * b.weights[name]
        assert child[name].dtype == np.float32
        np.testing.assert_array_equal(child[name], expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("spec", [SPEC, NetworkSpec((3,), (), 2), NetworkSpec((3,), (4,), 2)])
def test_equal_parents_give_that_child_in_arrays_of_its_own(strategy, spec) -> None:
    a = network(1, spec)
    child = cross(a, a, strategy, seed=0)
    for name in spec.shapes:
        np.testing.assert_array_equal(child[name], a.weights[name])
        assert not np.shares_memory(child[name], a.weights[name])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equal_seeds_give_equal_children(strategy) -> None:
    a, b = network(1), network(2)
    first = cross(a, b, strategy, seed=5)
    for again in (
        cross(a, b, strategy, seed=5),
        cross(a, b, strategy, seed=np.random.default_rng(5)),
    ):
        assert all(np.array_equal(first[name], again[name]) for name in SPEC.shapes)


def test_random_without_a_seed_gives_other_children() -> None:
    a, b = network(1), network(2)
    children = [cross(a, b, "random") for _ in range(8)]  # all equal: 1 in 2^98
    names = list(SPEC.shapes)
    kinds = {tuple(np.array_equal(c[n], a.weights[n]) for n in names) for c in children}
    assert len(kinds) > 1


def test_room_for_dropout_is_no_difference_between_parents() -> None:
    a, b = network(1), network(2, replace(SPEC, dropout_slots=False))
    child = cross(a, b, "layer")
    assert list(child) == list(SPEC.shapes)
    assert np.array_equal(child["network.4.weight"], b.weights["network.3.weight"])


@pytest.mark.parametrize("mode", ["weights", "activations", "auto"])
def test_alignment_finds_a_parent_in_its_permuted_copy(mode) -> None:
    a = network(1)
    rng = np.random.default_rng(0)
    shuffled = permute_units(SPEC, a.weights, [rng.permutation(n) for n in SPEC.hidden])
    states = rng.standard_normal((200, 3)).astype(np.float32)
    child = cross(a, Network(SPEC, shuffled), "weighted", align=mode, states=states)
    for name in SPEC.shapes:
        np.testing.assert_allclose(child[name], a.weights[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            replace(SPEC, hidden=(6, 7, 4)),
            r"network.4.weight is \(5, 6\) in parent A but \(7, 6\) in parent B; .*; "
            r"network.5.weight is \(5,\) in parent A but \(7,\) in parent B; and 2 more",
        ),
        (replace(SPEC, n_actions=3), r"network.12.weight is \(2, 4\) in .* but \(3, 4\) in"),
        (replace(SPEC, observation_shape=(4,)), r"network.0.weight is \(6, 3\) .* \(6, 4\)"),
        (
            replace(SPEC, hidden=(6, 4)),
            "parent A has 3 x 6 x 5 x 4 x 2 with LayerNorm "
            "and parent B has 3 x 6 x 4 x 2 with LayerNorm",
        ),
        (replace(SPEC, norm="none"), "with LayerNorm and parent B has .* without LayerNorm"),
    ],
)
def test_parents_that_differ_are_refused_by_what_differs(other, message) -> None:
    with pytest.raises(StageError, match=f"must share one architecture .*{message}"):
        cross(network(1), network(2, other), "weighted")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_that_are_no_numbers_are_refused_by_parent_and_tensor(strategy, value) -> None:
    broken = network(2, replace(SPEC, dropout_slots=False))
    broken.weights["network.4.bias"][1] = value
    with pytest.raises(StageError, match=r"^father: network.4.bias holds NaN or infinity"):
        cross(network(1), broken, strategy, names=("mother", "father"))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_alpha_outside_its_range_is_refused(strategy, alpha) -> None:
    with pytest.raises(StageError, match=r"alpha must be in \[0, 1\], not"):
        cross(network(1), network(2), strategy, alpha)


def test_other_bad_arguments_are_refused() -> None:
    a, b = network(1), network(2)
    with pytest.raises(StageError, match=r"no crossover named 'layers'\. Did you mean 'layer'"):
        make_operator("layers")
    with pytest.raises(AlignmentError, match="activations on states; there are none"):
        cross(a, b, "layer", align="activations")
    with pytest.raises(StageError, match=r"must be of shape \(N, 3\), not \(5, 4\)"):
        cross(a, b, "layer", align="auto", states=np.zeros((5, 4), np.float32))


def test_crossing_without_alignment_imports_neither_scipy_nor_pandas() -> None:
    code = (
        "import sys, engine.stages.recombination.crossover_benchmark as benchmark\n"
        "benchmark.benchmark_crossover(n_repeats=1)\n"
        "print(sorted({'scipy', 'pandas', 'ray', 'gymnasium', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_any_registered_operator_can_be_named_or_given() -> None:
    a, b = network(1), network(2)
    named = cross(a, b, "unit", seed=3)
    given = cross(a, b, UnitCrossover(), seed=3)
    assert all(np.array_equal(named[name], given[name]) for name in SPEC.shapes)
    assert any(not np.array_equal(named[name], a.weights[name]) for name in SPEC.shapes)


def test_an_operator_of_another_number_of_parents_is_refused() -> None:
    with pytest.raises(StageError, match="fresh takes 0 parents, but there are two"):
        cross(network(1), network(2), "fresh")


def test_an_ancestor_is_handed_over_or_missed_by_name() -> None:
    a, b, base = network(1), network(2), network(3, replace(SPEC, dropout_slots=False))
    # theta0 + 1 * (tau_a + tau_b) / 2 is the mean of the parents
    child = cross(a, b, TaskArithmeticCrossover(low=1.0, high=1.0), ancestor=base)
    for name in SPEC.shapes:
        np.testing.assert_allclose(
            child[name], (a.weights[name] + b.weights[name]) / 2, rtol=1e-5, atol=1e-5
        )
    with pytest.raises(NeedError, match="task_arithmetic needs parents with a recorded common"):
        cross(a, b, "task_arithmetic")
    with pytest.raises(StageError, match=r"must share one .*: .* and the ancestor has"):
        cross(a, b, "ties", ancestor=network(3, NetworkSpec((3,), (6,), 2)))


def test_parents_with_an_ancestor_keep_its_order_of_units() -> None:
    base = network(3)
    a, b = (
        Network(SPEC, {n: t + 0.01 * network(seed).weights[n] for n, t in base.weights.items()})
        for seed in (1, 2)
    )
    states = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    operator = TaskArithmeticCrossover(low=1.0, high=1.0)
    child = cross(a, b, operator, align="auto", states=states, ancestor=base)
    for name in SPEC.shapes:
        np.testing.assert_allclose(
            child[name], (a.weights[name] + b.weights[name]) / 2, rtol=1e-5, atol=1e-5
        )
    with pytest.raises(StageError, match="keep the order of units of their ancestor"):
        cross(a, b, operator, align="activations", states=states, ancestor=base)


class Careless(CrossoverOperator):
    """Break the contract in one way."""

    name = "careless"

    def __init__(self, how: str) -> None:
        self.how = how

    def cross(self, parents, rng):
        if self.how == "raise":
            raise RuntimeError("boom")
        if self.how == "alias":
            return dict(parents[0])
        return {name: np.full_like(tensor, np.nan) for name, tensor in parents[0].items()}


def test_what_an_operator_gives_is_looked_at() -> None:
    a, b = network(1), network(2)
    with pytest.raises(ConceptionError, match="careless: RuntimeError: boom"):
        cross(a, b, Careless("raise"))
    with pytest.raises(ConceptionError, match=r"child of careless: network\.0\.weight holds NaN"):
        cross(a, b, Careless("nan"))
    child = cross(a, b, Careless("alias"))
    for name in SPEC.shapes:
        child[name][...] = 0  # arrays of its own, and writable
    assert a.weights["network.0.weight"].any()
