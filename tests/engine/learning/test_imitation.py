"""What a pupil imitates, and that no pupil depends on another one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.config import LearningConfig
from engine.learning.course import Course
from engine.learning.imitation import Lessons, Pupil, imitate
from engine.learning.repair import refit_output
from engine.learning.training import train
from populations.network import NetworkSpec
from populations.plans import FineTune

torch.set_num_threads(1)
SPEC = NetworkSpec((4,), (9,), 3)
LEARNING = LearningConfig(batch_size=32, validation_every=4)
ORDER = (1, 9, 2, 3)
PLAIN = FineTune("teachers", 10, 3e-3, 1.0, 0.0, (0.25, 0.75), repair=True)


def make_lessons(spec=SPEC, n_teachers=2, n_train=70, n_validation=32):
    rng = np.random.default_rng(5)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return Lessons(
        normal(n_train, spec.n_inputs),
        normal(n_teachers, spec.n_actions, n_train),
        normal(n_validation, spec.n_inputs),
        normal(n_teachers, spec.n_actions, n_validation),
    )


def own_targets(lessons, seed):
    """Return values of a parent, as if it were one more teacher."""
    rng = np.random.default_rng(seed)
    return tuple(
        rng.standard_normal(values.shape[1:]).astype(np.float32)
        for values in (lessons.train_targets, lessons.validation_targets)
    )


def assert_equal_networks(first, second):
    for name in first:
        assert first[name].tobytes() == second[name].tobytes(), name


def test_repair_alone_fits_the_weighted_mean_of_the_teachers(random_networks):
    lessons = make_lessons()
    weights = random_networks(SPEC, 1, 0)
    # Without any further training, and validated on the same states, the refit is what is best.
    lessons = replace(
        lessons,
        validation_states=lessons.train_states[:64],
        validation_targets=lessons.train_targets[:, :, :64],
    )
    pupil = Pupil(weights[0], replace(PLAIN, steps=0))
    (network,), divergence = imitate(SPEC, [pupil], lessons, LEARNING, ORDER)
    mean = 0.25 * lessons.train_targets[0] + 0.75 * lessons.train_targets[1]
    (expected,) = refit_output(SPEC, weights, lessons.train_states, mean[None], LEARNING.ridge)
    for name in SPEC.shapes:
        np.testing.assert_allclose(network[name], expected[name], rtol=1e-5, atol=1e-6)
    assert divergence.shape == (1,)
    untouched = Pupil(weights[0], replace(PLAIN, steps=0, repair=False))
    assert imitate(SPEC, [untouched], lessons, LEARNING, ORDER)[1] > divergence


def test_without_repair_and_steps_a_pupil_stays_as_it_is(random_networks):
    (weights,) = random_networks(SPEC, 1, 0)
    pupil = Pupil(weights, replace(PLAIN, steps=0, repair=False))
    (network,), _ = imitate(SPEC, [pupil], make_lessons(), LEARNING, ORDER)
    assert_equal_networks(network, weights)


def test_training_is_the_loop_with_the_settings_of_each_pupil(random_networks):
    lessons = make_lessons()
    weights = random_networks(SPEC, 2, 0)
    recipes = [
        replace(PLAIN, repair=False, teacher_weights=(1.0, 0.0)),
        replace(PLAIN, repair=False, teacher_weights=(0.0, 1.0), learning_rate=1e-2,
                temperature=0.7, hard_weight=0.5),
    ]  # fmt: skip
    pupils = [Pupil(network, recipe) for network, recipe in zip(weights, recipes, strict=True)]
    networks, divergence = imitate(SPEC, pupils, lessons, LEARNING, ORDER)
    course = Course(
        *(lessons.train_states, lessons.train_targets),
        *(lessons.validation_states, lessons.validation_targets),
        steps=10,
        batch_size=32,
        learning_rates=np.array([3e-3, 1e-2], np.float32),
        temperatures=np.array([1.0, 0.7], np.float32),
        hard_weights=np.array([0.0, 0.5], np.float32),
        int8_in_loop=True,
        validation_every=4,
        order=ORDER,
    )
    expected = train(SPEC, weights, course)
    for network, wanted in zip(networks, expected.weights, strict=True):
        assert_equal_networks(network, wanted)
    np.testing.assert_array_equal(divergence, expected.divergence)


def test_a_pupil_of_its_parent_ignores_the_teachers(random_networks):
    lessons = make_lessons()
    (weights,) = random_networks(SPEC, 1, 0)
    own = own_targets(lessons, 0)
    pupil = Pupil(weights, replace(PLAIN, target="better_parent"), own)
    (network,), divergence = imitate(SPEC, [pupil], lessons, LEARNING, ORDER)
    taught = replace(
        lessons, train_targets=np.stack([own[0]] * 2), validation_targets=np.stack([own[1]] * 2)
    )
    equal = Pupil(weights, replace(PLAIN, teacher_weights=(1.0, 0.0)))
    (expected,), wanted = imitate(SPEC, [equal], taught, LEARNING, ORDER)
    assert_equal_networks(network, expected)
    assert divergence == wanted


def test_a_pupil_of_its_parent_needs_the_values_of_a_parent(random_networks):
    (weights,) = random_networks(SPEC, 1, 0)
    pupil = Pupil(weights, replace(PLAIN, target="better_parent"))
    with pytest.raises(ValueError, match="better_parent needs the values of a parent"):
        imitate(SPEC, [pupil], make_lessons(), LEARNING, ORDER)


@pytest.mark.parametrize("int8_in_loop", [False, True])
@pytest.mark.parametrize(
    ("spec", "n_train"),
    [
        (NetworkSpec((4,), (), 2), 70),
        (NetworkSpec((8,), (3,), 1), 33),
        (NetworkSpec((8,), (13, 9), 5, norm="layer"), 101),
        (NetworkSpec((1,), (32, 32), 3), 96),
    ],
)
def test_a_pupil_is_equal_to_the_bit_whatever_its_neighbors(
    random_networks, spec, n_train, int8_in_loop
):
    lessons = make_lessons(spec, n_train=n_train)
    learning = LEARNING.model_copy(update={"int8_in_loop": int8_in_loop})
    rng = np.random.default_rng(1)
    pupils = [
        Pupil(
            network,
            FineTune(
                target="better_parent" if k % 3 == 0 else "teachers",
                steps=6,
                learning_rate=float(rng.uniform(1e-3, 1e-2)),
                temperature=float(rng.uniform(0.5, 2)),
                hard_weight=float(rng.choice([0.0, 0.4])),
                teacher_weights=tuple(rng.dirichlet([1, 1])),
                repair=bool(rng.random() < 0.7),
            ),
            own_targets(lessons, k),
        )
        for k, network in enumerate(random_networks(spec, 64, 0))
    ]
    everyone, divergence = imitate(spec, pupils, lessons, learning, ORDER)
    for n_pupils in (1, 3, 8, 33, 64):
        rows = rng.permutation(64)[:n_pupils]
        some, some_divergence = imitate(spec, [pupils[k] for k in rows], lessons, learning, ORDER)
        assert some_divergence.tobytes() == divergence[rows].tobytes()
        for network, k in zip(some, rows, strict=True):
            assert_equal_networks(network, everyone[k])


def test_arguments_stay_as_they_are(random_networks):
    lessons = make_lessons()
    weights = random_networks(SPEC, 2, 0)
    imitate(SPEC, [Pupil(network, PLAIN) for network in weights], lessons, LEARNING, ORDER)
    for before, after in zip(random_networks(SPEC, 2, 0), weights, strict=True):
        assert_equal_networks(before, after)
    again = make_lessons()
    np.testing.assert_array_equal(lessons.train_targets, again.train_targets)
    np.testing.assert_array_equal(lessons.validation_targets, again.validation_targets)
