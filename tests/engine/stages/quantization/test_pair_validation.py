"""The stage that validates quantized networks: finding them, judging them, writing reports."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import StageError, TeacherError
from engine.learning.checkpoints import save_network
from engine.stages.distillation.students import run_distillation
from engine.stages.distillation.teachers import Sizes, TeacherChoice
from engine.stages.imitation.config import ImitationConfig
from engine.stages.quantization.pair_validation import (
    Judgement,
    Places,
    find_quantized_pair,
    validate_pair,
    write_validation,
)
from engine.stages.quantization.ptq import quantize_role
from engine.stages.roles import load_role
from engine.stages.validation.thresholds import QuantizationThresholds
from engine.stages.validation.timing import LatencySettings, ThroughputSettings

QUICK = Judgement(n_states=300, latency=LatencySettings(0, 1), track_memory=False)
# What AgentFarm's report holds.
REPORT_KEYS = {
    "pair",
    "checkpoints",
    "states",
    "benchmark",
    "fidelity",
    "latency",
    "throughput",
    "memory",
    "size",
    "compatibility",
    "thresholds",
    "passed",
    "fidelity_vs_teacher",
}


def make(directory: Path, **choice) -> Path:
    """Fill ``float`` and ``int8`` in a folder."""
    chosen = TeacherChoice(("A",), seed=5, **choice)
    run_distillation(directory / "float", chosen, ImitationConfig(epochs=4, seed=5), n_states=300)
    quantize_role(load_role("student_A", directory / "float" / "student_A.pt"), directory / "int8")
    return directory


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    return make(tmp_path_factory.mktemp("synthetic"), sizes=Sizes(hidden=20))


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cartpole")
    return make(directory, sizes=Sizes(4, 2, 16), environment="CartPole-v1")


def test_original_and_teacher_are_found_through_the_sidecars(synthetic):
    pair = find_quantized_pair("A", Places(quantized_dir=synthetic / "int8"))
    assert pair.quantized.format == "int8"
    assert pair.original.path.resolve() == synthetic / "float" / "student_A.pt"
    assert pair.teacher is not None
    assert pair.teacher.path.resolve() == synthetic / "float" / "parent_A.pt"


def test_flags_win_over_sidecars(synthetic, tmp_path):
    for name in ("student_A.pt", "parent_A.pt"):
        shutil.copy(synthetic / "float" / name, tmp_path / name)
    int8, float_file = synthetic / "int8" / "student_A_int8.pt", tmp_path / "student_A.pt"
    for places in (
        Places(quantized_file=int8, float_dir=tmp_path, teacher_dir=tmp_path),
        Places(quantized_file=int8, float_file=float_file, teacher_file=tmp_path / "parent_A.pt"),
    ):
        pair = find_quantized_pair("A", places)
        assert pair.original.path == float_file
        assert pair.teacher is not None
        assert pair.teacher.path == tmp_path / "parent_A.pt"


def test_a_teacher_that_is_gone_is_done_without(synthetic, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(synthetic, folder)
    (folder / "float" / "parent_A.pt").unlink()
    pair = find_quantized_pair("A", Places(quantized_dir=folder / "int8"))
    assert pair.teacher is None
    report = validate_pair(pair, QUICK)
    assert "fidelity_vs_teacher" not in report
    with pytest.raises(TeacherError, match=r"parent_A.pt"):
        find_quantized_pair("A", Places(quantized_dir=folder / "int8", teacher_dir=folder))


def test_the_report_has_the_keys_of_agentfarm_and_passes(synthetic):
    pair = find_quantized_pair("A", Places(quantized_dir=synthetic / "int8"))
    report = validate_pair(pair, replace(QUICK, throughput=ThroughputSettings(32, 0, 2)))
    assert set(report) >= REPORT_KEYS
    assert report["passed"] is True
    assert report["states"]["held_out"] is True
    assert report["fidelity"]["action_agreement"] >= 0.97
    assert report["compatibility"]["quantization_mode"] == "dynamic"
    assert report["size"]["size_ratio"] < 1
    assert report["formats"] == {"float": "float32", "quantized": "int8", "teacher": "float32"}
    assert report["unpickled"] == []
    assert "was not needed" in report["unpickling"]
    assert report["throughput"]["quantized_batches_per_sec"] > 0
    assert report["returns"]["environment"] is None
    assert "no environment is known" in report["returns"]["reason"]


def test_the_latency_ratio_is_near_one_as_both_compute_alike(synthetic):
    pair = find_quantized_pair("A", Places(quantized_dir=synthetic / "int8"))
    report = validate_pair(pair, replace(QUICK, latency=LatencySettings(5, 50)))
    assert 0.5 < report["latency"]["latency_ratio"] < 2


def test_all_networks_play_the_environment_of_the_sidecars(cartpole):
    pair = find_quantized_pair("A", Places(quantized_dir=cartpole / "int8"))
    returns = validate_pair(pair, replace(QUICK, episodes=5))["returns"]
    assert returns["environment"] == "CartPole-v1"
    assert set(returns["roles"]) == {"float", "quantized", "teacher"}
    assert all(played["mean"] >= 8 for played in returns["roles"].values())
    none = validate_pair(pair, replace(QUICK, episodes=0))["returns"]
    assert none == {"environment": None, "reason": "--episodes is 0"}


def test_training_rows_are_used_on_request_and_marked(synthetic):
    pair = find_quantized_pair("A", Places(quantized_dir=synthetic / "int8"))
    report = validate_pair(pair, replace(QUICK, use_training_states=True))
    assert report["states"]["held_out"] is False


def test_a_threshold_that_is_missed_is_named(synthetic):
    pair = find_quantized_pair("A", Places(quantized_dir=synthetic / "int8"))
    strict = replace(QUICK, thresholds=QuantizationThresholds(max_mean_q_error=1e-9))
    report = validate_pair(pair, strict)
    assert report["passed"] is False
    assert report["failed"] == ["mean_q_error"]


def test_reports_are_written_twice_as_json_and_for_people(synthetic, tmp_path):
    pair = find_quantized_pair("A", Places(quantized_dir=synthetic / "int8"))
    written = write_validation(tmp_path, {"A": validate_pair(pair, QUICK)})
    assert {path.name for path in written} == {
        "quantization_validation_A.json",
        "quantization_validation_A.md",
        "quantization_validation_A.csv",
        "student_A_quant_report.json",
    }
    copy = (tmp_path / "student_A_quant_report.json").read_bytes()
    assert copy == (tmp_path / "quantization_validation_A.json").read_bytes()
    assert json.loads(copy)["passed"] is True
    table = (tmp_path / "quantization_validation_A.csv").read_text(encoding="utf-8")
    (row,) = csv.DictReader(table.splitlines())
    assert float(row["action_agreement"]) >= 0.97
    assert "**Passed**" in (tmp_path / "quantization_validation_A.md").read_text(encoding="utf-8")


def test_nan_weights_do_not_pass_and_give_valid_json(synthetic, tmp_path):
    file = tmp_path / "student_A_int8.pt"
    tensors = torch.load(synthetic / "int8" / "student_A_int8.pt", weights_only=True)
    tensors["network.8.bias"][0] = float("nan")
    torch.save(tensors, file)
    pair = find_quantized_pair("A", Places(file, float_dir=synthetic / "float"))
    report = validate_pair(pair, QUICK)
    assert report["passed"] is False
    assert "network.8.bias holds NaN or infinity" in report["reason"]
    write_validation(tmp_path, {"A": report})
    content = json.loads((tmp_path / "quantization_validation_A.json").read_text())
    assert content["fidelity"]["action_agreement"] is None


def test_a_pickled_network_needs_the_flag_which_is_recorded(synthetic, tmp_path):
    file = tmp_path / "student_A_int8.pt"
    layers = [torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)]
    torch.save(torch.nn.Sequential(*layers), file)
    places = Places(file, float_dir=synthetic / "float")
    with pytest.raises(TeacherError, match="--allow-unsafe-unpickle"):
        find_quantized_pair("A", places)
    report = validate_pair(find_quantized_pair("A", places, allow_unsafe=True), QUICK)
    assert report["unpickled"] == ["quantized"]
    assert report["unpickling"] is None


def test_networks_that_cannot_be_compared_are_refused(synthetic, tmp_path):
    int8, float_file = (
        synthetic / "int8" / "student_A_int8.pt",
        synthetic / "float" / "student_A.pt",
    )
    student = load_role("student_A", float_file)
    bare = tmp_path / "student_A_int8.pt"
    shutil.copy(int8, bare)
    save_network(tmp_path / "net.pt", student.network.spec, student.network.weights)
    for places, message in (
        (Places(), "quantized student A is not known; give --checkpoint-dir, or --quant-a-ckpt"),
        (Places(quantized_dir=synthetic), "expected student_A_int8.pt or student_A_qat_int8.pt"),
        (Places(tmp_path / "net.pt"), r"net.pt: expected an int8 network, but its weights are fl"),
        (Places(bare), "no sidecar that names its float original; give --float-dir or --float-a-"),
        (Places(int8, float_file=int8), "expected the float32 original, but it is int8"),
    ):
        with pytest.raises(StageError, match=message):
            find_quantized_pair("A", places)
    with pytest.raises(StageError, match=r"--parent-hidden\) is 64, whose .*\(32, 32\)"):
        find_quantized_pair("A", Places(int8), Sizes(hidden=64))


def test_states_of_another_width_are_refused(synthetic, tmp_path):
    np.save(tmp_path / "states.npy", np.zeros((100, 5), np.float32))
    pair = find_quantized_pair("A", Places(quantized_dir=synthetic / "int8"))
    with pytest.raises(StageError, match=r"states.npy"):
        validate_pair(pair, replace(QUICK, states_file=tmp_path / "states.npy"))
