from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.errors import StageError
from engine.stages.imitation.config import ImitationConfig
from engine.stages.imitation.goal import mixture
from engine.stages.imitation.jobs import Job, imitate, split
from engine.stages.networks import (
    STUDENT_DROPOUT,
    Network,
    initial_weights,
    student_spec,
    teacher_spec,
)
from populations.genome import Genome, Lineage

TEACHER = teacher_spec(8, 4, 64)
STUDENT = student_spec(TEACHER)
TINY = replace(TEACHER, hidden=(6, 5))


def network(spec, seed):
    return Network(spec, initial_weights(spec, seed))


def states_of(n_states, seed=0):
    return np.random.default_rng(seed).standard_normal((n_states, 8)).astype(np.float32)


def agreement(one, other, states):
    return float((one.q_values(states).argmax(1) == other.q_values(states).argmax(1)).mean())


@pytest.mark.parametrize(
    ("alpha", "documented_agreement", "documented_similarity", "documented_loss"),
    [(0.0, 0.934, 0.814, 0.145), (0.7, 0.932, 0.981, 0.162), (1.0, 0.932, 0.989, 0.015)],
)
def test_distillation_reaches_the_documented_figures(
    alpha, documented_agreement, documented_similarity, documented_loss
):
    # The document's comparison of distillation modes, with its seeds.
    teacher, start = network(TEACHER, 42), network(STUDENT, 20_042)
    config = ImitationConfig(alpha=alpha, epochs=25, batch_size=64, seed=30_042, calibration="none")
    [done] = imitate(
        [Job(start, (teacher,), config, dropout=STUDENT_DROPOUT)], states_of(5000, 10_042)
    )
    last = done.looks[-1]
    assert last.agreement == pytest.approx(documented_agreement, abs=0.02)
    assert last.similarity == pytest.approx(documented_similarity, abs=0.01)
    assert done.best_loss == pytest.approx(documented_loss, abs=0.005)


def test_imitating_two_networks_has_the_gradient_of_their_two_divergences():
    rng = np.random.default_rng(0)
    values = (5 * rng.standard_normal((2, 30, 4))).astype(np.float32)
    shares, temperature = (0.3, 0.7), 2.0
    z = torch.tensor(rng.standard_normal((30, 4)), requires_grad=True)

    def divergence(targets):
        log_q = functional.log_softmax(z / temperature, dim=1)
        p = functional.softmax(torch.from_numpy(targets).double() / temperature, dim=1)
        return functional.kl_div(log_q, p, reduction="batchmean") * temperature**2

    both = sum(share * divergence(row) for share, row in zip(shares, values, strict=True))
    [expected] = torch.autograd.grad(both, z)
    mixed = mixture(values, [np.float32(share) for share in shares], temperature)
    [found] = torch.autograd.grad(divergence(mixed), z)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_network_without_a_share_does_not_count():
    values = np.random.default_rng(0).standard_normal((2, 9, 3)).astype(np.float32)
    mixed = mixture(values, [np.float32(1), np.float32(0)], 3.0)
    torch.testing.assert_close(
        functional.softmax(torch.from_numpy(mixed) / 3, dim=1),
        functional.softmax(torch.from_numpy(values[0]) / 3, dim=1),
    )


def test_outcomes_do_not_depend_on_what_is_trained_beside_them():
    teachers = [network(TEACHER, seed) for seed in (0, 1)]
    config = ImitationConfig(epochs=2, seed=3)
    jobs = [
        Job(network(TINY, 2), (teachers[0],), config, dropout=0.05),
        Job(network(TINY, 2), (teachers[1],), replace(config, learning_rate=1e-4), dropout=0.05),
        Job(network(TINY, 4), tuple(teachers), config, (0.5, 0.5), dropout=0.05),
        Job(network(STUDENT, 2), (teachers[0],), config, dropout=0.05),
        Job(network(TINY, 2), (teachers[0],), replace(config, epochs=3), dropout=0.05),
        Job(network(TINY, 2), (teachers[0],), config, dropout=0.05, int8=True),
    ]
    states = states_of(150)
    together = imitate(jobs, states)
    for job, outcome in zip(jobs, together, strict=True):
        [alone] = imitate([job], states)
        assert repr(alone.looks) == repr(outcome.looks)
        for name, tensor in alone.network.weights.items():
            assert tensor.tobytes() == outcome.network.weights[name].tobytes()


def test_a_copy_of_the_reference_stays_what_it_is():
    teacher = network(TINY, 0)
    config = ImitationConfig(epochs=2, calibration="none")
    [done] = imitate([Job(teacher, (teacher,), config)], states_of(200))
    assert done.best_epoch == -1
    assert done.metrics()["initial_action_agreement"] == 1
    for name, tensor in teacher.weights.items():
        np.testing.assert_array_equal(done.network.weights[name], tensor)


@pytest.mark.parametrize("shift", [0.0, 87.0])
def test_calibration_gives_back_the_scale_and_keeps_the_preferences(shift):
    teacher = network(TEACHER, 1)
    bias = {"network.8.bias": teacher.weights["network.8.bias"] + np.float32(shift)}
    teacher = Network(TEACHER, {**teacher.weights, **bias})
    states, fresh = states_of(1000), states_of(2000, 1)
    outcomes = {}
    for calibration in ("none", "value", "output"):
        config = ImitationConfig(epochs=8, calibration=calibration)
        [outcomes[calibration]] = imitate([Job(network(STUDENT, 5), (teacher,), config)], states)
    plain, value, output = (outcomes[name].network for name in ("none", "value", "output"))

    def error(found):
        return float(np.square(found.q_values(fresh) - teacher.q_values(fresh)).mean())

    def centered(found):
        q = found.q_values(fresh)
        return q - q.mean(axis=1, keepdims=True)

    np.testing.assert_allclose(centered(value), centered(plain), atol=1e-3)
    assert error(value) < error(plain)
    assert error(value) < 0.5
    assert outcomes["output"].calibrated == "output"
    assert agreement(output, teacher, fresh) > agreement(plain, teacher, fresh) - 0.01
    assert error(output) < error(value)


def test_normalized_teachers_are_imitated_whatever_their_scale():
    teacher = network(TEACHER, 1)
    large = {
        name: tensor * np.float32(1000) if name.startswith("network.8") else tensor
        for name, tensor in teacher.weights.items()
    }
    states, fresh = states_of(1000), states_of(2000, 1)
    config = ImitationConfig(epochs=8, normalise_q=True)
    agreements = []
    for reference in (teacher, Network(TEACHER, large)):
        [done] = imitate([Job(network(STUDENT, 5), (reference,), config)], states)
        q, wanted = done.network.q_values(fresh), reference.q_values(fresh)
        assert np.square(q - wanted).mean() < 0.3 * np.square(wanted).mean()
        agreements.append(agreement(done.network, reference, fresh))
    assert agreements[0] == pytest.approx(agreements[1], abs=0.02)
    assert min(agreements) > 0.75


def test_training_through_int8_measures_what_the_genome_plays():
    teacher = network(TEACHER, 1)
    config = ImitationConfig(epochs=3, calibration="none")
    [done] = imitate([Job(network(STUDENT, 5), (teacher,), config, int8=True)], states_of(640))
    genome = Genome.from_weights(STUDENT, done.network.weights, Lineage("student", 0, 0))
    played = Network(STUDENT, genome.to_weights())
    validation = states_of(640)[done.validation]
    look = done.looks[done.best_epoch + 1]
    assert agreement(played, teacher, validation) == pytest.approx(look.agreement, abs=1e-6)


def test_states_are_split_as_documented():
    rng = np.random.RandomState(7)
    order = rng.permutation(50)
    train, validation = split(50, ImitationConfig(seed=7, val_fraction=0.1))
    np.testing.assert_array_equal(train, order[:45])
    np.testing.assert_array_equal(validation, order[45:])
    train, validation = split(50, ImitationConfig(val_fraction=0.0))
    assert len(train) == len(validation) == 50


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a positive number, not 0.0"),
        ({"temp_decay": 1.5}, "temp_decay must be above 0"),
        ({"alpha": -0.1}, "alpha must be from 0 to 1"),
        ({"alpha": float("nan")}, "alpha must be from 0 to 1, not nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be a positive number"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"loss_fn": "huber"}, "loss_fn must be kl or mse"),
        ({"optimizer": "lion"}, "optimizer must be one of adam"),
        ({"optimizer_kwargs": {"momentum": 0.9}}, "optimizer_kwargs of adam may be weight_decay"),
        ({"optimizer_kwargs": {"weight_decay": -1}}, "weight_decay must be a finite number of at"),
        ({"optimizer_kwargs": {"weight_decay": float("inf")}}, "must be a finite number"),
        (
            {"optimizer": "sgd", "optimizer_kwargs": {"momentum": 1.0}},
            "momentum must be a finite number of at least 0 and below 1, not 1.0",
        ),
        ({"lr_schedule_factor": 1.0}, "lr_schedule_factor"),
    ],
)
def test_a_setting_out_of_its_range_is_named(setting, message):
    with pytest.raises(StageError, match=message):
        ImitationConfig(**setting)


def test_networks_that_do_not_fit_are_refused():
    other = network(teacher_spec(8, 3, 16), 0)
    with pytest.raises(StageError, match="4 actions, but the one to imitate 8 and 3"):
        imitate([Job(network(TINY, 0), (other,), ImitationConfig())], states_of(64))
    two = (network(TINY, 1), network(TINY, 2))
    for changes in ({"alpha": 0.5}, {"temp_decay": 0.9}):
        job = Job(network(TINY, 0), two, ImitationConfig(**changes), (0.5, 0.5))
        with pytest.raises(StageError, match="two networks are imitated with alpha 1 and temp"):
            imitate([job], states_of(64))
    with pytest.raises(StageError, match="at least 2 states"):
        imitate([Job(network(TINY, 0), (network(TINY, 1),), ImitationConfig())], states_of(1))
