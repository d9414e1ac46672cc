"""The imitation loss against torch's own KL divergence, cross-entropy and autograd."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from engine.learning.losses import ImitationLoss, SquaredLoss

torch.set_num_threads(1)


def reference(values, targets, temperature, hard_weight):
    """Return ``(1 - h) T^2 KL(p || q) + h CE`` of one network; values and targets ``(A, N)``."""
    log_q = functional.log_softmax(values.T / temperature, dim=1)
    p = functional.softmax(targets.T / temperature, dim=1)
    soft = functional.kl_div(log_q, p, reduction="batchmean")
    hard = functional.cross_entropy(values.T, targets.T.argmax(dim=1))
    return (1 - hard_weight) * temperature**2 * soft + hard_weight * hard


def draws(n_networks, n_actions, n_states, seed):
    rng = np.random.default_rng(seed)
    values, targets = torch.from_numpy(
        rng.normal(0, 2, (2, n_networks, n_actions, n_states)).astype(np.float32)
    )
    temperature = torch.from_numpy(rng.uniform(0.3, 4, n_networks).astype(np.float32))
    hard_weight = torch.from_numpy(rng.uniform(0, 1, n_networks).astype(np.float32))
    return values, targets, temperature, hard_weight


SIZES = {
    "n_networks": st.integers(1, 4),
    "n_actions": st.integers(1, 5),
    "n_states": st.integers(1, 50),
    "seed": st.integers(0),
}


@settings(max_examples=60)
@given(**SIZES, with_hard_part=st.booleans())
def test_value_and_gradient_are_those_of_the_formula(
    n_networks, n_actions, n_states, seed, with_hard_part
):
    values, targets, temperature, hard_weight = draws(n_networks, n_actions, n_states, seed)
    if not with_hard_part:
        hard_weight = torch.zeros(n_networks)
    loss = ImitationLoss.towards(targets, temperature, hard_weight)
    gradient = loss.gradient(values, 0, values.shape[2])
    value = loss.value(values, values.shape[2])
    for k in range(n_networks):
        ours = values[k].double().requires_grad_()
        expected = reference(
            ours, targets[k].double(), float(temperature[k]), float(hard_weight[k])
        )
        expected.backward()
        torch.testing.assert_close(value[k].double(), expected.detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(gradient[k].double(), ours.grad, rtol=1e-4, atol=1e-6)


@given(**SIZES)
def test_divergence_is_the_kl_divergence_at_the_temperature(n_networks, n_actions, n_states, seed):
    values, targets, temperature, hard_weight = draws(n_networks, n_actions, n_states, seed)
    divergence = ImitationLoss.towards(targets, temperature, hard_weight).divergence(
        values, n_states
    )
    for k in range(n_networks):
        t = float(temperature[k])
        expected = reference(values[k].double(), targets[k].double(), t, 0.0) / t**2
        torch.testing.assert_close(divergence[k].double(), expected, rtol=1e-4, atol=1e-5)


@given(**SIZES)
def test_gradient_of_a_minibatch_is_that_of_its_states_alone(n_networks, n_actions, n_states, seed):
    values, targets, temperature, hard_weight = draws(n_networks, n_actions, n_states, seed)
    rng = np.random.default_rng(seed)
    order = torch.from_numpy(rng.permutation(n_states))
    start = int(rng.integers(n_states))
    whole = ImitationLoss.towards(targets, temperature, hard_weight)
    alone = ImitationLoss.towards(targets[:, :, order[start:]], temperature, hard_weight)
    batch = values[:, :, order[start:]]
    torch.testing.assert_close(
        whole.of_states(order).gradient(batch, start, n_states - start),
        alone.gradient(batch, 0, n_states - start),
    )


@given(**SIZES)
def test_a_perfect_imitation_has_no_divergence_whatever_the_offset(
    n_networks, n_actions, n_states, seed
):
    _, targets, temperature, _ = draws(n_networks, n_actions, n_states, seed)
    loss = ImitationLoss.towards(targets, temperature, torch.zeros(n_networks))
    shifted = targets + 7  # softmax does not see an offset common to all actions
    zero = torch.zeros(n_networks)
    torch.testing.assert_close(loss.divergence(shifted, n_states), zero, atol=1e-5, rtol=0)
    assert loss.gradient(shifted, 0, n_states).abs().max() < 1e-4


def test_certain_targets_have_a_finite_divergence():
    targets = torch.tensor([[[1000.0], [0.0]]])
    loss = ImitationLoss.towards(targets, torch.ones(1), torch.zeros(1))
    torch.testing.assert_close(
        loss.divergence(torch.zeros(1, 2, 1), 1), torch.tensor([np.log(2)]), check_dtype=False
    )
    assert float(loss.divergence(targets, 1)) == 0.0


@given(**SIZES)
def test_the_squared_loss_and_its_gradient_are_those_of_torch(
    n_networks, n_actions, n_states, seed
):
    values, targets, _, _ = draws(n_networks, n_actions, n_states, seed)
    loss = SquaredLoss(targets)
    for k in range(n_networks):
        ours = values[k].double().requires_grad_()
        expected = torch.nn.functional.mse_loss(ours, targets[k].double())
        expected.backward()
        value = loss.value(values, n_states)[k].double()
        gradient = loss.gradient(values, 0, n_states)[k].double()
        torch.testing.assert_close(value, expected.detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(gradient, ours.grad, rtol=1e-4, atol=1e-6)


@given(**SIZES, n_padding=st.integers(1, 9))
def test_states_of_the_padding_do_not_count(n_networks, n_actions, n_states, seed, n_padding):
    values, targets, temperature, hard_weight = draws(n_networks, n_actions, n_states, seed)
    padding = torch.full((n_networks, n_actions, n_padding), 3.0)
    longer = torch.cat([values, padding], dim=2)
    for make in (
        lambda wanted: ImitationLoss.towards(wanted, temperature, hard_weight),
        lambda wanted: SquaredLoss(wanted),
    ):
        loss, padded = make(targets), make(torch.cat([targets, padding * 2], dim=2))
        gradient = padded.gradient(longer, 0, n_states)
        torch.testing.assert_close(gradient[:, :, :n_states], loss.gradient(values, 0, n_states))
        assert (gradient[:, :, n_states:] == 0).all()
        torch.testing.assert_close(padded.value(longer, n_states), loss.value(values, n_states))
        torch.testing.assert_close(
            padded.divergence(longer, n_states), loss.divergence(values, n_states)
        )
