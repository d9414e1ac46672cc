import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from engine.errors import StageError
from engine.learning.checkpoints import load_network
from engine.stages.cartpole.parent_settings import ParentSettings
from engine.stages.cartpole.parents import train_parents
from engine.stages.distillation.students import run_distillation
from engine.stages.distillation.teacher_states import states_for_students
from engine.stages.distillation.teachers import (
    LABELS,
    RANDOM,
    Sizes,
    TeacherChoice,
    random_teacher_seed,
    teachers_in,
)
from engine.stages.imitation.config import ImitationConfig
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.roles import save_role, sidecar
from engine.stages.state_sets import states_sha256

SMALL = Sizes(hidden=20)
QUICK = ImitationConfig(epochs=3, seed=5)
TASK = Sizes(4, 2, 16)
CARTPOLE_LIMITS = np.array([2.4, np.inf, 12 * 2 * np.pi / 360, np.inf])  # gymnasium's


def distilled(directory, choice=None, config=QUICK, **settings):
    settings = {"n_states": 300, **settings}
    return run_distillation(
        directory, choice or TeacherChoice(sizes=SMALL, seed=5), config, **settings
    )


def as_torch(path):
    """Return the function of a state dict of ours, computed by torch's own modules."""
    state = {
        name.removeprefix("network."): tensor
        for name, tensor in torch.load(path, weights_only=True).items()
    }
    n_in, hidden, n_out = state["0.weight"].shape[1], len(state["0.bias"]), len(state["8.bias"])
    layers = [nn.Linear(n_in, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout()]
    layers += [nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout()]
    module = nn.Sequential(*layers, nn.Linear(hidden, n_out)).eval()
    module.load_state_dict(state)
    return lambda states: module(torch.from_numpy(states)).detach().numpy()


def teacher_file(path, spec, seed=0, **fields):
    weights = initial_weights(spec, seed)
    save_role(path, Network(spec, weights), sidecar("teacher", spec, 0.1, **fields))
    return path


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_students_are_written_with_what_they_come_from(tmp_path):
    students = distilled(tmp_path)
    assert list(students) == ["A", "B"]
    names = [
        f"{role}_{label}.pt{end}"
        for role in ("parent", "student")
        for label in LABELS
        for end in ("", ".json")
    ]
    assert sorted(contents(tmp_path)) == sorted([*names, "states.npz"])
    about = json.loads((tmp_path / "student_A.pt.json").read_text())
    parent = json.loads((tmp_path / "parent_A.pt.json").read_text())
    assert about["sources"] == {"teacher": {"path": "parent_A.pt", "sha256": parent["sha256"]}}
    assert (parent["kind"], parent["seed"]) == (RANDOM, 5)
    assert about["architecture"]["hidden"] == [16, 16]
    assert about["architecture"]["dropout"] == 0.05
    assert about["environment"] is None
    assert about["config"]["temperature"] == about["config"]["final_temperature"] == 3
    assert about["config"]["seed"] == about["seed"] == 5
    for name in ("train_losses", "val_losses", "action_agreements", "mean_prob_similarities"):
        assert len(about["metrics"][name]) == 3
    with np.load(tmp_path / "states.npz") as states:
        expected = np.random.default_rng(5).standard_normal((300, 8)).astype(np.float32)
        np.testing.assert_array_equal(states["train"], expected)
        assert about["states"]["n_heldout"] == len(states["heldout"]) > 0


def test_recorded_agreement_is_that_of_the_files_on_rows_that_nobody_trained_on(tmp_path):
    distilled(tmp_path, config=replace(QUICK, epochs=12))
    with np.load(tmp_path / "states.npz") as states:
        train, heldout = states["train"], states["heldout"]
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in heldout}
    for label in LABELS:
        metrics = json.loads((tmp_path / f"student_{label}.pt.json").read_text())["metrics"]
        wanted = as_torch(tmp_path / f"parent_{label}.pt")(heldout)
        found = as_torch(tmp_path / f"student_{label}.pt")(heldout)
        agreement = np.mean(wanted.argmax(1) == found.argmax(1))
        assert metrics["heldout"]["action_agreement"] == pytest.approx(agreement, abs=0.004)
        assert metrics["heldout"]["mse"] == pytest.approx(
            np.square(wanted - found).mean(), rel=1e-3
        )
        assert agreement > max(metrics["initial_action_agreement"], 0.5)


def test_same_seed_same_bytes_and_one_student_alone_is_the_same(tmp_path):
    choice = TeacherChoice(sizes=SMALL, seed=5)
    for name in ("first", "second"):
        distilled(tmp_path / name, choice)
    for label in LABELS:
        distilled(tmp_path / label, replace(choice, labels=(label,)))
    both = contents(tmp_path / "first")
    assert contents(tmp_path / "second") == both
    for label in LABELS:
        alone = contents(tmp_path / label)
        assert len(alone) == 5
        assert alone.items() <= both.items()
    distilled(tmp_path / "other", replace(choice, seed=6), replace(QUICK, seed=6))
    other = contents(tmp_path / "other")
    assert all(other[name] != both[name] for name in both)


def test_random_teachers_are_agentfarms_and_no_two_seeds_share_one(tmp_path, agentfarm_network):
    teachers = teachers_in(tmp_path, TeacherChoice(sizes=SMALL, seed=7))
    expected = agentfarm_network(8, 4, 20, 7).state_dict()
    for name, tensor in teachers["A"].network.weights.items():
        np.testing.assert_array_equal(tensor, expected[name].numpy())
    seeds = [random_teacher_seed(label, seed) for seed in range(500) for label in LABELS]
    assert len(set(seeds)) == len(seeds)


def test_teachers_from_files_may_have_any_widths(tmp_path):
    wide = replace(teacher_spec(6, 3, 50), hidden=(50, 20))
    plain = replace(teacher_spec(6, 3, 8), norm="none", dropout_slots=False, hidden=(40, 40, 40))
    files = {
        "A": teacher_file(tmp_path / "one.pt", wide),
        "B": teacher_file(tmp_path / "two.pt", plain),
    }
    students = distilled(tmp_path / "out", TeacherChoice(files=files, seed=5))
    assert students["A"].role.network.spec == replace(wide, hidden=(25, 16))
    assert students["B"].role.network.spec == replace(plain, hidden=(20, 20, 20))
    assert students["A"].role.sidecar["sources"]["teacher"]["path"] == "../one.pt"
    assert not (tmp_path / "out" / "parent_A.pt").exists()


def test_what_is_drawn_beside_a_given_teacher_is_like_it(tmp_path):
    spec = replace(teacher_spec(6, 3, 16), hidden=(40, 20))
    files = {"A": teacher_file(tmp_path / "one.pt", spec)}
    students = distilled(tmp_path, TeacherChoice(files=files, seed=5))
    assert students["B"].teacher.network.spec == spec
    assert students["B"].teacher.sha256 != students["A"].teacher.sha256


def test_settings_reach_the_training(tmp_path):
    choice = TeacherChoice(("A",), sizes=SMALL, seed=5)
    written = {}
    for name, config in {
        "plain": QUICK,
        "uncalibrated": replace(QUICK, calibration="none"),
        "normalized": replace(QUICK, normalise_q=True),
        "cooling": replace(QUICK, temp_decay=0.5),
        "squared": replace(QUICK, loss_fn="mse"),
    }.items():
        students = distilled(tmp_path / name, choice, config)
        written[name] = students["A"].role.sidecar["config"], students["A"].role.sha256
    assert len({digest for _, digest in written.values()}) == 5
    assert written["cooling"][0]["final_temperature"] == 3.0 * 0.5**2
    assert written["normalized"][0]["normalise_q"] is True


def test_states_of_an_environment_are_played_by_the_teachers(tmp_path):
    spec = teacher_spec(4, 2, 16)
    files = {
        label: teacher_file(tmp_path / f"{label}.pt", spec, seed, environment="CartPole-v1")
        for seed, label in enumerate(LABELS)
    }
    choice = TeacherChoice(files=files, seed=5)
    told = []
    students = distilled(tmp_path / "both", choice, n_states=None, tell=told.append)
    about = students["A"].role.sidecar
    assert about["environment"] == "CartPole-v1"
    assert about["states"]["source"] == "CartPole-v1: played by parent_A, parent_B"
    assert "CartPole-v1: played by" in told[0]
    with np.load(tmp_path / "both" / "states.npz") as states:
        rows = np.concatenate([states["train"], states["heldout"]])
    assert 64 <= len(rows) <= 6000
    assert (np.abs(rows) <= CARTPOLE_LIMITS).all()
    distilled(tmp_path / "alone", replace(choice, labels=("A",)), n_states=None)
    alone, both = contents(tmp_path / "alone"), contents(tmp_path / "both")
    assert alone.items() <= both.items()


def test_random_teachers_of_a_named_environment_play_it(tmp_path):
    choice = TeacherChoice(("A",), sizes=TASK, seed=5, environment="CartPole-v1")
    students = distilled(tmp_path, choice, n_states=100)
    assert students["A"].role.sidecar["states"]["n_train"] == 100
    assert students["A"].role.sidecar["states"]["source"] == "CartPole-v1: played by parent_A"
    assert students["A"].teacher.sidecar["environment"] == "CartPole-v1"


def test_states_that_the_teachers_saw_in_training_come_first(tmp_path):
    spec = teacher_spec(4, 2, 16)
    seen = np.random.default_rng(0).uniform(-0.1, 0.1, (200, 4)).astype(np.float32)
    np.save(tmp_path / "replay_states_A.npy", seen)
    replay = {"file": "replay_states_A.npy", "sha256": states_sha256(seen)}
    path = teacher_file(
        tmp_path / "parent_A.pt", spec, environment="CartPole-v1", replay_states=replay
    )
    teacher = teachers_in(tmp_path, TeacherChoice(("A",), {"A": path}))["A"]
    states = states_for_students([teacher], "CartPole-v1", None, seed=0)
    rows = {row.tobytes() for row in np.concatenate([states.train, states.heldout])}
    assert rows == {row.tobytes() for row in seen}
    np.save(tmp_path / "replay_states_A.npy", seen + 1)
    with pytest.raises(StageError, match="the file was replaced"):
        states_for_students([teacher], "CartPole-v1", None, seed=0)


def test_students_of_our_cartpole_parents_learn_from_what_these_saw(tmp_path):
    settings = ParentSettings(labels=("A",), hidden=16, episodes=2, eval_episodes=1)
    train_parents(settings, tmp_path / "parents", lambda _: None)
    choice = TeacherChoice(("A",), {"A": tmp_path / "parents" / "parent_A.pt"}, seed=5)
    students = distilled(tmp_path, choice)
    assert students["A"].role.sidecar["states"]["source"] == "CartPole-v1: replay_states_A.npy"
    seen = {row.tobytes() for row in np.load(tmp_path / "parents" / "replay_states_A.npy")}
    with np.load(tmp_path / "states.npz") as states:
        assert {row.tobytes() for row in states["train"]} <= seen
        assert {row.tobytes() for row in states["heldout"]} <= seen


def test_a_trained_teacher_is_not_overwritten_but_a_random_one_is(tmp_path):
    for seed in (1, 2):
        distilled(tmp_path, TeacherChoice(("A",), sizes=SMALL, seed=seed))
    assert json.loads((tmp_path / "parent_A.pt.json").read_text())["seed"] == 2
    path = teacher_file(tmp_path / "parent_B.pt", teacher_spec(8, 4, 20))
    before = contents(tmp_path)
    with pytest.raises(StageError, match=r"pass --parent-b-ckpt .*parent_B.pt, or choose another"):
        distilled(tmp_path)
    assert contents(tmp_path) == before
    distilled(tmp_path, TeacherChoice(("B",), {"B": path}))
    assert (tmp_path / "student_B.pt").exists()


def test_no_student_loses_the_states_that_it_was_trained_on(tmp_path):
    files = []
    for number in range(2):
        files.append(tmp_path / f"states_{number}.npy")
        rows = np.random.default_rng(number).standard_normal((100, 8)).astype(np.float32)
        np.save(files[-1], rows)
    choice = TeacherChoice(("A",), sizes=SMALL, seed=5)
    distilled(tmp_path / "out", choice, n_states=None, states_file=files[0])
    before = (tmp_path / "out" / "states.npz").read_bytes()
    other = replace(choice, labels=("B",))
    with pytest.raises(StageError, match=r"student_A .* trained on, .*choose another --output-dir"):
        distilled(tmp_path / "out", other, n_states=None, states_file=files[1])
    assert (tmp_path / "out" / "states.npz").read_bytes() == before
    assert not (tmp_path / "out" / "student_B.pt").exists()
    distilled(tmp_path / "out", other, n_states=None, states_file=files[0])
    both = replace(choice, labels=LABELS)  # both students go, and their states with them
    distilled(tmp_path / "out", both, n_states=None, states_file=files[1])


def test_a_teacher_is_not_overwritten_with_its_student(tmp_path):
    distilled(tmp_path)
    before = contents(tmp_path)
    files = {"A": tmp_path / "student_A.pt"}
    for labels in (LABELS, ("A",)):
        with pytest.raises(StageError, match=r"teacher of --parent-a-ckpt, and would be overwritt"):
            distilled(tmp_path, TeacherChoice(labels, files, seed=5))
    assert contents(tmp_path) == before
    distilled(tmp_path / "next", TeacherChoice(("A",), files, seed=5))


def test_teachers_that_cannot_be_distilled_are_named(tmp_path):
    good = teacher_file(tmp_path / "good.pt", teacher_spec(4, 2, 16), environment="CartPole-v1")
    other = teacher_file(tmp_path / "other.pt", teacher_spec(8, 4, 16))
    elsewhere = teacher_file(tmp_path / "x.pt", teacher_spec(4, 2, 16), environment="Pole-v3")
    single = teacher_file(tmp_path / "single.pt", teacher_spec(4, 1, 16))
    broken = tmp_path / "broken.pt"
    spec, weights = load_network(good)
    weights["network.4.bias"][0] = np.nan
    torch.save({name: torch.from_numpy(tensor) for name, tensor in weights.items()}, broken)
    for files, sizes, environment, message in [
        (
            {"A": good, "B": other},
            Sizes(),
            None,
            r"has 4 inputs and 2 actions, but parent_B .*8 and",
        ),
        ({"A": good, "B": broken}, Sizes(), None, "network.4.bias holds NaN or infinity"),
        ({"A": good, "B": elsewhere}, Sizes(), None, "A is of CartPole-v1 and parent_B is of Pole"),
        ({"A": single}, Sizes(), None, "expected a teacher of at least 2 actions, not 1"),
        ({"A": good}, Sizes(8), None, "--input-dim is 8, but parent_A .* has 4"),
        ({"A": good}, Sizes(hidden=64), None, r"--parent-hidden\) is 64, but parent_A .* has 16"),
        ({"A": good}, Sizes(), "Acrobot-v1", "Acrobot-v1 has 6 inputs and 3 actions"),
        ({}, Sizes(n_actions=1), None, "--output-dim must be at least 2, not 1"),
    ]:
        choice = TeacherChoice(tuple(files) or ("A",), files, sizes, environment=environment)
        with pytest.raises(StageError, match=message):
            distilled(tmp_path / "out", choice)
    assert spec == teacher_spec(4, 2, 16)
    assert not list((tmp_path / "out").glob("student*"))
