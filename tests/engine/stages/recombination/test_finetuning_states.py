import numpy as np
import pytest

from engine.errors import StageError
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.recombination.finetuning_states import states_for_child
from engine.stages.roles import load_role, save_role, sidecar
from engine.stages.state_sets import StateSet, save_state_set, synthetic_states, training_states

SPEC = teacher_spec(3, 2, 4)


def rows(n, seed):
    return np.random.default_rng(seed).standard_normal((n, 3)).astype(np.float32)


def saved(directory, name, states=None):
    """Return a network that was trained on some states, read back from its folder."""
    directory.mkdir(exist_ok=True)
    record = None if states is None else states.record()
    if states is not None:
        save_state_set(directory, states)
    about = sidecar("student", SPEC, 0.05, states=record)
    save_role(directory / f"{name}.pt", Network(SPEC, initial_weights(SPEC, 0)), about)
    return load_role(name, directory / f"{name}.pt")


def as_set(states):
    return {tuple(row) for row in states.tolist()}


def test_parents_without_states_have_children_of_the_documented_rows(tmp_path):
    parents = [saved(tmp_path, name) for name in "ab"]
    states = states_for_child(parents, None, None, 42)
    assert states.source == "synthetic"
    expected = np.random.default_rng(42).standard_normal((1000, 3)).astype(np.float32)
    np.testing.assert_array_equal(states.train, expected)


def test_synthetic_states_of_parents_are_not_taken_over(tmp_path):
    parents = [saved(tmp_path, name, training_states(70, 3, 7)) for name in "ab"]
    states = states_for_child(parents, None, 50, 42)
    np.testing.assert_array_equal(states.train, synthetic_states(50, 3, 42))


def test_children_train_on_the_states_of_their_parents(tmp_path):
    of_parents = StateSet(rows(90, 0), rows(40, 1), "replay.npy", 5)
    parents = [saved(tmp_path, name, of_parents) for name in "ab"]
    states = states_for_child(parents, None, None, 42)
    np.testing.assert_array_equal(states.train, of_parents.train)
    np.testing.assert_array_equal(states.heldout, of_parents.heldout)
    assert states.record() == of_parents.record()
    fewer = states_for_child(parents, None, 20, 42)
    assert len(fewer.train) == 20
    assert as_set(fewer.train) < as_set(of_parents.train)
    np.testing.assert_array_equal(fewer.heldout, of_parents.heldout)


def test_states_of_two_parents_are_joined_and_nothing_trained_on_is_held_out(tmp_path):
    shared = rows(10, 4)  # held out by A, and trained on by B
    of_a = StateSet(rows(90, 0), np.concatenate([rows(40, 1), shared]), "a.npy", 5)
    of_b = StateSet(np.concatenate([rows(80, 2), shared]), rows(30, 3), "b.npy", 5)
    parents = [saved(tmp_path / "a", "a", of_a), saved(tmp_path / "b", "b", of_b)]
    states = states_for_child(parents, None, None, 42)
    assert states.source == "a.npy, b.npy"
    assert as_set(states.train) == as_set(of_a.train) | as_set(of_b.train)
    assert as_set(states.heldout) == as_set(rows(40, 1)) | as_set(rows(30, 3))


def test_parents_that_held_out_what_the_other_was_trained_on_are_refused(tmp_path):
    one, other = rows(40, 0), rows(40, 1)
    parents = [
        saved(tmp_path / "a", "a", StateSet(one, other, "a.npy", 5)),
        saved(tmp_path / "b", "b", StateSet(other, one, "b.npy", 5)),
    ]
    with pytest.raises(StageError, match=r"a.npy, b.npy: .* no states are left .* --states-file"):
        states_for_child(parents, None, None, 42)


def test_a_file_comes_first_and_is_split(tmp_path):
    np.save(tmp_path / "s.npy", rows(100, 8))
    parents = [saved(tmp_path, name, StateSet(rows(90, 0), rows(40, 1), "r", 5)) for name in "ab"]
    told = []
    states = states_for_child(parents, None, None, 42, tmp_path / "s.npy", told.append)
    assert as_set(states.train) | as_set(states.heldout) == as_set(rows(100, 8))
    assert not as_set(states.train) & as_set(states.heldout)
    assert told == [f"states: {tmp_path / 's.npy'}, 68 to train, 32 held out"]


def test_states_that_are_gone_are_told(tmp_path):
    parents = [saved(tmp_path, name, StateSet(rows(90, 0), rows(40, 1), "r", 5)) for name in "ab"]
    (tmp_path / "states.npz").unlink()
    with pytest.raises(StageError, match=r"states.npz with the states that a.pt was trained on"):
        states_for_child(parents, None, None, 42)
