"""Quantization-aware training: an export that is int8, and what it is compared with."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from engine.errors import StageError
from engine.stages.distillation.students import run_distillation
from engine.stages.distillation.teachers import Sizes, TeacherChoice
from engine.stages.imitation.config import ImitationConfig
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.quantization.calibration import Lesson, lesson_for
from engine.stages.quantization.qat import paired_gain, train_quantization_aware
from engine.stages.roles import Role, load_role, load_source

# What AgentFarm's report holds.
REPORT_KEYS = {
    "pair",
    "teacher_checkpoint",
    "student_checkpoint",
    "qat_config",
    "qat_metrics",
    "float_qat_checkpoint",
    "int8_checkpoint",
    "comparison_float_vs_qat_int8",
}
CONFIG = ImitationConfig(epochs=3, learning_rate=1e-3, loss_fn="mse", seed=5)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("distilled")
    choice = TeacherChoice(("A",), sizes=Sizes(hidden=20), seed=5)
    run_distillation(directory, choice, ImitationConfig(epochs=3, seed=5), n_states=400)
    return load_role("student_A", directory / "student_A.pt"), load_role(
        "parent_A", directory / "parent_A.pt"
    )


@pytest.fixture(scope="module")
def trained(distilled, tmp_path_factory):
    """Return folder and report of one training."""
    student, teacher = distilled
    directory = tmp_path_factory.mktemp("qat")
    lesson = lesson_for(student, None, 5)
    return directory, train_quantization_aware(student, teacher, directory, CONFIG, lesson)


def test_the_export_is_int8_on_disk(trained):
    directory, report = trained
    loaded = torch.load(directory / "student_A_qat_int8.pt", weights_only=True)
    assert [t.dtype for name, t in loaded.items() if f"{name}.scale" in loaded] == [torch.int8] * 3
    floats = torch.load(directory / "student_A_qat.pt", weights_only=True)
    assert {t.dtype for t in floats.values()} == {torch.float32}
    size = (directory / "student_A_qat_int8.pt").stat().st_size
    assert size < (directory / "student_A_qat.pt").stat().st_size
    stored = sum(t.numel() * t.element_size() for t in loaded.values())
    assert report["int8_file"]["quantized_param_bytes"] == stored
    assert report["int8_file"]["quantized_checkpoint_bytes"] == size
    assert report["int8_file"]["linear_layers_quantized"] == 3
    # Rounding is seen: AgentFarm's export gave the very values of the float network.
    assert report["comparison_float_vs_qat_int8"]["max_q_error"] > 0


def test_the_report_has_the_keys_of_agentfarm_and_the_controls(trained):
    directory, _ = trained
    written = json.loads((directory / "qat_report_A.json").read_text())
    assert set(written) >= REPORT_KEYS
    assert list(written["comparison_with_teacher"]) == [
        "student",
        "student_ptq_int8",
        "qat",
        "qat_int8",
        "control",
        "control_ptq_int8",
    ]
    assert set(written["gain_of_qat"]) == {"over_student_ptq_int8", "over_control_ptq_int8"}
    assert written["states"]["held_out"] is True
    gain = written["gain_of_qat"]["over_control_ptq_int8"]["difference"]
    to_teacher = {n: m["action_agreement"] for n, m in written["comparison_with_teacher"].items()}
    assert gain == pytest.approx(to_teacher["qat_int8"] - to_teacher["control_ptq_int8"])
    assert written["qat_config"]["learning_rate"] == 1e-3
    assert len(written["qat_metrics"]["val_losses"]) == 3


def test_it_learns_from_the_teacher(trained):
    _, report = trained
    metrics = report["qat_metrics"]
    assert metrics["best_val_loss"] < metrics["initial_val_loss"]
    fidelity = report["comparison_with_teacher"]
    assert fidelity["qat_int8"]["mse"] < fidelity["student_ptq_int8"]["mse"]
    # Both start from the same weights, but only one is measured through the codec.
    assert metrics["initial_val_loss"] != report["control_metrics"]["initial_val_loss"]


def test_the_sidecars_lead_back_to_student_and_teacher(trained, distilled):
    directory, _ = trained
    student, teacher = distilled
    int8 = load_role("int8", directory / "student_A_qat_int8.pt")
    float_qat = load_source(int8, "float", "qat")
    assert float_qat is not None
    assert int8.sidecar["quantization"]["mode"] == "qat"
    assert int8.sidecar["qat"]["epochs"] == 3
    for source, wanted in (("student", student), ("teacher", teacher)):
        found = load_source(float_qat, source, source)
        assert found is not None
        assert found.sha256 == wanted.sha256
    # Synthetic rows have no file in this folder.
    assert float_qat.sidecar["states"] == {**student.sidecar["states"], "file": None}


def test_equal_settings_give_equal_networks_and_no_convert_leaves_out_int8(
    trained, distilled, tmp_path
):
    student, teacher = distilled
    lesson = lesson_for(student, None, 5)
    report = train_quantization_aware(student, teacher, tmp_path, CONFIG, lesson, convert=False)
    assert report["int8_checkpoint"] is None
    assert not (tmp_path / "student_A_qat_int8.pt").exists()
    first = trained[0] / "student_A_qat.pt"
    assert (tmp_path / "student_A_qat.pt").read_bytes() == first.read_bytes()


def test_gain_is_the_mean_difference_of_hits_with_its_interval():
    best = np.array([0, 0, 1, 1, 1, 0, 0, 1])
    first, second = best.copy(), best.copy()
    first[[0]] ^= 1  # right in 7 of 8
    second[[1, 2, 3]] ^= 1  # right in 5 of 8
    values = {
        name: np.eye(2, dtype=np.float32)[actions]
        for name, actions in (("teacher", best), ("first", first), ("second", second))
    }
    differences = np.array([-1, 1, 1, 1, 0, 0, 0, 0])
    half = 1.959964 * math.sqrt(differences.var() / 8)
    gain = paired_gain(values, "first", "second")
    assert gain["difference"] == pytest.approx(2 / 8)
    assert gain["ci95"] == pytest.approx([0.25 - half, 0.25 + half], abs=1e-6)
    assert gain["is_clear"] is False
    assert paired_gain(values, "teacher", "teacher")["is_clear"] is False


def test_states_are_those_of_the_student_unless_others_are_given(distilled, tmp_path):
    student, _ = distilled
    rows = {row.tobytes() for row in lesson_for(student, None, 0).states}
    some = lesson_for(student, 50, 0)
    assert some.source == "training states of student_A"
    assert some.own is None
    assert len(some.states) == 50
    assert {row.tobytes() for row in some.states} < rows
    np.save(tmp_path / "states.npy", np.random.default_rng(0).normal(size=(100, 8)))
    given = lesson_for(student, None, 0, tmp_path / "states.npy")
    assert (len(given.states), len(given.own.heldout)) == (68, 32)
    bare = Role("student_A", None, student.network)
    assert lesson_for(bare, None, 0) is None
    drawn = lesson_for(bare, None, 0, n_synthetic=80)
    assert (len(drawn.states), drawn.source) == (80, "synthetic")


def test_a_teacher_of_another_task_is_refused(distilled, tmp_path):
    student, _ = distilled
    spec = teacher_spec(4, 2, 20)
    other = Role("parent_A", None, Network(spec, initial_weights(spec, 0)))
    lesson = Lesson(np.ones((10, 8), np.float32), "here")
    with pytest.raises(StageError, match="takes 8 numbers and has 4 actions, but the one"):
        train_quantization_aware(student, other, tmp_path, CONFIG, lesson)
