import csv
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.errors import StageError
from engine.stages.distillation.pair_validation import (
    Episodes,
    Evaluation,
    find_pair,
    relative_drop,
    validate_pair,
    write_validation,
)
from engine.stages.distillation.students import run_distillation
from engine.stages.distillation.teachers import Sizes, TeacherChoice
from engine.stages.imitation.config import ImitationConfig
from engine.stages.networks import Network, teacher_spec
from engine.stages.roles import save_role, sidecar
from engine.stages.validation.thresholds import DistillationThresholds
from engine.stages.validation.timing import LatencySettings

QUICK = Evaluation(n_states=200, latency=LatencySettings(0, 1))
NO_EPISODES = Episodes()
TIMES = {"parent_inference_ms", "student_inference_ms", "latency_ratio"}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """Return a folder with both students of random teachers."""
    directory = tmp_path_factory.mktemp("synthetic")
    choice = TeacherChoice(sizes=Sizes(hidden=20), seed=5)
    run_distillation(directory, choice, ImitationConfig(epochs=3, seed=5), n_states=300)
    return directory


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    """Return a folder with the student of a random teacher of CartPole."""
    directory = tmp_path_factory.mktemp("cartpole")
    choice = TeacherChoice(("A",), sizes=Sizes(4, 2, 16), seed=5, environment="CartPole-v1")
    run_distillation(directory, choice, ImitationConfig(epochs=3, seed=5), n_states=150)
    return directory


def test_student_and_teacher_are_found_through_the_sidecar(synthetic, tmp_path):
    pair = find_pair("A", synthetic)
    assert pair.student.path == synthetic / "student_A.pt"
    assert pair.teacher.path.resolve() == (synthetic / "parent_A.pt").resolve()
    moved = tmp_path / "moved"
    shutil.copytree(synthetic, moved)
    assert find_pair("B", moved).teacher.path.resolve() == (moved / "parent_B.pt").resolve()


def test_without_a_sidecar_the_teacher_beside_counts_and_flags_win(synthetic, tmp_path):
    shutil.copy(synthetic / "student_A.pt", tmp_path)
    with pytest.raises(StageError, match=r"no sidecar .*parent_A.pt; give --parent-a-ckpt"):
        find_pair("A", tmp_path)
    shutil.copy(synthetic / "parent_A.pt", tmp_path)
    assert find_pair("A", tmp_path).teacher.path == tmp_path / "parent_A.pt"
    assert find_pair("A", None, tmp_path / "student_A.pt").teacher.path.parent == tmp_path
    explicit = find_pair("A", tmp_path, synthetic / "student_B.pt", synthetic / "parent_B.pt")
    assert explicit.student.path == synthetic / "student_B.pt"
    assert explicit.teacher.path == synthetic / "parent_B.pt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), "student A is not known; give --checkpoint-dir, or --student-a-ckpt"),
        (("empty",), r"student_A.pt: expected a distilled student, .*or choose with --pair"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, arguments, message):
    directory = arguments[0] and tmp_path / arguments[0]
    with pytest.raises(StageError, match=message):
        find_pair("A", directory)


def test_teacher_of_other_sizes_than_the_flags_is_refused(synthetic):
    with pytest.raises(StageError, match=r"--parent-hidden\) is 64, but parent_A .* has 20"):
        find_pair("A", synthetic, sizes=Sizes(hidden=64))


def test_rows_are_held_out_unless_training_rows_are_asked_for(synthetic):
    pair = find_pair("A", synthetic)
    with np.load(synthetic / "states.npz") as states:
        train, heldout = states["train"], states["heldout"]
    report = validate_pair(pair, replace(QUICK, n_states=10_000), NO_EPISODES)
    assert report["states"]["held_out"] is True
    assert report["states"]["count"] == len(heldout)
    expected = pair.teacher.network.q_values(heldout).argmax(1)
    found = pair.student.network.q_values(heldout).argmax(1)
    assert report["action_agreement"] == pytest.approx(np.mean(expected == found))
    trained = validate_pair(pair, replace(QUICK, use_training_states=True), NO_EPISODES)
    assert trained["states"]["held_out"] is False
    expected = pair.teacher.network.q_values(train[:200]).argmax(1)
    found = pair.student.network.q_values(train[:200]).argmax(1)
    assert trained["action_agreement"] == pytest.approx(np.mean(expected == found))


def test_rows_of_a_file_that_were_trained_on_are_left_out(synthetic, tmp_path):
    fresh = np.random.default_rng(99).standard_normal((100, 8)).astype(np.float32)
    with np.load(synthetic / "states.npz") as states:
        np.save(tmp_path / "rows.npy", np.concatenate([states["train"][:40], fresh]))
    settings = replace(QUICK, states_file=tmp_path / "rows.npy")
    report = validate_pair(find_pair("A", synthetic), settings, NO_EPISODES)
    assert (report["states"]["count"], report["states"]["n_left_out"]) == (100, 40)


def test_same_arguments_give_the_same_report_but_for_times(synthetic):
    pair = find_pair("A", synthetic)
    first, second = (validate_pair(pair, QUICK, NO_EPISODES) for _ in range(2))
    for report in (first, second):
        for name in TIMES:
            del report[name]
    assert first == second


def test_reports_are_written_under_both_documented_names(synthetic, tmp_path):
    reports = {x: validate_pair(find_pair(x, synthetic), QUICK, NO_EPISODES) for x in "AB"}
    written = write_validation(tmp_path / "new", reports)
    assert {path.name for path in written} == {
        "distillation_validation_A.json",
        "distillation_validation_A.md",
        "student_A_validation.json",
        "distillation_validation_B.json",
        "distillation_validation_B.md",
        "student_B_validation.json",
        "distillation_validation_results.csv",
        "distillation_validation_summary.md",
    }
    for label in "AB":
        content = (tmp_path / "new" / f"distillation_validation_{label}.json").read_bytes()
        assert (tmp_path / "new" / f"student_{label}_validation.json").read_bytes() == content
        assert json.loads(content)["pair"] == label
    table = (tmp_path / "new" / "distillation_validation_results.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["pair"] for row in rows] == ["A", "B"]
    assert float(rows[1]["action_agreement"]) == reports["B"]["action_agreement"]


def test_synthetic_networks_play_nothing_and_the_report_says_why(synthetic):
    report = validate_pair(find_pair("A", synthetic), QUICK, NO_EPISODES)
    assert report["returns"]["environment"] is None
    assert "no environment is known" in report["returns"]["reason"]
    assert report["rollout"] is None


@pytest.mark.parametrize(
    "episodes", [Episodes(number=3), Episodes(required=True), Episodes(max_return_drop=0.1)]
)
def test_asking_for_episodes_without_an_environment_is_an_error(synthetic, episodes):
    with pytest.raises(StageError, match=r"episodes are asked for, .*give --env"):
        validate_pair(find_pair("A", synthetic), QUICK, episodes)


@pytest.mark.parametrize("demand", [{"required": True}, {"max_return_drop": 0.1}])
def test_no_episodes_and_a_demand_on_them_contradict_each_other(demand):
    with pytest.raises(StageError, match="give --episodes a number of at least 1, not 0"):
        Episodes(number=0, **demand)


def test_students_play_the_environment_of_their_sidecar(cartpole):
    pair = find_pair("A", cartpole)
    report = validate_pair(pair, QUICK, Episodes(number=6))
    returns, rollout = report["returns"], report["rollout"]
    assert returns["environment"] == "CartPole-v1"
    assert returns["episodes"] == rollout["n_episodes"] == 6
    assert returns["roles"]["student"]["mean"] == rollout["student_mean_return"]
    assert rollout["passed"] is None
    short = validate_pair(pair, QUICK, Episodes(number=6, max_steps=5))
    assert short["rollout"]["student_mean_return"] == 5
    silent = validate_pair(pair, QUICK, Episodes(number=0))
    assert silent["returns"]["reason"] == "no episodes were asked for (--episodes 0)"


def test_a_lost_return_fails_the_student_where_that_has_a_limit(cartpole, tmp_path):
    # Always push left or always push right: 8 to 10 steps, against a teacher that balances.
    spec = teacher_spec(4, 2, 16)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in spec.shapes.items()}
    path = tmp_path / "student_A.pt"
    save_role(path, Network(spec, zeros), sidecar("student", spec, 0.05))
    balances = {**zeros, **balancing()}
    save_role(tmp_path / "parent_A.pt", Network(spec, balances), sidecar("teacher", spec, 0.1))
    pair = find_pair("A", tmp_path)
    free = replace(QUICK, thresholds=lenient())
    episodes = Episodes("CartPole-v1", 5, max_return_drop=0.5)
    report = validate_pair(pair, free, episodes)
    rollout = report["rollout"]
    teacher, student = rollout["parent_mean_return"], rollout["student_mean_return"]
    assert student < 11 < 30 < teacher
    assert rollout["relative_drop"] == pytest.approx((teacher - student) / teacher)
    assert (rollout["passed"], report["passed"]) == (False, False)
    assert report["batch_validation_passed"] is True
    assert report["failed"] == ["relative_return_drop"]
    assert "relative_return_drop is" in report["reason"]
    generous = validate_pair(pair, free, replace(episodes, max_return_drop=1.0))
    assert (generous["rollout"]["passed"], generous["passed"]) == (True, True)


def balancing():
    """Return tensors of a network that pushes the cart to the side the pole leans and turns to."""
    first = np.zeros((16, 4), np.float32)
    first[0], first[1] = [0, 0, 1, 1], [0, 0, -1, -1]
    second = np.zeros((16, 16), np.float32)
    second[0, 0] = second[1, 1] = 1
    output = np.zeros((2, 16), np.float32)
    output[1, 0] = output[0, 1] = 1
    norms = {f"network.{i}.weight": np.ones(16, np.float32) for i in (1, 5)}
    return {
        "network.0.weight": first,
        "network.4.weight": second,
        "network.8.weight": output,
        **norms,
    }


def lenient():
    return DistillationThresholds(
        min_action_agreement=0,
        max_kl_divergence=1e6,
        max_mse=1e6,
        min_cosine_similarity=-1,
        max_param_ratio=10,
    )


def test_a_student_with_nan_does_not_pass_and_its_report_is_valid(cartpole, tmp_path):
    for name in ("student_A.pt", "parent_A.pt"):
        shutil.copy(cartpole / name, tmp_path)
    state = torch.load(tmp_path / "student_A.pt", weights_only=True)
    state["network.4.weight"][0, 0] = math.nan
    torch.save(state, tmp_path / "student_A.pt")
    episodes = Episodes("CartPole-v1", 2, max_return_drop=0.5)
    report = validate_pair(find_pair("A", tmp_path), QUICK, episodes)
    assert report["passed"] is False
    assert "student: network.4.weight holds NaN" in report["reason"]
    write_validation(tmp_path / "reports", {"A": report})
    text = (tmp_path / "reports" / "student_A_validation.json").read_text()
    read = json.loads(text, parse_constant=pytest.fail)
    assert (read["action_agreement"], read["rollout"]["relative_drop"]) == (None, None)


def test_relative_drop_is_the_lost_part_of_the_teachers_return():
    assert relative_drop(100, 90) == pytest.approx(0.1)
    assert relative_drop(-100, -110) == pytest.approx(0.1)
    assert relative_drop(-100, -90) == pytest.approx(-0.1)
    assert relative_drop(0, 0) == 0
    assert relative_drop(0, -1) == math.inf
    assert relative_drop(0, 1) == -math.inf


def test_networks_of_different_tasks_are_refused(synthetic, cartpole):
    pair = find_pair("A", synthetic, teacher_file=cartpole / "parent_A.pt")
    with pytest.raises(
        StageError, match="has 4 inputs and 2 actions, but student has 8 inputs and 4"
    ):
        validate_pair(pair, QUICK, NO_EPISODES)
