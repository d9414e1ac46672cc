from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.forward import q_values
from strategies.mutation import Newborn, SafeMutation
from strategies.mutation.safe import sensitivities
from strategies.testing import SPECS, random_family

DEAD = NetworkSpec((4,), (6, 5), 3)
NETWORKS = st.builds(
    NetworkSpec,
    observation_shape=st.tuples(st.integers(1, 6)),
    hidden=st.lists(st.integers(2, 12), max_size=3).map(tuple),
    n_actions=st.integers(2, 5),
    norm=st.sampled_from(["none", "layer"]),
)


def newborn(spec: NetworkSpec, seed: int, n_states: int = 50) -> Newborn:
    (weights,) = random_family(spec, 1, seed)
    states = np.random.default_rng(seed).standard_normal((n_states, spec.n_inputs))
    return Newborn(weights, spec, states.astype(np.float32))


def preferences(
    spec: NetworkSpec, weights: Weights, states: NDArray[np.float32]
) -> NDArray[np.float64]:
    values = q_values(spec, weights, states).astype(np.float64)
    return values - values.mean(axis=1, keepdims=True)


def measured(child: Newborn, mutant: Weights, states: NDArray[np.float32] | None = None) -> float:
    """Return the RMS of the change of the centered Q-values, relative to themselves."""
    states = child.states if states is None else states
    assert states is not None
    before = preferences(child.spec, child.weights, states)
    after = preferences(child.spec, mutant, states)
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


@settings(deadline=None, max_examples=60)
@given(NETWORKS, st.integers(0, 2**32), st.floats(0.01, 1))
def test_the_measured_change_is_the_target(spec: NetworkSpec, seed: int, change: float) -> None:
    child = newborn(spec, seed)
    mutant = SafeMutation(change).mutate(child, np.random.default_rng(seed))
    spec.check(mutant, "mutant")
    assert measured(child, mutant) == pytest.approx(change, rel=0.011)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_scale_of_the_q_values_does_not_matter(factor: float) -> None:
    child = newborn(SPECS[2], seed=3)
    output = child.spec.blocks[-1]
    scaled = dict(child.weights)
    for name in output.tensors:
        scaled[name] = np.float32(factor) * scaled[name]
    mutant = SafeMutation(0.2).mutate(
        Newborn(scaled, child.spec, child.states), np.random.default_rng(0)
    )
    assert measured(Newborn(scaled, child.spec, child.states), mutant) == pytest.approx(
        0.2, rel=0.011
    )


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_sensitivities_equal_those_of_torch(spec: NetworkSpec) -> None:
    torch = pytest.importorskip("torch")
    child = newborn(spec, seed=1)
    tensors = {
        name: torch.tensor(tensor, requires_grad=True) for name, tensor in child.weights.items()
    }
    features = torch.tensor(child.states)
    for block in spec.blocks:
        features = torch.nn.functional.linear(features, tensors[block.weight], tensors[block.bias])
        if block.norm is not None:
            scale, shift = tensors[f"{block.norm}.weight"], tensors[f"{block.norm}.bias"]
            features = torch.nn.functional.layer_norm(features, (block.n_out,), scale, shift)
        if block is not spec.blocks[-1]:
            features = torch.relu(features)
    gradients = [
        torch.autograd.grad(mean, list(tensors.values()), retain_graph=True)
        for mean in features.mean(dim=0)
    ]
    assert child.states is not None
    found = sensitivities(spec, child.weights, child.states)
    for index, name in enumerate(tensors):
        expected = torch.stack([each[index] for each in gradients]).norm(dim=0).numpy()
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-4)


def test_the_direction_is_noise_over_sensitivity_computed_by_hand() -> None:
    # Q = W x + b on the one state (2, 0.5, 0): the sensitivity of a weight is its input, that of a
    # bias 1, whatever the action, and a tenth of their RMS is 0.1 * sqrt((4 + 0.25 + 0 + 1) / 4).
    spec = NetworkSpec((3,), (), 2)
    (weights,) = random_family(spec, 1, seed=0)
    states = np.array([[2, 0.5, 0]], np.float32)
    mutant = SafeMutation(0.3).mutate(Newborn(weights, spec, states), np.random.default_rng(5))
    noise = np.random.default_rng(5).standard_normal(8)  # weight, then bias
    steps = mutant["network.0.weight"] - weights["network.0.weight"]
    expected = noise[:6].reshape(2, 3) / np.array([2, 0.5, np.inf])
    factor = steps[0, 0] / expected[0, 0]
    np.testing.assert_allclose(steps, factor * expected, rtol=1e-3, atol=1e-6)
    biases = mutant["network.0.bias"] - weights["network.0.bias"]
    np.testing.assert_allclose(biases, factor * noise[6:], rtol=1e-3, atol=1e-6)


def test_noise_fades_where_the_outputs_hardly_react() -> None:
    # As above, with an input of 0.01, below the tenth of the RMS: 0.1 * sqrt((4 + 0.0001 + 1) / 3).
    spec = NetworkSpec((2,), (), 2)
    weights = {
        "network.0.weight": np.zeros((2, 2), np.float32),
        "network.0.bias": np.array([1, -1], np.float32),
    }
    states = np.array([[2, 0.01]], np.float32)
    mutant = SafeMutation(0.3).mutate(Newborn(weights, spec, states), np.random.default_rng(5))
    noise = np.random.default_rng(5).standard_normal(6)[:4].reshape(2, 2)
    floor_squared = 0.01 * (4 + 0.0001 + 1) / 3
    expected = noise * np.array([1 / 2, 0.01 / floor_squared])
    steps = mutant["network.0.weight"]
    np.testing.assert_allclose(steps / steps[0, 0], expected / expected[0, 0], rtol=1e-4)


def test_a_dead_unit_stays_as_it_is() -> None:
    child = newborn(DEAD, seed=2)
    first, second, output = DEAD.blocks
    weights = dict(child.weights)
    weights[first.bias] = np.where(np.arange(6) == 4, np.float32(-1e3), weights[first.bias])
    child = Newborn(weights, DEAD, child.states)
    mutant = SafeMutation(0.5).mutate(child, np.random.default_rng(0))
    for name, index in ((first.weight, 4), (first.bias, 4), (second.weight, (slice(None), 4))):
        np.testing.assert_array_equal(mutant[name][index], weights[name][index])
    assert (mutant[output.weight] != weights[output.weight]).any()
    assert measured(child, mutant) == pytest.approx(0.5, rel=0.011)


def test_a_network_of_one_action_is_measured_by_its_q_values() -> None:
    spec = NetworkSpec((3,), (5,), 1)
    child = newborn(spec, seed=0)
    assert child.states is not None
    mutant = SafeMutation(0.1).mutate(child, np.random.default_rng(0))
    before, after = (q_values(spec, each, child.states) for each in (child.weights, mutant))
    assert np.linalg.norm(after - before) / np.linalg.norm(before) == pytest.approx(0.1, rel=0.011)


def test_the_change_is_absolute_where_no_action_is_preferred() -> None:
    spec = NetworkSpec((3,), (5,), 2)
    weights = {name: np.zeros(shape, np.float32) for name, shape in spec.shapes.items()}
    states = np.ones((4, 3), np.float32)
    mutant = SafeMutation(0.1).mutate(Newborn(weights, spec, states), np.random.default_rng(0))
    after = preferences(spec, mutant, states)
    assert np.sqrt(np.square(after).mean()) == pytest.approx(0.1, rel=0.011)


def test_of_many_states_256_at_most_are_used_evenly_spaced() -> None:
    child = newborn(SPECS[1], seed=0, n_states=1000)
    assert child.states is not None
    fewer = Newborn(child.weights, child.spec, child.states[::4])  # 250 states
    mutants = [SafeMutation().mutate(each, np.random.default_rng(0)) for each in (child, fewer)]
    assert all(mutants[0][name].tobytes() == mutants[1][name].tobytes() for name in mutants[0])


@pytest.mark.parametrize("states", [None, np.empty((0, 4), np.float32)])
def test_no_states_are_refused(states: NDArray[np.float32] | None) -> None:
    (weights,) = random_family(SPECS[1], 1, seed=0)
    with pytest.raises(ValueError, match="safe needs states to measure on; there are none"):
        SafeMutation().mutate(Newborn(weights, SPECS[1], states), np.random.default_rng(0))


def test_a_network_that_does_not_react_is_refused() -> None:
    child = newborn(SPECS[1], seed=0)
    broken = {name: tensor * np.float32(np.nan) for name, tensor in child.weights.items()}
    with pytest.raises(ValueError, match="found no step that changes the Q-values"):
        SafeMutation().mutate(Newborn(broken, SPECS[1], child.states), np.random.default_rng(0))


def test_invalid_params_are_refused() -> None:
    with pytest.raises(ValueError, match="change must be a finite number of at least 0, not -1"):
        SafeMutation(change=-1)
