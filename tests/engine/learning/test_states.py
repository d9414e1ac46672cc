"""States, splits, teacher values and targets, checked against their formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config import RunConfig
from engine.errors import StatesError
from engine.learning.qnetwork import sequential
from engine.learning.states import (
    collect_states,
    even_shares,
    load_states,
    split_states,
    teacher_values,
)
from engine.learning.targets import targets
from engine.learning.teachers import Teacher
from engine.playing.environments import describe
from populations.network import NetworkSpec

torch.set_num_threads(1)
SPEC = NetworkSpec((4,), (8,), 2, norm="layer")


def random_weights(spec, seed):
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in spec.shapes.items()
    }


def random_teachers(n_teachers):
    return [Teacher(f"teacher-{i}", SPEC, random_weights(SPEC, i)) for i in range(n_teachers)]


def cartpole(**states):
    config = RunConfig.model_validate({"states": states})
    return config, describe(config.environment)


def test_collected_states_are_the_requested_number_and_repeat_exactly():
    config, task = cartpole(size=100, episodes=8)
    teachers = random_teachers(3)
    states = collect_states(config, task, teachers)
    assert states.shape == (100, 4)
    assert states.dtype == np.float32
    assert np.isfinite(states).all()
    np.testing.assert_array_equal(states, collect_states(config, task, teachers))


def test_collected_states_differ_between_run_seeds():
    config, task = cartpole(size=64, episodes=8)
    other = config.model_copy(update={"seed": 1})
    teachers = random_teachers(1)
    states = collect_states(config, task, teachers)
    assert not np.array_equal(states, collect_states(other, task, teachers))


def test_everything_is_kept_where_teachers_saw_less_than_asked_for():
    config, task = cartpole(size=100_000, episodes=8)
    states = collect_states(config, task, random_teachers(2))
    assert 2 * 8 * 8 <= len(states) < 100_000  # no CartPole episode is shorter than 8 steps


def test_too_few_states_are_refused():
    config, task = cartpole(size=64, episodes=1)
    falls_at_once = {name: np.zeros(shape, np.float32) for name, shape in SPEC.shapes.items()}
    with pytest.raises(StatesError, match=r"only \d+ states of CartPole-v1 in 1 episodes each"):
        collect_states(config, task, [Teacher("teacher-0", SPEC, falls_at_once)])


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 200))
def test_shares_are_as_even_as_the_supply_permits(available, size):
    shares = even_shares(available, size)
    assert sum(shares) == min(size, sum(available))
    assert all(0 <= share <= n for share, n in zip(shares, available, strict=True))
    unexhausted = [s for s, n in zip(shares, available, strict=True) if s < n]
    if unexhausted:
        assert max(shares) - min(unexhausted) <= 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_states_of_any_float_are_read_as_float32(tmp_path, dtype):
    path = tmp_path / "states.npy"
    states = np.random.default_rng(0).standard_normal((70, 4)).astype(dtype)
    np.save(path, states)
    loaded = load_states(path, 4)
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, states.astype(np.float32))


GOOD = np.zeros((70, 4), dtype=np.float32)


def with_value(value):
    states = GOOD.astype(np.float64)
    states[3, 1] = value
    return states


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((70, 3), np.float32), r"shape \(N, 4\), not \(70, 3\)"),
        (np.zeros(280, np.float32), r"shape \(N, 4\), not \(280,\)"),
        (np.zeros((70, 4), np.int64), r"float32 array .*, not int64"),
        (np.zeros((63, 4), np.float32), "at least 64 states, not 63"),
        (np.zeros((0, 4), np.float32), "states"),
        (with_value(np.nan), r"1 rows hold NaN or infinity, the first one is row 3"),
        (with_value(np.inf), "the first one is row 3"),
        (with_value(1e300), "the first one is row 3"),
        (np.array([{}] * 70), "cannot be read: .*[Oo]bject"),
    ],
)
def test_an_array_that_is_not_one_of_states_is_refused(tmp_path, array, message):
    path = tmp_path / "states.npy"
    np.save(path, array)
    with pytest.raises(StatesError, match=message) as caught:
        load_states(path, 4)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_a_file_that_is_not_npy_is_refused(tmp_path, content):
    path = tmp_path / "states.npy"
    path.write_bytes(content)
    with pytest.raises(StatesError, match=r"shape \(N, 4\), but it cannot be read"):
        load_states(path, 4)


def test_a_missing_truncated_or_packed_file_is_refused(tmp_path):
    path = tmp_path / "states.npy"
    with pytest.raises(StatesError, match="but there is none"):
        load_states(path, 4)
    np.save(path, GOOD)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StatesError, match="cannot be read"):
        load_states(path, 4)
    with path.open("wb") as file:
        np.savez(file, states=GOOD)
    with pytest.raises(StatesError, match="cannot be read: the magic string"):
        load_states(path, 4)


@pytest.mark.parametrize(
    "change",
    [
        (b"(70, 4)", b"(-7, 4)"),
        (b"(70, 4), }", b"(70, 4),  "),
        (b"{'descr'", b"(((((((("),
        (b"(70, 4)", b"(7**99)"),
        (b"'<f4'", b"'(((' "),
    ],
)
def test_a_damaged_header_is_refused(tmp_path, change):
    path = tmp_path / "states.npy"
    np.save(path, GOOD)
    content = path.read_bytes()
    assert change[0] in content
    path.write_bytes(content.replace(*change))
    with pytest.raises(StatesError, match=r"states\.npy: .*but it cannot be read"):
        load_states(path, 4)


@given(st.integers(64, 5000), st.floats(0.001, 0.999), st.integers(0, 99))
def test_split_is_disjoint_complete_and_repeatable(n_states, fraction, seed):
    train, validation = split_states(n_states, fraction, (seed, 10))
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(n_states))
    assert min(len(train), len(validation)) >= 32
    assert len(validation) % 32 == 0
    if 32 <= n_states * fraction <= n_states - 48:
        assert abs(len(validation) - n_states * fraction) <= 16
    again = split_states(n_states, fraction, (seed, 10))
    np.testing.assert_array_equal(train, again[0])
    np.testing.assert_array_equal(validation, again[1])


def test_teacher_values_are_those_of_the_plain_modules():
    weights = [random_weights(SPEC, seed) for seed in range(3)]
    states = np.random.default_rng(9).standard_normal((4100, 4)).astype(np.float32)
    values = teacher_values(SPEC, weights, states)
    assert values.shape == (3, 4100, 2)
    assert values.dtype == np.float32
    for k in range(3):
        expected = sequential(SPEC, weights[k])(torch.from_numpy(states)).detach().numpy()
        np.testing.assert_allclose(values[k], expected, rtol=1e-4, atol=1e-4)


def test_advantages_are_centered_and_in_units_of_the_median_gap():
    # Gaps of teacher 0: 1, 3, 8; of teacher 1: ten times as much, at another offset.
    first = np.array([[0, 1, -5], [2, 5, 2], [0, 0, 8]], dtype=np.float32)
    values = np.stack([first, 10 * first + 1000])
    advantages, scales = targets(values, "advantages")
    np.testing.assert_allclose(scales, [3, 30])
    expected = (first - first.mean(axis=1, keepdims=True)) / 3
    np.testing.assert_allclose(advantages[0], expected, rtol=1e-6)
    np.testing.assert_allclose(advantages[1], expected, atol=1e-5)
    assert advantages.dtype == scales.dtype == np.float32


def test_raw_targets_are_the_values_and_still_come_with_scales():
    values = np.random.default_rng(0).standard_normal((2, 50, 3)).astype(np.float32)
    raw, scales = targets(values, "raw")
    np.testing.assert_array_equal(raw, values)
    np.testing.assert_array_equal(scales, targets(values, "advantages")[1])


def test_scale_falls_back_to_the_mean_gap_and_then_to_one():
    mostly_tied = np.array([[1, 1], [2, 2], [0, 6]], dtype=np.float32)
    indifferent = np.ones((3, 2), dtype=np.float32)
    advantages, scales = targets(np.stack([mostly_tied, indifferent]), "advantages")
    np.testing.assert_allclose(scales, [2, 1])
    assert np.isfinite(advantages).all()
