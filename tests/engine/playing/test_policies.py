"""Expected Q-values come from torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.playing.policies import EnsemblePolicy, EpsilonGreedy, StackedPolicy
from populations.network import NetworkSpec, Weights


def torch_network(spec: NetworkSpec, weights: Weights) -> torch.nn.Module:
    modules: list[torch.nn.Module] = []
    for n_in, n_out in zip((spec.n_inputs, *spec.hidden), spec.hidden, strict=False):
        modules.append(torch.nn.Linear(n_in, n_out))
        modules += [torch.nn.LayerNorm(n_out)] if spec.norm == "layer" else []
        modules.append(torch.nn.ReLU())
        modules += [torch.nn.Dropout()] if spec.dropout_slots else []
    modules.append(torch.nn.Linear((spec.n_inputs, *spec.hidden)[-1], spec.n_actions))
    network = torch.nn.ModuleDict({"network": torch.nn.Sequential(*modules)})
    network.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    return network.eval()["network"]


def draw(spec: NetworkSpec, rng: np.random.Generator) -> Weights:
    return {
        name: rng.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)
        for name, shape in spec.shapes.items()
    }


specs = st.builds(
    NetworkSpec,
    observation_shape=st.sampled_from([(1,), (4,), (2, 3), (17,)]),
    hidden=st.lists(st.integers(4, 33), max_size=3).map(tuple),
    n_actions=st.integers(1, 6),
    norm=st.sampled_from(["none", "layer"]),
    dropout_slots=st.booleans(),
)


@given(spec=specs, n_networks=st.integers(1, 4), n_lanes=st.integers(1, 9), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_q_values_equal_torch(spec: NetworkSpec, n_networks: int, n_lanes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [draw(spec, rng) for _ in range(n_networks)]
    seen = rng.normal(size=(n_networks, n_lanes, spec.n_inputs)).astype(np.float32)
    policy = StackedPolicy(spec, weights)
    q_values = policy.q_values(seen)
    with torch.no_grad():
        expected = np.stack(
            [
                torch_network(spec, network)(torch.from_numpy(rows)).numpy()
                for network, rows in zip(weights, seen, strict=True)
            ]
        )
    np.testing.assert_allclose(q_values, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(policy.act(seen), q_values.argmax(axis=2))


@pytest.mark.parametrize("n_lanes", [1, 7, 16, 32])
@pytest.mark.parametrize(
    ("hidden", "norm"),
    [((4, 4), "none"), ((8, 8), "none"), ((32, 32), "none"), ((32, 32), "layer"), ((5,), "layer")],
)
def test_network_does_not_depend_on_its_neighbors(
    hidden: tuple[int, ...], norm: Any, n_lanes: int
) -> None:
    spec, rng = NetworkSpec((8,), hidden, 4, norm), np.random.default_rng(0)
    weights = [draw(spec, rng) for _ in range(64)]
    seen = rng.normal(size=(64, n_lanes, 8)).astype(np.float32)
    policy = StackedPolicy(spec, weights)
    together = policy.q_values(seen)
    for indices in ([5], [63], [2, 0, 40], list(range(30, 64))):
        alone = StackedPolicy(spec, [weights[i] for i in indices])
        np.testing.assert_array_equal(alone.q_values(seen[indices]), together[indices])
        selected = policy.select(np.array(indices))
        assert selected.n_networks == len(indices)
        np.testing.assert_array_equal(selected.q_values(seen[indices]), together[indices])
    np.testing.assert_array_equal(policy.q_values(seen), together)


def test_layout_of_the_observations_does_not_matter() -> None:
    spec, rng = NetworkSpec((8,), (32,), 4), np.random.default_rng(0)
    policy = StackedPolicy(spec, [draw(spec, rng) for _ in range(3)])
    seen = rng.normal(size=(3, 16, 8)).astype(np.float32)
    np.testing.assert_array_equal(policy.q_values(seen), policy.q_values(np.asfortranarray(seen)))


def test_lowest_of_equal_actions_is_taken() -> None:
    spec = NetworkSpec((2,), (), 4)
    weights = {
        "network.0.weight": np.zeros((4, 2), np.float32),
        "network.0.bias": np.array([0, 3, 1, 3], np.float32),
    }
    actions = StackedPolicy(spec, [weights]).act(np.ones((1, 5, 2), np.float32))
    np.testing.assert_array_equal(actions, np.ones((1, 5)))
    assert actions.dtype == np.intp


def test_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one network"):
        StackedPolicy(NetworkSpec((2,), (), 2), [])


def test_ensemble_follows_the_mean_of_scaled_advantages() -> None:
    spec, rng = NetworkSpec((4,), (8,), 3, "layer"), np.random.default_rng(1)
    teachers = [draw(spec, rng) for _ in range(3)]
    scales = np.array([0.1, 2.0, 30.0])
    seen = rng.normal(size=(1, 200, 4)).astype(np.float32)
    q_values = StackedPolicy(spec, teachers).q_values(np.repeat(seen, 3, axis=0))
    advantages = q_values - q_values.mean(axis=2, keepdims=True)
    expected = (advantages / scales[:, None, None]).mean(axis=0).argmax(axis=1)
    ensemble = EnsemblePolicy(spec, teachers, scales)
    assert (ensemble.n_networks, ensemble.n_actions) == (1, 3)
    np.testing.assert_array_equal(ensemble.act(seen), expected[None])
    assert ensemble.select(np.array([0])) is ensemble
    with pytest.raises(ValueError, match="one player, number 0"):
        ensemble.select(np.array([1]))


@pytest.mark.parametrize("scales", [[1.0], [1.0, 0.0], [1.0, np.nan]])
def test_ensemble_refuses_other_scales(scales: list[float]) -> None:
    spec, rng = NetworkSpec((4,), (), 3), np.random.default_rng(1)
    with pytest.raises(ValueError, match="expected 2 positive scales"):
        EnsemblePolicy(spec, [draw(spec, rng), draw(spec, rng)], np.array(scales))


def streams(n: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, i]) for i in range(n)]


def test_epsilon_is_the_share_of_random_actions() -> None:
    spec, rng = NetworkSpec((4,), (8,), 5), np.random.default_rng(1)
    policy = StackedPolicy(spec, [draw(spec, rng) for _ in range(2)])
    seen = rng.normal(size=(2, 4000, 4)).astype(np.float32)
    greedy = policy.act(seen)
    np.testing.assert_array_equal(EpsilonGreedy(policy, 0.0, streams(2)).act(seen), greedy)
    some = EpsilonGreedy(policy, 0.25, streams(2)).act(seen)
    assert (some != greedy).mean() == pytest.approx(0.25 * 4 / 5, abs=0.03)
    random = EpsilonGreedy(policy, 1.0, streams(2)).act(seen)
    np.testing.assert_allclose(np.bincount(random.ravel()) / random.size, 0.2, atol=0.03)


def test_random_actions_of_a_network_do_not_depend_on_its_neighbors() -> None:
    spec, rng = NetworkSpec((4,), (8,), 5), np.random.default_rng(1)
    policy = StackedPolicy(spec, [draw(spec, rng) for _ in range(3)])
    seen = rng.normal(size=(3, 50, 4)).astype(np.float32)
    together = EpsilonGreedy(policy, 0.5, streams(3))
    last = EpsilonGreedy(policy, 0.5, streams(3)).select(np.array([2]))
    for _ in range(3):
        np.testing.assert_array_equal(together.act(seen)[2:], last.act(seen[2:]))


def test_epsilon_greedy_refuses_what_does_not_fit() -> None:
    policy = StackedPolicy(
        NetworkSpec((4,), (), 2), [draw(NetworkSpec((4,), (), 2), streams(1)[0])]
    )
    with pytest.raises(ValueError, match=r"epsilon must be in \[0, 1\], not 1\.5"):
        EpsilonGreedy(policy, 1.5, streams(1))
    with pytest.raises(ValueError, match=r"expected 1 random streams, .* not 2"):
        EpsilonGreedy(policy, 0.5, streams(2))
