"""States to judge networks on, without those that they were trained on."""

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import StageError
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.roles import Role, load_role, save_role, sidecar
from engine.stages.states import (
    StateSet,
    evaluation_states,
    save_state_set,
    synthetic_heldout,
    synthetic_states,
    training_states,
)

SPEC = teacher_spec(3, 2, 4)


def rows(states):
    return {tuple(row) for row in states.tolist()}


def file_of(path, states):
    np.save(path, np.asarray(states, np.float32))
    return path


def numbered(n, start=0):
    """Return n different rows of three numbers."""
    return np.arange(3 * start, 3 * (start + n), dtype=np.float32).reshape(n, 3)


def trained(directory, name, states, seed=0, **fields):
    """Write a network whose sidecar says that it was trained on some states, and read it."""
    save_state_set(directory, states)
    return trained_on(directory, name, states.record(), seed, **fields)


def trained_on(directory, name, record, seed=0, **fields):
    network = Network(SPEC, initial_weights(SPEC, seed))
    path = directory / f"{name}.pt"
    save_role(path, network, sidecar("student", SPEC, 0.05, states=record, **fields))
    return load_role(name, path)


def test_recorded_held_out_rows_are_used_first(tmp_path):
    file = file_of(tmp_path / "replay.npy", numbered(400))
    states = training_states(None, 3, 1, file)
    role = trained(tmp_path, "student_A", states)
    judged = evaluation_states([role], 1000, 3, 42)
    np.testing.assert_array_equal(judged.states, states.heldout)
    assert judged.held_out is True
    assert judged.n_left_out == 0
    assert judged.source == "held out when student_A was trained"
    few = evaluation_states([role], 10, 3, 42)
    assert len(few.states) == 10
    assert rows(few.states) <= rows(states.heldout)


def test_rows_that_other_roles_were_trained_on_are_left_out(tmp_path):
    first = StateSet(numbered(100), numbered(50, 100), "a.npy", 0)
    second = StateSet(numbered(100, 120), numbered(50, 300), "b.npy", 0)  # has 30 of those 50
    roles = [
        trained(tmp_path / "a", "student_A", first, 0),
        trained(tmp_path / "b", "student_B", second, 1),
    ]
    judged = evaluation_states(roles, 1000, 3, 42)
    np.testing.assert_array_equal(judged.states, numbered(20, 100))
    assert (judged.n_left_out, judged.held_out) == (30, True)


def test_a_file_is_used_without_the_rows_that_were_trained_on(tmp_path):
    states = StateSet(numbered(100), numbered(50, 100), "a.npy", 0)
    role = trained(tmp_path, "student_A", states)
    file = file_of(tmp_path / "all.npy", numbered(180))
    judged = evaluation_states([role], 10, 3, 42, file)
    np.testing.assert_array_equal(judged.states, numbered(80, 100))  # all of them
    assert (judged.n_left_out, judged.held_out, judged.source) == (100, True, str(file))
    assert judged.record() == {
        "source": str(file),
        "n_states": 80,
        "input_dim": 3,
        "sha256": judged.sha256,
        "held_out": True,
        "n_left_out": 100,
        "note": "",
    }


@pytest.mark.parametrize("n_left", [0, 1])
def test_too_few_rows_are_an_error_that_names_the_flag(tmp_path, n_left):
    role = trained(tmp_path, "student_A", StateSet(numbered(100), numbered(9, 200), "a.npy", 0))
    file = file_of(tmp_path / "same.npy", numbered(100 - n_left, n_left + n_left))
    message = rf"same\.npy: of these {100 - n_left} states, {n_left} were not used in training stu"
    with pytest.raises(StageError, match=rf"{message}.*--use-training-states"):
        evaluation_states([role], 100, 3, 42, file)
    judged = evaluation_states([role], 100, 3, 42, file, use_training_states=True)
    assert len(judged.states) == 100 - n_left
    assert judged.held_out is False


def test_without_records_fresh_rows_are_drawn(tmp_path):
    role = trained_on(tmp_path, "parent_A", None)
    judged = evaluation_states([role], 100, 3, 42)
    np.testing.assert_array_equal(judged.states, synthetic_heldout(100, 3, 42))
    assert (judged.source, judged.held_out) == ("synthetic", True)


def test_training_rows_are_used_on_demand_and_marked(tmp_path):
    states = training_states(500, 3, 42)
    role = trained(tmp_path, "student_A", states)
    parent = Role("parent_A", None, role.network)
    judged = evaluation_states([parent, role], 100, 3, 7, use_training_states=True)
    np.testing.assert_array_equal(judged.states, synthetic_states(100, 3, 42))
    assert judged.held_out is False
    assert "--use-training-states" in judged.note
    bare = evaluation_states([parent], 100, 3, 7, use_training_states=True)
    np.testing.assert_array_equal(bare.states, synthetic_states(100, 3, 7))
    assert bare.held_out is False


def test_roles_without_a_sidecar_leave_it_unknown_whether_rows_are_held_out(tmp_path):
    role = trained(tmp_path, "student_A", StateSet(numbered(100), numbered(50, 100), "a", 0))
    parent = Role("parent_A", Path("parent_A.pt"), role.network)
    judged = evaluation_states([parent, role], 100, 3, 42)
    assert judged.held_out is None
    assert "parent_A.pt has no sidecar" in judged.note
    np.testing.assert_array_equal(judged.states, numbered(50, 100))


def test_rows_that_a_source_was_trained_on_are_left_out_too(tmp_path):
    student = trained(
        tmp_path / "distilled", "student_A", StateSet(numbered(100), numbered(9, 200), "a", 0)
    )
    folder = tmp_path / "quantized"
    sources = {"student": student.source(folder)}
    quantized = trained_on(folder, "student_A_int8", None, 1, sources=sources)
    file = file_of(tmp_path / "all.npy", numbered(150))
    judged = evaluation_states([quantized], None, 3, 42, file)
    np.testing.assert_array_equal(judged.states, numbered(50, 100))
    assert judged.held_out is True
    own = evaluation_states([quantized], 100, 3, 42)
    np.testing.assert_array_equal(own.states, numbered(9, 200))
    (tmp_path / "distilled" / "student_A.pt").unlink()
    judged = evaluation_states([quantized], None, 3, 42, file)
    assert judged.held_out is None
    assert "student_A.pt is not there any more" in judged.note


def test_synthetic_rows_are_drawn_again_where_their_file_is_gone(tmp_path):
    states = training_states(200, 3, 5)
    role = trained(tmp_path, "student_A", states)
    save_state_set(tmp_path, training_states(70, 3, 6))  # a later run into the same folder
    judged = evaluation_states([role], 200, 3, 42)
    np.testing.assert_array_equal(judged.states, states.heldout)
    (tmp_path / "states.npz").unlink()
    file = file_of(tmp_path / "all.npy", np.concatenate([states.train, states.heldout]))
    judged = evaluation_states([role], 200, 3, 42, file)
    np.testing.assert_array_equal(judged.states, states.heldout)
    assert (judged.n_left_out, judged.held_out) == (200, True)


def test_other_rows_whose_file_is_gone_leave_it_unknown(tmp_path):
    role = trained(tmp_path, "student_A", StateSet(numbered(100), numbered(50, 100), "a.npy", 0))
    (tmp_path / "states.npz").unlink()
    file = file_of(tmp_path / "all.npy", numbered(150))
    judged = evaluation_states([role], None, 3, 42, file)
    assert (len(judged.states), judged.held_out) == (150, None)
    assert "the states that student_A was trained on are not in" in judged.note


def test_normal_rows_never_stand_in_for_others_that_are_gone(tmp_path):
    role = trained(tmp_path, "student_A", StateSet(numbered(100), numbered(50, 100), "a.npy", 0))
    (tmp_path / "states.npz").unlink()
    expected = r"states\.npz: expected the states .* student_A was trained, .*give .*--states-file"
    with pytest.raises(StageError, match=expected):
        evaluation_states([role], 80, 3, 42)


def test_normal_rows_do_not_judge_a_network_that_plays(tmp_path):
    role = trained_on(tmp_path, "parent_A", None, environment="CartPole-v1")
    with pytest.raises(StageError, match=r"parent_A\.pt plays CartPole-v1, but .*--states-file"):
        evaluation_states([role], 80, 3, 42)
    file = file_of(tmp_path / "some.npy", numbered(70))
    assert len(evaluation_states([role], 80, 3, 42, file).states) == 70
    assert evaluation_states([role], 80, 3, 42, use_training_states=True).held_out is False


def test_an_ancestor_without_a_sidecar_may_have_been_trained_on_anything(tmp_path):
    teacher = trained_on(tmp_path, "parent_A", None, 1)
    states = StateSet(numbered(100), numbered(50, 100), "a.npy", 0)
    sources = {"teacher": teacher.source(tmp_path)}
    role = trained(tmp_path, "student_A", states, sources=sources)
    assert evaluation_states([role], 80, 3, 42).held_out is True
    (tmp_path / "parent_A.pt.json").unlink()
    judged = evaluation_states([role], 80, 3, 42)
    assert judged.held_out is None
    assert judged.note.endswith("parent_A.pt has no sidecar")


def test_what_parents_saw_while_they_learned_is_told(tmp_path):
    replay = {"file": "replay_states_A.npy", "sha256": "0ff1ce"}
    parent = trained_on(tmp_path, "parent_A", None, 1, replay_states=replay)
    states = StateSet(numbered(100), numbered(50, 100), "a.npy", 0)
    sources = {"teacher": parent.source(tmp_path)}
    role = trained(tmp_path, "student_A", states, sources=sources)
    judged = evaluation_states([parent, role], 80, 3, 42)
    assert judged.held_out is True
    seen = "the parents may have seen some of these states while they learned to play"
    assert judged.note == seen
    (tmp_path / "states.npz").unlink()
    file = file_of(tmp_path / "some.npy", numbered(70))
    judged = evaluation_states([role], 80, 3, 42, file)
    assert judged.note.endswith(f"not in {tmp_path} any more; {seen}")


def test_a_child_that_a_search_chose_is_told_of(tmp_path):
    states = StateSet(numbered(100), numbered(50, 100), "a.npy", 0)
    role = trained(tmp_path, "child", states)
    config = tmp_path / "run_config.json"
    config.write_text(json.dumps({"files": {"child.pt": role.sha256, "eval_report.json": "0"}}))
    told = "a search may have chosen child on some of these states"
    assert evaluation_states([role], 80, 3, 42).note == told
    folder = tmp_path / "further"
    tuned = trained(folder, "child", states, 1, sources={"child": role.source(folder)})
    assert evaluation_states([tuned], 80, 3, 42).note == told
    for other in ('{"files": {"child.pt": "0"}}', '{"files": 3}', "[]", "{"):
        config.write_text(other)
        assert evaluation_states([role], 80, 3, 42).note == ""


@pytest.mark.parametrize("use_training_states", [False, True])
def test_one_row_judges_nothing(tmp_path, use_training_states):
    role = trained(tmp_path, "student_A", StateSet(numbered(100), numbered(50, 100), "a.npy", 0))
    with pytest.raises(StageError, match="--n-states: expected at least 2 states, not 1"):
        evaluation_states([role], 1, 3, 42, use_training_states=use_training_states)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"hello"),
        lambda path: path.write_bytes(path.read_bytes().replace(b"(100, 3)", b"(-10, 3)")),
        lambda path: path.write_bytes(path.read_bytes().replace(b"3), }", b"3),  ")),
        lambda path: np.savez(path, train=numbered(5)),
        lambda path: np.savez(path, train=numbered(5), heldout=np.array([{}], dtype=object)),
        lambda path: np.savez(path, train=numbered(5), heldout=np.zeros(5)),
    ],
)
def test_a_damaged_record_is_an_error_that_names_it(tmp_path, damage):
    role = trained(tmp_path, "student_A", StateSet(numbered(100), numbered(50, 100), "a.npy", 0))
    damage(tmp_path / "states.npz")
    with pytest.raises(StageError, match=r"states\.npz: expected the states .* damaged"):
        evaluation_states([role], 100, 3, 42)


def test_roles_of_another_width_are_refused(tmp_path):
    role = trained(tmp_path, "student_A", training_states(100, 3, 0))
    with pytest.raises(StageError, match=r"student_A was trained on states of 3 numbers.* have 8"):
        evaluation_states([role], 100, 8, 42)
