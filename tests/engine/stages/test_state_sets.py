"""States to train on: drawn, split from a file, saved; and that no held-out row is trained on."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import StageError
from engine.stages.states import (
    evaluation_states,
    save_state_set,
    split_states,
    synthetic_heldout,
    synthetic_states,
    training_states,
)


def rows(states):
    return {tuple(row) for row in states.tolist()}


def file_of(path, states):
    np.save(path, np.asarray(states, np.float32))
    return path


def numbered(n, start=0):
    """Return n different rows of three numbers."""
    return np.arange(3 * start, 3 * (start + n), dtype=np.float32).reshape(n, 3)


def test_synthetic_states_are_the_documented_rows():
    expected = np.random.default_rng(42).standard_normal((1000, 8)).astype(np.float32)
    np.testing.assert_array_equal(synthetic_states(1000, 8, 42), expected)


def test_fewer_synthetic_states_are_the_first_of_more():
    for draw in (synthetic_states, synthetic_heldout):
        np.testing.assert_array_equal(draw(10, 4, 7), draw(100, 4, 7)[:10])


@pytest.mark.parametrize("seed", [0, 42])
def test_synthetic_held_out_rows_are_never_training_rows(seed):
    heldout = synthetic_heldout(2000, 4, seed)
    assert not rows(heldout) & rows(synthetic_states(20_000, 4, seed))
    assert abs(float(heldout.mean())) < 0.05
    assert abs(float(heldout.std()) - 1) < 0.05


def test_synthetic_training_states_come_with_as_many_held_out():
    states = training_states(500, 3, 42)
    np.testing.assert_array_equal(states.train, synthetic_states(500, 3, 42))
    np.testing.assert_array_equal(states.heldout, synthetic_heldout(500, 3, 42))
    assert (states.source, states.seed) == ("synthetic", 42)
    assert len(training_states(5, 3, 42).heldout) == 32


def test_without_a_seed_states_are_fresh():
    first, second = training_states(50, 3, None), training_states(50, 3, None)
    assert not rows(first.train) & (rows(second.train) | rows(first.heldout))


def test_a_file_is_split_before_training_and_the_rest_subsampled(tmp_path):
    file = file_of(tmp_path / "states.npy", numbered(1000))
    states = training_states(300, 3, 1, file)
    assert states.train.shape == (300, 3)
    assert states.heldout.shape == (100, 3)
    assert states.train.dtype == states.heldout.dtype == np.float32
    assert not rows(states.train) & rows(states.heldout)
    assert rows(states.train) | rows(states.heldout) <= rows(numbered(1000))
    assert states.source == str(file)
    for part in (states.train, states.heldout):
        assert (np.diff(part[:, 0]) > 0).all()  # in the order of the file
        assert 300 < part[:, 0].mean() / 3 < 700  # from all over the file


def test_what_is_held_out_does_not_depend_on_how_much_is_trained_on(tmp_path):
    file = file_of(tmp_path / "states.npy", numbered(400))
    some, everything = (training_states(n, 3, 1, file) for n in (50, None))
    np.testing.assert_array_equal(some.heldout, everything.heldout)
    assert rows(everything.train) | rows(everything.heldout) == rows(numbered(400))
    other = training_states(None, 3, 2, file)
    assert rows(other.heldout) != rows(everything.heldout)


@settings(max_examples=30)
@given(
    kinds=st.lists(st.integers(0, 40), min_size=64, max_size=200).filter(lambda x: len(set(x)) > 1),
    seed=st.integers(0, 5),
    n_states=st.none() | st.integers(2, 100),
)
def test_copies_of_a_row_stay_together(kinds, seed, n_states):
    states = np.array(kinds, np.float32)[:, None].repeat(2, axis=1)
    states[::2, 1] = np.where(states[::2, 1] == 0, -0.0, states[::2, 1])  # equal to 0
    split = split_states(states, n_states, seed, "states.npy")
    assert len(split.train) > 0
    assert len(split.heldout) > 0
    assert not rows(split.train + 0) & rows(split.heldout + 0)
    if n_states is None:
        assert len(split.train) + len(split.heldout) == len(states)


def test_at_least_32_rows_are_held_out():
    for n, expected in ((64, 32), (100, 32), (1000, 100)):
        assert len(split_states(numbered(n), None, 0, "x").heldout) == expected
    assert len(split_states(numbered(10), None, 0, "x").heldout) == 5  # or half of them


@pytest.mark.parametrize("n", [0, 1, 63])
def test_a_file_with_too_few_rows_is_refused(tmp_path, n):
    file = file_of(tmp_path / "few.npy", numbered(n))
    for read in (
        lambda: training_states(100, 3, 0, file),
        lambda: evaluation_states([], 100, 3, 0, file),
        lambda: evaluation_states([], 100, 3, 0, file, use_training_states=True),
    ):
        with pytest.raises(StageError, match=rf"few\.npy: expected at least 64 states, not {n}"):
            read()


def test_other_files_are_refused_by_name(tmp_path):
    with pytest.raises(StageError, match=r"lost\.npy: expected a \.npy file .* there is none"):
        training_states(100, 3, 0, tmp_path / "lost.npy")
    wide = file_of(tmp_path / "wide.npy", np.zeros((100, 5)))
    with pytest.raises(StageError, match=r"wide\.npy: .*shape \(N, 3\), not \(100, 5\)"):
        evaluation_states([], 100, 3, 0, wide)
    same = file_of(tmp_path / "same.npy", np.ones((100, 3)))
    with pytest.raises(StageError, match=r"same\.npy: expected at least 2 different states.*not 1"):
        training_states(100, 3, 0, same)


@pytest.mark.parametrize("n_states", [-1, 0, 1, None])
def test_numbers_of_states_that_are_too_small_are_refused(n_states):
    with pytest.raises(StageError, match="--n-states: expected"):
        training_states(n_states, 3, 0)
    with pytest.raises(StageError, match="--n-states: expected at least 2 states"):
        evaluation_states([], n_states, 3, 0)


def test_equal_sets_are_saved_as_equal_bytes_and_read_without_pickle(tmp_path):
    states = training_states(100, 3, 0)
    for folder in ("one", "two"):
        save_state_set(tmp_path / folder, states)
    one, two = ((tmp_path / folder / "states.npz").read_bytes() for folder in ("one", "two"))
    assert one == two
    with np.load(tmp_path / "one" / "states.npz", allow_pickle=False) as archive:
        assert sorted(archive) == ["heldout", "train"]
        np.testing.assert_array_equal(archive["train"], states.train)
        np.testing.assert_array_equal(archive["heldout"], states.heldout)
    assert json.loads(json.dumps(states.record())) == states.record()
    assert states.record()["train_sha256"] != states.record()["heldout_sha256"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StageError, match=r"states\.npz: cannot be written"):
        save_state_set(tmp_path / "file", training_states(100, 3, 0))
