"""Random streams: equal for equal keys, different for different ones."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.seeding import Purpose, episode_seeds, key, stream

KEYS = st.tuples(
    st.integers(0, 2**63 - 1),
    st.sampled_from(Purpose),
    st.lists(st.integers(0, 2**31), max_size=3),
).map(lambda parts: key(parts[0], parts[1], *parts[2]))


def first_numbers(a_key: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(stream(a_key).integers(2**63, size=4).tolist())


@given(KEYS)
def test_equal_keys_give_equal_streams(a_key: tuple[int, ...]) -> None:
    assert first_numbers(a_key) == first_numbers(tuple(a_key))


@given(KEYS, KEYS)
def test_different_keys_give_different_streams(
    first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    assert (first_numbers(first) == first_numbers(second)) == (first == second)


def test_every_part_of_a_key_matters() -> None:
    keys = [
        key(seed, purpose, *path)
        for seed in (0, 1, 2**32, 2**32 + 1, 2**62)
        for purpose in (Purpose.BIRTH, Purpose.SELECTION)
        for path in [(), (0,), (0, 0), (0, 1), (1, 0), (1,), (1, 0, 0)]
    ]
    streams = {first_numbers(a_key) for a_key in keys}
    assert len(streams) == len(keys) == 5 * 2 * 7


def test_streams_of_one_run_do_not_overlap() -> None:
    keys = [key(0, p, g, c) for p in Purpose for g in range(4) for c in range(8)]
    numbers = [first_numbers(a_key) for a_key in keys]
    assert len(set(itertools.chain(*numbers))) == 4 * len(keys)


def test_a_stream_is_that_of_numpys_seed_sequence() -> None:
    expected = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(7, 2, 3)))
    np.testing.assert_array_equal(stream(key(5, Purpose.BIRTH, 2, 3)).random(8), expected.random(8))


def test_streams_are_equal_in_another_process() -> None:
    code = "from engine.seeding import stream; print(stream((3, 5, 1, 2)).integers(2**63, size=4))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(stream((3, 5, 1, 2)).integers(2**63, size=4))


def test_numbers_of_purposes_are_distinct_and_never_change() -> None:
    numbers = {
        "TEACHER_INIT": 1,
        "TEACHER_TRAINING": 2,
        "TEACHER_CHECKPOINTS": 3,
        "STATES": 4,
        "EPISODES": 5,
        "HOLDOUT": 6,
        "BIRTH": 7,
        "SELECTION": 8,
        "MINIBATCHES": 9,
        "SPLIT": 10,
        "ANCESTOR": 11,
        "RETURNS": 12,
    }
    assert numbers.items() <= {purpose.name: int(purpose) for purpose in Purpose}.items()


@given(KEYS, st.integers(0, 200), st.integers(0, 200))
def test_episode_seeds_are_distinct_and_longer_lists_start_with_shorter_ones(
    a_key: tuple[int, ...], n_few: int, n_more: int
) -> None:
    few, many = episode_seeds(a_key, n_few), episode_seeds(a_key, n_few + n_more)
    assert len(set(many)) == len(many) == n_few + n_more
    assert many[:n_few] == few
    assert all(0 <= seed < 2**31 and type(seed) is int for seed in many)


@pytest.mark.parametrize("purpose", [Purpose.EPISODES, Purpose.HOLDOUT, Purpose.STATES])
def test_episodes_of_other_keys_are_others(purpose: Purpose) -> None:
    lists = [episode_seeds(key(seed, purpose, g), 64) for seed in range(3) for g in range(3)]
    assert len(set(itertools.chain(*lists))) == 64 * len(lists)
