"""The stacked loop against a plain loop of one network with autograd and torch.optim.Adam."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.learning.course import Course
from engine.learning.qnetwork import StackedQNetwork, sequential
from engine.learning.training import train
from engine.seeding import stream
from populations.network import NetworkSpec
from populations.quantization import dequantize, quantize

torch.set_num_threads(1)
ORDER = (7, 9, 2, 3)


def make_course(spec, n_networks, seed=0, *, n_train=96, n_validation=32, **changes):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    course = Course(
        train_states=normal(n_train, spec.n_inputs),
        train_targets=normal(n_networks, spec.n_actions, n_train),
        validation_states=normal(n_validation, spec.n_inputs),
        validation_targets=normal(n_networks, spec.n_actions, n_validation),
        steps=12,
        batch_size=32,
        learning_rates=rng.uniform(1e-3, 1e-2, n_networks).astype(np.float32),
        temperatures=rng.uniform(0.5, 2, n_networks).astype(np.float32),
        hard_weights=rng.choice([0.0, 0.3, 1.0], n_networks).astype(np.float32),
        int8_in_loop=True,
        validation_every=5,
        order=ORDER,
    )
    return replace(course, **changes)


def of_networks(course, rows):
    """Return the course of some networks, by index."""
    return replace(
        course,
        train_targets=course.train_targets[rows],
        validation_targets=course.validation_targets[rows],
        learning_rates=course.learning_rates[rows],
        temperatures=course.temperatures[rows],
        hard_weights=course.hard_weights[rows],
    )


def imitation_loss(values, targets, temperature, hard_weight):
    """Return ``(1 - h) T^2 KL(p || q) + h CE``; values and targets ``(N, A)``."""
    log_q = functional.log_softmax(values / temperature, dim=1)
    p = functional.softmax(targets / temperature, dim=1)
    soft = functional.kl_div(log_q, p, reduction="batchmean")
    hard = functional.cross_entropy(values, targets.argmax(dim=1))
    return (1 - hard_weight) * temperature**2 * soft + hard_weight * hard


def plain_loop(spec, weights, course, k):
    """Return network ``k`` after the same training, done by autograd and torch's own optimizer.

    Through int8 the gradient at the rounded weights is applied to the unrounded ones. Scales are
    measured at every step, as the loop does with ``validation_every=1``.
    """
    parameters = {
        name: torch.tensor(tensor, requires_grad=True) for name, tensor in weights[k].items()
    }
    optimizer = torch.optim.Adam(parameters.values(), lr=float(course.learning_rates[k]))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, course.steps)
    temperature, hard_weight = float(course.temperatures[k]), float(course.hard_weights[k])

    def loss(states, targets):
        used = {}
        for name, tensor in parameters.items():
            used[name] = tensor.unsqueeze(0)
            if course.int8_in_loop and name in spec.matrices:
                rounded = torch.from_numpy(dequantize(*quantize(tensor.detach().numpy())))
                used[name] = used[name] + (rounded - tensor.detach())
        values = StackedQNetwork(spec, used).forward(torch.from_numpy(states))[0]
        return imitation_loss(values, torch.from_numpy(targets.T), temperature, hard_weight)

    best, best_loss = None, np.inf
    rng, order = stream(course.order), []
    for step in range(course.steps + 1):
        if step % course.validation_every == 0 or step == course.steps:
            with torch.no_grad():
                current = float(loss(course.validation_states, course.validation_targets[k]))
            if current < best_loss:
                best_loss = current
                best = {name: tensor.detach().numpy().copy() for name, tensor in parameters.items()}
        if step == course.steps:
            break
        if len(order) < course.batch_size:  # a short last batch is left out
            order = rng.permutation(len(course.train_states))
        batch, order = order[: course.batch_size], order[course.batch_size :]
        optimizer.zero_grad()
        loss(course.train_states[batch], course.train_targets[k][:, batch]).backward()
        optimizer.step()
        schedule.step()
    return best


def same_lessons(course):
    """Return a course that validates on what it trains on, so that the loss falls."""
    n_states = len(course.train_states) // 32 * 32
    return replace(
        course,
        validation_states=course.train_states[:n_states],
        validation_targets=course.train_targets[:, :, :n_states],
    )


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("hidden", [(), (8,), (9, 7)])
@pytest.mark.parametrize("n_train", [96, 70, 32])
def test_the_loop_is_adam_with_a_cosine_schedule(random_networks, hidden, norm, n_train):
    spec = NetworkSpec((4,), hidden, 3, norm=norm)
    weights = random_networks(spec, 3, 0)
    course = same_lessons(make_course(spec, 3, n_train=n_train, steps=40, int8_in_loop=False))
    trained = train(spec, weights, course)
    for k, network in enumerate(trained.weights):
        expected = plain_loop(spec, weights, course, k)
        for name, tensor in network.items():
            np.testing.assert_allclose(tensor, expected[name], rtol=1e-3, atol=2e-4)
            assert not np.array_equal(tensor, weights[k][name])


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_the_loop_through_int8_uses_straight_through_gradients(random_networks, norm):
    spec = NetworkSpec((4,), (9, 7), 3, norm=norm)
    weights = random_networks(spec, 3, 0)
    course = same_lessons(make_course(spec, 3, validation_every=1))
    trained = train(spec, weights, course)
    for k, network in enumerate(trained.weights):
        expected = plain_loop(spec, weights, course, k)
        for name, tensor in network.items():
            # A weight halfway between two codes may be rounded to either of them.
            np.testing.assert_allclose(tensor, expected[name], rtol=1e-2, atol=1e-3)
            assert not np.array_equal(tensor, weights[k][name])


@pytest.mark.parametrize("int8_in_loop", [False, True])
def test_divergence_is_the_kl_divergence_of_what_is_returned(random_networks, int8_in_loop):
    spec = NetworkSpec((4,), (8,), 3)
    weights = random_networks(spec, 4, 0)
    course = make_course(spec, 4, int8_in_loop=int8_in_loop, validation_every=1)
    trained = train(spec, weights, course)
    for k, network in enumerate(trained.weights):
        if int8_in_loop:
            network = {
                n: dequantize(*quantize(t)) if n in spec.matrices else t for n, t in network.items()
            }
        values = sequential(spec, network)(torch.from_numpy(course.validation_states)).detach()
        targets = torch.from_numpy(course.validation_targets[k].T)
        t = float(course.temperatures[k])
        expected = imitation_loss(values, targets, t, 0.0) / t**2
        np.testing.assert_allclose(trained.divergence[k], expected, rtol=1e-3)


@pytest.mark.parametrize("batch_size", [32, 64])
@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec((4,), (), 2),
        NetworkSpec((1,), (8,), 1),
        NetworkSpec((8,), (32, 32), 4),
        NetworkSpec((3,), (5, 7), 5, norm="layer"),
        NetworkSpec((17,), (13, 1, 9), 3, norm="layer"),
        NetworkSpec((17,), (13, 1, 9), 3),
    ],
)
def test_a_network_is_equal_to_the_bit_whatever_its_neighbors(random_networks, spec, batch_size):
    weights = random_networks(spec, 64, 0)
    course = make_course(spec, 64, n_train=70, n_validation=96, batch_size=batch_size)
    everyone = train(spec, weights, course)
    rng = np.random.default_rng(1)
    for n_networks in (1, 3, 8, 33, 64):
        rows = rng.permutation(64)[:n_networks]
        some = train(spec, [weights[k] for k in rows], of_networks(course, rows))
        assert some.divergence.tobytes() == everyone.divergence[rows].tobytes()
        for network, k in zip(some.weights, rows, strict=True):
            for name, tensor in network.items():
                assert tensor.tobytes() == everyone.weights[k][name].tobytes(), (name, n_networks)


def assert_unchanged(trained, weights):
    assert len(trained.weights) == len(weights)
    for after, before in zip(trained.weights, weights, strict=True):
        assert list(after) == list(before)
        for name in before:
            assert after[name].tobytes() == before[name].tobytes()


@pytest.mark.parametrize("int8_in_loop", [False, True])
def test_networks_that_can_only_get_worse_are_returned_unchanged(random_networks, int8_in_loop):
    spec = NetworkSpec((4,), (8,), 3)
    weights = random_networks(spec, 2, 0)
    course = same_lessons(make_course(spec, 2, int8_in_loop=int8_in_loop))
    # What they are trained towards is the opposite of what they are validated on: themselves.
    states = torch.from_numpy(course.validation_states)
    own = np.stack([sequential(spec, n)(states).detach().numpy().T for n in weights]) * 3
    course = replace(course, train_targets=-own, validation_targets=own)
    assert_unchanged(train(spec, weights, course), weights)
    better = train(spec, weights, replace(course, train_targets=own))
    assert (better.divergence < train(spec, weights, course).divergence).all()


@pytest.mark.parametrize("learning_rate", [1e3, 1e30, np.inf, np.nan])
def test_a_diverging_learning_rate_never_returns_nan(random_networks, learning_rate):
    spec = NetworkSpec((4,), (8,), 3, norm="layer")
    weights = random_networks(spec, 3, 0)
    course = make_course(spec, 3, validation_every=1)
    rates = course.learning_rates.copy()
    rates[1] = learning_rate
    trained = train(spec, weights, replace(course, learning_rates=rates))
    assert np.isfinite(trained.divergence).all()
    for network in trained.weights:
        assert all(np.isfinite(tensor).all() for tensor in network.values())
    alone = train(spec, [weights[0], weights[2]], of_networks(course, [0, 2]))
    for k, row in enumerate((0, 2)):  # and the neighbors notice nothing
        for name in spec.shapes:
            np.testing.assert_array_equal(trained.weights[row][name], alone.weights[k][name])


def test_a_network_without_a_finite_loss_is_returned_unchanged(random_networks):
    spec = NetworkSpec((4,), (8, 8), 3)
    (network,) = random_networks(spec, 1, 0)
    huge = {name: tensor * np.float32(1e30) for name, tensor in network.items()}
    trained = train(spec, [huge], make_course(spec, 1))
    assert_unchanged(trained, [huge])
    assert np.isnan(trained.divergence).all()


def test_no_steps_train_nothing_but_measure_the_divergence(random_networks):
    spec = NetworkSpec((4,), (8,), 3)
    weights = random_networks(spec, 2, 0)
    trained = train(spec, weights, make_course(spec, 2, steps=0))
    assert_unchanged(trained, weights)
    assert (trained.divergence > 0).all()


@pytest.mark.parametrize("n_train", [1, 5, 31])
def test_fewer_states_than_one_batch_are_enough(random_networks, n_train):
    spec = NetworkSpec((4,), (8,), 3)
    weights = random_networks(spec, 2, 0)
    course = make_course(spec, 2, n_train=n_train, steps=50, validation_every=5)
    course = replace(
        course,
        hard_weights=np.zeros(2, np.float32),
        validation_states=np.resize(course.train_states, (32, 4)),
        validation_targets=course.train_targets[:, :, np.arange(32) % n_train],
    )
    before = train(spec, weights, replace(course, steps=0)).divergence
    assert (train(spec, weights, course).divergence < 0.8 * before).all()


def test_training_repeats_exactly_and_depends_on_the_order_of_the_states(random_networks):
    spec = NetworkSpec((4,), (8,), 3)
    weights = random_networks(spec, 2, 0)
    course = same_lessons(make_course(spec, 2))
    first = train(spec, weights, course)
    assert_unchanged(train(spec, weights, course), first.weights)
    other = train(spec, weights, replace(course, order=(7, 9, 2, 4)))
    assert not np.array_equal(
        first.weights[0]["network.0.weight"], other.weights[0]["network.0.weight"]
    )


def test_arguments_stay_as_they_are(random_networks):
    spec = NetworkSpec((4,), (8,), 3)
    weights = random_networks(spec, 2, 0)
    course = make_course(spec, 2)
    train(spec, weights, course)
    for before, after in zip(random_networks(spec, 2, 0), weights, strict=True):
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])
    again = make_course(spec, 2)
    np.testing.assert_array_equal(course.train_states, again.train_states)
    np.testing.assert_array_equal(course.train_targets, again.train_targets)
