"""Every method of training against a plain loop with autograd and the namesakes of torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.learning.course import Course, Method
from engine.learning.minibatches import dropout_masks
from engine.learning.training import train
from engine.seeding import stream
from populations.network import NetworkSpec

torch.set_num_threads(1)
SPEC = NetworkSpec((4,), (9, 7), 3, norm="layer", dropout_slots=True)
N_EPOCHS = 5
OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}


def make_course(n_networks, n_train, batch_size, n_validation=40, **method):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    loss = method.get("loss", "kl")
    settings = {"schedule": "constant", "keep_short_batch": True, **method}
    steps_per_epoch = -(-n_train // batch_size)
    return Course(
        train_states=normal(n_train, 4),
        train_targets=normal(n_networks, 3, n_train),
        validation_states=normal(n_validation, 4),
        validation_targets=normal(n_networks, 3, n_validation),
        steps=N_EPOCHS * steps_per_epoch,
        batch_size=batch_size,
        learning_rates=np.linspace(1e-3, 1e-2, n_networks).astype(np.float32),
        temperatures=np.full(n_networks, 3, np.float32),
        hard_weights=np.full(n_networks, 0.3 if loss == "kl" else 0, np.float32),
        int8_in_loop=False,
        validation_every=steps_per_epoch,
        order=(3, 1),
        method=Method(**settings),
        record=True,
    )


def forward(parameters, states, masks=None):
    """Return Q-values ``(B, A)`` of one network, written out layer by layer."""
    signal = torch.from_numpy(states)
    for depth, block in enumerate(SPEC.blocks):
        signal = functional.linear(signal, parameters[block.weight], parameters[block.bias])
        if block.norm is not None:
            signal = functional.layer_norm(
                signal,
                (block.n_out,),
                parameters[f"{block.norm}.weight"],
                parameters[f"{block.norm}.bias"],
            )
            signal = torch.relu(signal)
            if masks is not None:
                signal = signal * masks[depth][:, : len(signal)].T
    return signal


def loss_of(course, k, values, targets, temperature):
    """Return total, soft and hard loss; values ``(B, A)`` and targets ``(A, B)``."""
    wanted = torch.from_numpy(np.ascontiguousarray(targets.T))
    if course.method.loss == "mse":
        soft = functional.mse_loss(values, wanted)
        return soft, soft, torch.tensor(0.0)
    log_q = functional.log_softmax(values / temperature, dim=1)
    p = functional.softmax(wanted / temperature, dim=1)
    soft = functional.kl_div(log_q, p, reduction="batchmean") * temperature**2
    hard = functional.cross_entropy(values, wanted.argmax(dim=1))
    h = float(course.hard_weights[k])
    return (1 - h) * soft + h * hard, soft, hard


def plain_loop(course, weights, k):
    """Train network ``k`` alone; return its parameters and losses after each epoch."""
    method = course.method
    parameters = {n: torch.tensor(t, requires_grad=True) for n, t in weights[k].items()}
    optimizer = OPTIMIZERS[method.optimizer](
        parameters.values(), lr=float(course.learning_rates[k]), **method.optimizer_options
    )
    plateau = None
    if method.plateau_patience:
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=method.plateau_factor, patience=method.plateau_patience, eps=0
        )
    order_rng = stream(course.order)
    masks = dropout_masks(course, SPEC.hidden)
    looks = []
    for epoch in range(N_EPOCHS + 1):
        with torch.no_grad():
            values = forward(parameters, course.validation_states)
            loss, _, _ = loss_of(course, k, values, course.validation_targets[k], 3.0)
        if plateau is not None:
            plateau.step(float(loss))
        rate = optimizer.param_groups[0]["lr"]
        looks.append(({n: t.detach().numpy().copy() for n, t in parameters.items()}, loss, rate))
        if epoch == N_EPOCHS:
            return looks
        order = order_rng.permutation(len(course.train_states))
        temperature = 3.0 * method.temperature_decay**epoch
        for start in range(0, len(order), course.batch_size):
            batch = order[start : start + course.batch_size]
            values = forward(parameters, course.train_states[batch], next(masks))
            targets = course.train_targets[k][:, batch]
            optimizer.zero_grad()
            loss_of(course, k, values, targets, temperature)[0].backward()
            if method.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters.values(), method.max_grad_norm)
            optimizer.step()


@pytest.mark.parametrize("batch_size", [16, 32])
@pytest.mark.parametrize("n_train", [70, 20])
@pytest.mark.parametrize(
    "method",
    [
        {},
        {"optimizer": "adam", "optimizer_options": {"weight_decay": 0.1}},
        {"optimizer": "adamw"},
        {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9, "weight_decay": 0.01}},
        {"optimizer": "rmsprop"},
        {"max_grad_norm": 0.05},
        {"dropout": 0.4},
        {"temperature_decay": 0.7},
        {"loss": "mse"},
        {"plateau_patience": 1, "plateau_factor": 0.3, "optimizer": "sgd"},
    ],
    ids=str,
)
def test_every_method_is_its_namesake_in_torch(random_networks, method, n_train, batch_size):
    weights = random_networks(SPEC, 3, 0)
    course = make_course(3, n_train, batch_size, **method)
    trained = train(SPEC, weights, course)
    for k, network in enumerate(trained.weights):
        looks = plain_loop(course, weights, k)
        losses = [float(loss) for _, loss, _ in looks]
        ours = trained.history[k]
        np.testing.assert_allclose([look.loss for look in ours], losses, rtol=2e-3)
        np.testing.assert_allclose(
            [look.learning_rate for look in ours], [rate for _, _, rate in looks], rtol=1e-6
        )
        best = looks[trained.best_look[k]][0]
        for name, tensor in network.items():
            np.testing.assert_allclose(tensor, best[name], rtol=2e-3, atol=3e-4)
        assert losses[trained.best_look[k]] == pytest.approx(min(losses), rel=1e-3)
        assert trained.loss[k] == pytest.approx(min(losses), rel=2e-3)


def test_history_is_what_the_kept_epoch_measures(random_networks):
    weights = random_networks(SPEC, 2, 0)
    course = make_course(2, 70, 32)
    trained = train(SPEC, weights, course)
    for k, network in enumerate(trained.weights):
        look = trained.history[k][trained.best_look[k]]
        parameters = {name: torch.from_numpy(tensor) for name, tensor in network.items()}
        values = forward(parameters, course.validation_states).numpy()
        targets = course.validation_targets[k].T
        agreement = (values.argmax(axis=1) == targets.argmax(axis=1)).mean()
        p = functional.softmax(torch.from_numpy(targets) / 3, dim=1)
        q = functional.softmax(torch.from_numpy(values) / 3, dim=1)
        assert look.agreement == pytest.approx(agreement)
        assert look.similarity == pytest.approx(1 - float((p - q).abs().mean()), abs=1e-6)
        assert np.isnan(trained.history[k][0].train_loss)
        later = trained.history[k][1:]
        assert [look.step for look in later] == [3, 6, 9, 12, 15]
        for look in later:
            mixed = 0.7 * look.train_soft + 0.3 * look.train_hard
            assert look.train_loss == pytest.approx(mixed, rel=1e-5)


def test_the_history_of_a_network_does_not_depend_on_its_neighbors(random_networks):
    weights = random_networks(SPEC, 2, 0)
    course = make_course(2, 70, 32)
    course = replace(course, hard_weights=np.array([0.0, 0.5], np.float32))
    together = train(SPEC, weights, course)
    assert all(look.train_hard == 0 for look in together.history[0][1:])
    for k in range(2):
        alone = train(SPEC, weights[k : k + 1], course.of_networks(slice(k, k + 1)))
        assert repr(alone.history[0]) == repr(together.history[k])


def test_a_network_stops_early_and_the_others_go_on(random_networks):
    weights = random_networks(SPEC, 3, 0)
    course = make_course(3, 70, 32, early_stopping_patience=2, optimizer="sgd")
    # The second learns nothing at rate 0; the third has a rate at which it gets worse.
    course = replace(course, learning_rates=np.array([1e-3, 1e-12, 50.0], np.float32))
    trained = train(SPEC, weights, course)
    assert [len(history) for history in trained.history][1:] == [3, 3]
    assert len(trained.history[0]) > 3
    alone = train(SPEC, weights[:1], course.of_networks(slice(0, 1)))
    for name, tensor in alone.weights[0].items():
        assert tensor.tobytes() == trained.weights[0][name].tobytes()


@pytest.mark.parametrize("batch_size", [16, 24, 64])
@pytest.mark.parametrize(
    "method", [{"max_grad_norm": 0.1, "dropout": 0.1}, {"loss": "mse", "optimizer": "adamw"}]
)
def test_a_network_is_equal_to_the_bit_whatever_its_neighbors(random_networks, method, batch_size):
    spec = replace(SPEC, hidden=(32, 32))
    weights = random_networks(spec, 9, 0)
    course = make_course(9, 70, batch_size, n_validation=50, **method)
    everyone = train(spec, weights, course)
    for rows in (slice(0, 1), slice(4, 7), slice(8, 9)):
        some = train(spec, weights[rows], course.of_networks(rows))
        assert repr(some.history) == repr(everyone.history[rows])
        for network, expected in zip(some.weights, everyone.weights[rows], strict=True):
            for name, tensor in network.items():
                assert tensor.tobytes() == expected[name].tobytes()


def test_dropout_keeps_the_expectation_and_is_the_same_for_the_same_order():
    course = make_course(1, 64, 64, dropout=0.25)
    masks = [next(masks) for masks in [dropout_masks(course, (400, 300))] * 2]
    again = next(dropout_masks(course, (400, 300)))
    assert [mask.shape for mask in masks[0]] == [(400, 64), (300, 64)]
    for mask, same, other in zip(masks[0], again, masks[1], strict=True):
        assert torch.equal(mask, same)
        assert not torch.equal(mask, other)
        assert mask.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
        assert float(mask.mean()) == pytest.approx(1, abs=0.02)


def test_an_unknown_option_of_an_optimizer_is_an_error(random_networks):
    course = make_course(1, 64, 64, optimizer_options={"momentum": 0.9})
    with pytest.raises(TypeError, match="momentum"):
        train(SPEC, random_networks(SPEC, 1, 0), course)
