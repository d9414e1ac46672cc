"""The refit of the output layer against NumPy's least squares."""

import numpy as np
import pytest
import torch

from engine.learning.qnetwork import sequential
from engine.learning.repair import refit_output
from populations.network import NetworkSpec

torch.set_num_threads(1)
RIDGE = 1e-3


def problem(spec, n_networks, n_states, seed=0):
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((n_states, spec.n_inputs)).astype(np.float32)
    targets = rng.standard_normal((n_networks, spec.n_actions, n_states)).astype(np.float32)
    return states, targets


def features_of(spec, weights, states):
    """Return what the output layer of the plain module reads, ``(N, u)`` in float64."""
    module = sequential(spec, weights).double()
    with torch.no_grad():
        return module.network[:-1](torch.from_numpy(states).double()).numpy()


def ridge_by_least_squares(features, targets, ridge):
    """Minimize ``|F w + b - Y|^2 / N + r m |w|^2`` as one least squares problem in float64.

    Args:
        features: ``(N, u)``.
        targets: ``(A, N)``.
        ridge: ``r``.

    Returns:
        ``w`` as ``(A, u)`` and ``b`` as ``(A,)``.
    """
    n_states, n_units = features.shape
    size = features.var(axis=0).mean()
    system = np.block(
        [
            [features, np.ones((n_states, 1))],
            [np.sqrt(ridge * size * n_states) * np.eye(n_units), np.zeros((n_units, 1))],
        ]
    )
    wanted = np.concatenate([targets.T.astype(np.float64), np.zeros((n_units, len(targets)))])
    solution, *_ = np.linalg.lstsq(system, wanted, rcond=None)
    return solution[:-1].T, solution[-1]


@pytest.mark.parametrize("n_states", [5, 33, 64, 1000])
@pytest.mark.parametrize("ridge", [1e-6, 1e-3, 1.0])
def test_a_linear_network_becomes_the_ridge_regression(random_networks, n_states, ridge):
    spec = NetworkSpec((4,), (), 3)
    weights = random_networks(spec, 2, 0)
    states, targets = problem(spec, 2, n_states)
    states += 5  # features need centering
    for k, network in enumerate(refit_output(spec, weights, states, targets, ridge)):
        weight, bias = ridge_by_least_squares(states.astype(np.float64), targets[k], ridge)
        np.testing.assert_allclose(network["network.0.weight"], weight, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(network["network.0.bias"], bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_the_output_layer_becomes_the_ridge_regression_on_the_last_features(random_networks, norm):
    spec = NetworkSpec((4,), (16, 9), 3, norm=norm)
    weights = random_networks(spec, 3, 1)
    states, targets = problem(spec, 3, 500)
    refitted = refit_output(spec, weights, states, targets, RIDGE)
    output = spec.blocks[-1]
    for k, network in enumerate(refitted):
        features = features_of(spec, weights[k], states)
        weight, bias = ridge_by_least_squares(features, targets[k], RIDGE)
        np.testing.assert_allclose(network[output.weight], weight, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(network[output.bias], bias, rtol=1e-3, atol=1e-4)


def test_hidden_layers_and_arguments_stay_as_they_are(random_networks):
    spec = NetworkSpec((4,), (8, 8), 2, norm="layer")
    weights = random_networks(spec, 2, 0)
    copies = [{name: tensor.copy() for name, tensor in network.items()} for network in weights]
    states, targets = problem(spec, 2, 64)
    refitted = refit_output(spec, weights, states, targets, RIDGE)
    for before, copy, after in zip(weights, copies, refitted, strict=True):
        assert list(after) == list(spec.shapes)
        for name in spec.shapes:
            np.testing.assert_array_equal(before[name], copy[name])
            is_output = name in spec.blocks[-1].tensors
            assert np.array_equal(after[name], before[name]) != is_output


def test_dead_features_leave_the_mean_target(random_networks):
    spec = NetworkSpec((4,), (8,), 2)
    (network,) = random_networks(spec, 1, 0)
    network = {**network, "network.0.bias": np.full(8, -1e4, np.float32)}
    states, targets = problem(spec, 1, 100)
    (after,) = refit_output(spec, [network], states, targets, RIDGE)
    np.testing.assert_array_equal(after["network.2.weight"], np.zeros((2, 8)))
    np.testing.assert_allclose(after["network.2.bias"], targets[0].mean(axis=1), atol=1e-6)


def test_one_dead_feature_gets_no_weight(random_networks):
    spec = NetworkSpec((4,), (8,), 2)
    (network,) = random_networks(spec, 1, 0)
    bias = network["network.0.bias"].copy()
    bias[3] = -1e4
    states, targets = problem(spec, 1, 100)
    (after,) = refit_output(spec, [{**network, "network.0.bias": bias}], states, targets, RIDGE)
    assert (after["network.2.weight"][:, 3] == 0).all()
    assert (np.delete(after["network.2.weight"], 3, axis=1) != 0).all()


def test_agreement_with_the_target_rises(random_networks):
    spec = NetworkSpec((4,), (16,), 4)
    students = random_networks(spec, 8, 0)
    (teacher,) = random_networks(spec, 1, 99)
    states, _ = problem(spec, 8, 512)

    def actions(weights):
        with torch.no_grad():
            return sequential(spec, weights)(torch.from_numpy(states)).numpy().argmax(axis=1)

    values = sequential(spec, teacher)(torch.from_numpy(states)).detach().numpy().T
    refitted = refit_output(spec, students, states, np.stack([values] * 8), RIDGE)
    wanted = actions(teacher)
    for before, after in zip(students, refitted, strict=True):
        assert (actions(after) == wanted).mean() > max((actions(before) == wanted).mean(), 0.7)


@pytest.mark.parametrize("n_states", [33, 70, 96])
@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec((4,), (), 2),
        NetworkSpec((8,), (3,), 1),
        NetworkSpec((17,), (9,), 3),
        NetworkSpec((8,), (13, 1, 9), 5, norm="layer"),
        NetworkSpec((8,), (32, 32), 4),
    ],
)
def test_a_network_is_equal_to_the_bit_whatever_its_neighbors(random_networks, spec, n_states):
    weights = random_networks(spec, 64, 0)
    states, targets = problem(spec, 64, n_states)
    everyone = refit_output(spec, weights, states, targets, RIDGE)
    rng = np.random.default_rng(1)
    for n_networks in (1, 3, 8, 33, 64):
        rows = rng.permutation(64)[:n_networks]
        some = refit_output(spec, [weights[k] for k in rows], states, targets[rows], RIDGE)
        for network, k in zip(some, rows, strict=True):
            for name, tensor in network.items():
                assert tensor.tobytes() == everyone[k][name].tobytes(), (name, n_networks)


def test_a_network_whose_features_overflow_spoils_no_other_one(random_networks):
    spec = NetworkSpec((4,), (8, 8), 2)
    weights = random_networks(spec, 3, 0)
    weights[1] = {name: tensor * np.float32(1e30) for name, tensor in weights[1].items()}
    states, targets = problem(spec, 3, 64)
    together = refit_output(spec, weights, states, targets, RIDGE)
    for k in (0, 2):
        (alone,) = refit_output(spec, [weights[k]], states, targets[k : k + 1], RIDGE)
        for name in spec.shapes:
            np.testing.assert_array_equal(together[k][name], alone[name])
