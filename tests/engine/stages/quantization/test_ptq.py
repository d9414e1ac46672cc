"""The stage that quantizes: what it writes, and on which states."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from engine.errors import StageError
from engine.learning.checkpoints import load_genome_file, save_network
from engine.stages.distillation.students import run_distillation
from engine.stages.distillation.teachers import Sizes, TeacherChoice
from engine.stages.imitation.config import ImitationConfig
from engine.stages.quantization.ptq import PtqConfig, quantize_role
from engine.stages.quantization.weights import quantized
from engine.stages.roles import load_role, load_source
from engine.stages.states import (
    evaluation_states,
    synthetic_heldout,
    synthetic_states,
    training_states,
)

# What AgentFarm's report holds.
REPORT_KEYS = {"pair", "float_checkpoint", "quantized_checkpoint", "quantization", "comparison"}
QUANTIZATION_KEYS = {
    "mode",
    "dtype",
    "backend",
    "calibration_samples",
    "elapsed_seconds",
    "linear_layers_quantized",
    "float_param_bytes",
    "quantized_param_bytes",
    "notes",
}
COMPARISON_KEYS = {
    "action_agreement",
    "mean_q_error",
    "max_q_error",
    "mean_cosine_similarity",
    "n_states",
    "mse_logits",
    "kl_divergence_float_vs_quant",
    "top_k_agreements",
}
N_PARAMETERS = 8 * 16 + 16 * 16 + 16 * 4 + 16 * 6 + 4


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """Return a folder with the students of random teachers."""
    directory = tmp_path_factory.mktemp("distilled")
    choice = TeacherChoice(sizes=Sizes(hidden=20), seed=5)
    run_distillation(directory, choice, ImitationConfig(epochs=10, seed=5), n_states=700)
    return directory


@pytest.fixture
def student(distilled):
    return load_role("student_A", distilled / "student_A.pt")


@pytest.fixture
def states_file(tmp_path):
    path = tmp_path / "states.npy"
    np.save(path, np.random.default_rng(9).normal(size=(400, 8)).astype(np.float32))
    return path


def test_the_report_has_the_keys_of_agentfarm_and_counts_what_was_written(student, tmp_path):
    made = quantize_role(student, tmp_path)
    report = json.loads((tmp_path / "quantization_report_A.json").read_text())
    assert set(report) >= REPORT_KEYS
    assert set(report["quantization"]) >= QUANTIZATION_KEYS
    assert set(report["comparison"]) >= COMPARISON_KEYS
    loaded = torch.load(tmp_path / "student_A_int8.pt", weights_only=True)
    int8 = [t for t in loaded.values() if t.dtype == torch.int8]
    about = report["quantization"]
    assert about["linear_layers_quantized"] == len(int8) == 3
    assert about["float_param_bytes"] == 4 * N_PARAMETERS
    stored = sum(t.numel() * t.element_size() for t in loaded.values())
    assert about["quantized_param_bytes"] == stored < 0.5 * about["float_param_bytes"]
    size = report["size"]
    assert size["quantized_checkpoint_bytes"] == (tmp_path / "student_A_int8.pt").stat().st_size
    assert size["quantized_checkpoint_bytes"] < size["float_checkpoint_bytes"]
    assert (about["mode"], about["dtype"]) == ("dynamic", "qint8")
    assert report["onnx"] is None
    assert made.role.genome is not None


def test_it_is_compared_on_rows_that_the_student_never_saw(student, tmp_path):
    report = quantize_role(student, tmp_path, n_states=500).report
    assert report["states"]["held_out"] is True
    rows = synthetic_heldout(700, 8, 5)
    judged = evaluation_states([student], 500, 8, 42).states
    assert {row.tobytes() for row in judged} < {row.tobytes() for row in rows}
    int8 = load_role("int8", tmp_path / "student_A_int8.pt").network
    same = student.network.q_values(judged).argmax(1) == int8.q_values(judged).argmax(1)
    assert report["comparison"]["action_agreement"] == pytest.approx(same.mean())
    assert report["comparison"]["n_states"] == 500
    assert same.mean() >= 0.97


def test_training_rows_are_marked(student, tmp_path):
    report = quantize_role(student, tmp_path, use_training_states=True).report
    assert report["states"]["held_out"] is False
    assert report["states"]["n_states"] == 700


def test_it_is_calibrated_on_training_rows_of_the_student(student, tmp_path):
    made = quantize_role(student, tmp_path, PtqConfig(calibration_batches=100))
    assert made.report["calibration"] == {
        "source": "training states of student_A",
        "n_states": 700,
    }
    wanted = quantized(student.network, synthetic_states(700, 8, 5))
    assert load_genome_file(tmp_path / "student_A_int8.pt").id == wanted.id
    few = quantize_role(student, tmp_path, PtqConfig(calibration_batches=2)).report
    assert few["quantization"]["calibration_samples"] == 2 * 64
    error, plain = (made.report[name]["mse"] for name in ("comparison", "comparison_without_refit"))
    assert error < plain


def test_without_refit_nothing_is_calibrated(student, tmp_path):
    made = quantize_role(student, tmp_path, PtqConfig(refit=False))
    assert made.report["calibration"] is None
    assert made.report["quantization"]["calibration_samples"] == 0
    assert made.report["comparison_without_refit"] is None
    assert load_genome_file(made.role.path).id == quantized(student.network).id
    assert "--no-refit" in " ".join(made.report["quantization"]["notes"])


def test_equal_input_gives_equal_bytes(student, tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        quantize_role(student, folder, PtqConfig(mode="static"))
    for name in ("student_A_int8.pt", "student_A_int8.pt.json", "student_A_int8.onnx"):
        first, second = ((folder / name).read_bytes() for folder in folders)
        assert first == second


def test_the_sidecar_leads_back_to_the_float_network(student, tmp_path):
    role = quantize_role(student, tmp_path).role
    original = load_source(role, "float", "student_A")
    assert original is not None
    assert original.sha256 == student.sha256
    assert role.sidecar["architecture"] == student.sidecar["architecture"]
    # Synthetic rows are drawn again from their seed: there is no file of them in this folder.
    assert role.sidecar["states"] == {**student.sidecar["states"], "file": None}
    assert role.sidecar["quantization"]["mode"] == "dynamic"
    assert "elapsed_seconds" not in role.sidecar["quantization"]


def test_rows_of_a_file_are_split_before_they_calibrate(student, states_file, tmp_path):
    out = tmp_path / "out"
    made = quantize_role(student, out, states_file=states_file)
    own = training_states(640, 8, 42, states_file)
    assert made.report["calibration"]["n_states"] == len(own.train) == 360
    assert made.report["states"]["n_states"] == len(own.heldout) == 40
    assert made.report["states"]["held_out"] is True
    with np.load(out / "states.npz") as kept:
        np.testing.assert_array_equal(kept["heldout"], own.heldout)
    assert made.role.sidecar["states"] == own.record()
    # Judged on the whole file later, what it was calibrated on is left out.
    later = evaluation_states([made.role], 1000, 8, 0, states_file)
    assert (len(later.states), later.n_left_out) == (40, 360)


def test_a_student_whose_states_are_gone_is_not_quantized_without_any(states_file, tmp_path):
    choice = TeacherChoice(("A",), sizes=Sizes(hidden=20), seed=5)
    run_distillation(tmp_path, choice, ImitationConfig(epochs=1, seed=5), None, states_file)
    (tmp_path / "states.npz").unlink()
    student = load_role("student_A", tmp_path / "student_A.pt")
    with pytest.raises(StageError, match=r"states\.npz: expected the states .*--states-file"):
        quantize_role(student, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = quantize_role(student, tmp_path / "out", states_file=states_file).report
    assert report["states"]["held_out"] is None


def test_states_of_a_student_are_not_replaced(distilled, states_file, tmp_path):
    folder = tmp_path / "same"
    choice = TeacherChoice(("A",), sizes=Sizes(hidden=20), seed=5)
    run_distillation(folder, choice, ImitationConfig(epochs=1), None, states_file, 0.2)
    student = load_role("student_A", folder / "student_A.pt")
    quantize_role(student, folder)
    expected = r"states that student_A \(.*student_A\.pt\) was trained on, and would be overwritten"
    with pytest.raises(StageError, match=expected):
        quantize_role(student, folder, states_file=states_file)
    other = load_role("student_A", distilled / "student_A.pt")
    with pytest.raises(StageError, match=expected):  # whoever is quantized into that folder
        quantize_role(other, folder, states_file=states_file)


def test_recorded_rows_of_an_environment_are_kept_in_the_new_folder_too(states_file, tmp_path):
    folder, out = tmp_path / "distilled", tmp_path / "int8"
    choice = TeacherChoice(("A",), sizes=Sizes(hidden=16), seed=5)
    run_distillation(folder, choice, ImitationConfig(epochs=1), states_file=states_file)
    made = quantize_role(load_role("student_A", folder / "student_A.pt"), out)
    assert (out / "states.npz").read_bytes() == (folder / "states.npz").read_bytes()
    shutil.rmtree(folder)
    assert (
        evaluation_states([made.role], 1000, 8, 0).source
        == "held out when student_A_int8 was trained"
    )
    with pytest.raises(StageError, match="expected the float that"):
        load_source(made.role, "float", "student_A")


def test_a_network_without_a_sidecar_is_rounded_as_it_is(student, tmp_path):
    save_network(tmp_path / "net.pt", student.network.spec, student.network.weights)
    bare = load_role("student_B", tmp_path / "net.pt")
    report = quantize_role(bare, tmp_path / "out").report
    assert report["pair"] == "B"
    assert report["calibration"] is None
    assert (report["states"]["source"], report["states"]["n_states"]) == ("synthetic", 1000)
    assert "no states of the network are known" in " ".join(report["quantization"]["notes"])


def test_static_mode_writes_an_onnx_model_beside_the_int8_weights(student, tmp_path):
    made = quantize_role(student, tmp_path, PtqConfig(mode="static"))
    dynamic = quantize_role(student, tmp_path / "dynamic")
    assert made.role.sha256 == dynamic.role.sha256
    onnx = made.report["onnx"]
    assert onnx["bytes"] == (tmp_path / "student_A_int8.onnx").stat().st_size
    assert onnx["linear_layers_quantized"] == 3
    assert onnx["stays_float"] == ["LayerNormalization", "Relu"]
    assert onnx["same_actions_in_any_batch"] is True
    assert onnx["comparison"]["action_agreement"] >= 0.95
    assert onnx["comparison"]["mean_q_error"] > made.report["comparison"]["mean_q_error"]
    assert made.report["quantization"]["backend"] == "onnxruntime"
    assert made.role.sidecar["onnx"]["path"] == "student_A_int8.onnx"


def test_static_mode_draws_states_where_none_are_known(student, tmp_path):
    save_network(tmp_path / "net.pt", student.network.spec, student.network.weights)
    bare = load_role("student_B", tmp_path / "net.pt")
    config = PtqConfig(mode="static", calibration_batches=2)
    report = quantize_role(bare, tmp_path / "out", config).report
    assert report["calibration"] == {"source": "synthetic", "n_states": 128}
    assert report["onnx"]["linear_layers_quantized"] == 3


def test_a_backend_is_accepted_and_said_to_have_no_effect(student, tmp_path):
    first = quantize_role(student, tmp_path, PtqConfig(backend="fbgemm"))
    assert "--backend fbgemm has no effect" in " ".join(first.report["quantization"]["notes"])
    assert quantize_role(student, tmp_path).role.sha256 == first.role.sha256


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "qat"}, "--mode must be dynamic or static, not 'qat'"),
        ({"dtype": "quint8"}, "--dtype must be qint8"),
        ({"backend": "cuda"}, "--backend must be one of auto, x86"),
        ({"calibration_batches": 0}, "--calibration-batches must be at least 1, not 0"),
        ({"calibration_batch_size": -1}, "--calibration-batch-size must be at least 1"),
        (
            {"mode": "static", "calibration_batches": 1, "calibration_batch_size": 1},
            "at least 2 calibration states",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(StageError, match=message):
        PtqConfig(**settings)


def test_an_int8_network_is_not_quantized_again(student, tmp_path):
    made = quantize_role(student, tmp_path)
    with pytest.raises(StageError, match="it is int8 already"):
        quantize_role(made.role, tmp_path)
