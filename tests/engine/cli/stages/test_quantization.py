from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.cli import main

SCRIPTS = Path(__file__).parents[4] / "scripts"


def run(capsys, *arguments: object) -> tuple[object, str, str]:
    """Return exit code, output and errors of a command."""
    with pytest.raises(SystemExit) as exited:
        main.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return exited.value.code, captured.out, captured.err


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> Path:
    """Return a folder with ``distillation`` and ``quantized``, made by the commands."""
    folder = tmp_path_factory.mktemp("stages")
    small = ["--parent-hidden", "20", "--n-states", "400", "--epochs", "5"]
    students = str(folder / "distillation")
    for arguments in (
        ["distill", *small, "--output-dir", students],
        ["quantize", "--checkpoint-dir", students, "--output-dir", str(folder / "quantized")],
    ):
        with pytest.raises(SystemExit) as exited:
            main.main(arguments)
        assert exited.value.code == 0
    return folder


def test_quantize_writes_both_students_and_says_what_it_cost(capsys, stages, tmp_path) -> None:
    students = stages / "distillation"
    code, out, err = run(capsys, "quantize", "--checkpoint-dir", students, "--output-dir", tmp_path)
    assert (code, err) == (0, "")
    # 4 bytes for each of 548 parameters; or 448 codes, and 4 for each of 36 scales and 100 others.
    for label in "AB":
        assert f"student_{label}: 2192 -> 992 bytes, 3 linear layers in int8" in out
        report = json.loads((tmp_path / f"quantization_report_{label}.json").read_text())
        assert f"{report['comparison']['action_agreement']:.2%} of 400 held-out states" in out
        assert f"wrote {tmp_path / f'quantization_report_{label}.json'}\n" in out


def test_quantize_in_static_mode_writes_onnx(capsys, stages, tmp_path) -> None:
    code, out, err = run(
        capsys,
        *("quantize", "--student-a-ckpt", stages / "distillation" / "student_A.pt"),
        *("--pair", "A", "--mode", "static", "--output-dir", tmp_path),
    )
    assert (code, err) == (0, "")
    assert "ONNX: same action" in out
    assert (tmp_path / "student_A_int8.onnx").is_file()
    assert not (tmp_path / "student_B_int8.pt").exists()


def test_qat_trains_a_by_default_and_compares_it_with_a_control(capsys, stages, tmp_path) -> None:
    code, out, err = run(
        capsys,
        *("qat", "--checkpoint-dir", stages / "distillation", "--output-dir", tmp_path),
        *("--epochs", "2", "--lr", "1e-4"),
    )
    assert (code, err) == (0, "")
    assert "trained without the codec, quantized" in out
    assert "student A: 400 states to train (training states of student_A)" in out
    assert f"wrote {tmp_path / 'qat_report_A.json'}\n" in out
    loaded = torch.load(tmp_path / "student_A_qat_int8.pt", weights_only=True)
    assert loaded["network.0.weight"].dtype == torch.int8
    config = json.loads((tmp_path / "qat_report_A.json").read_text())["qat_config"]
    assert (config["epochs"], config["learning_rate"], config["loss_fn"]) == (2, 1e-4, "mse")
    assert not (tmp_path / "student_B_qat.pt").exists()
    code, out, _ = run(
        capsys,
        *("validate-quantized", "--checkpoint-dir", tmp_path, "--pair", "A"),
        *("--report-dir", tmp_path / "reports"),
    )
    assert code == 0
    assert "quantized student A: passed" in out


def test_validate_quantized_passes_and_says_that_the_flag_was_not_needed(
    capsys, stages, tmp_path
) -> None:
    code, out, err = run(
        capsys,
        *("validate-quantized", "--checkpoint-dir", stages / "quantized"),
        *("--allow-unsafe-unpickle", "--report-dir", tmp_path),
    )
    assert (code, err) == (0, "")
    assert "quantized student B: passed" in out
    report = json.loads((tmp_path / "student_A_quant_report.json").read_text())
    assert report["allow_unsafe_unpickle"] is True
    assert "was not needed" in report["unpickling"]
    assert report["fidelity"]["top_k_agreements"].keys() == {"3"}


def test_validate_quantized_tells_each_check_and_why_there_are_no_returns(
    capsys, stages, tmp_path
) -> None:
    where = ("--checkpoint-dir", stages / "quantized", "--pair", "A", "--report-dir", tmp_path)
    _, out, _ = run(
        capsys, "validate-quantized", *where, "--max-mean-q-error", "0", "--report-only"
    )
    report = json.loads((tmp_path / "quantization_validation_A.json").read_text())
    assert report["checks"]
    for check in report["checks"]:
        (line,) = [line for line in out.splitlines() if line.startswith(f"  {check['name']} ")]
        assert f" {check['value']:.4f} " in line
        assert f"{check['limit']:g} " in line
        assert ("failed" in line) != check["passed"]
    low, high = report["fidelity"]["action_agreement_ci95"]
    assert f"passed  95 % interval {low:.4f} to {high:.4f}\n" in out
    assert "  no episode was played: no environment is known" in out


def test_quantizing_a_network_whose_states_are_unknown_says_what_is_missing(
    capsys, stages, tmp_path
) -> None:
    bare = tmp_path / "bare.pt"
    bare.write_bytes((stages / "distillation" / "student_A.pt").read_bytes())
    given = ("quantize", "--student-a-ckpt", bare, "--pair", "A", "--output-dir", tmp_path)
    _, out, _ = run(capsys, *given)
    assert "no states of it are known; give --states-file" in out
    _, out, _ = run(capsys, *given, "--no-refit")
    assert "--states-file" not in out


def test_validate_quantized_exits_with_one_unless_it_only_reports(capsys, stages, tmp_path) -> None:
    arguments = (
        *("validate-quantized", "--quant-dir", stages / "quantized", "--report-dir", tmp_path),
        *("--float-dir", stages / "distillation", "--max-mean-q-error", "0"),
    )
    code, out, _ = run(capsys, *arguments)
    assert code == 1
    assert "quantized student A: did not pass: mean_q_error is" in out
    code, _, _ = run(capsys, *arguments, "--report-only", "--top-k", "1", "2")
    assert code == 0
    report = json.loads((tmp_path / "quantization_validation_B.json").read_text())
    assert (report["passed"], report["report_only"]) == (False, True)
    assert report["fidelity"]["top_k_agreements"].keys() == {"1", "2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quantize"], "student A is not known; give --checkpoint-dir, or --student-a-ckpt"),
        (["quantize", "--checkpoint-dir", "none"], "none/student_A.pt: expected a distilled"),
        (["quantize", "--student-a-ckpt", "none.pt", "--pair", "A"], "none.pt: expected the file"),
        (["quantize", "--mode", "qat"], "'qat' is not one of 'dynamic', 'static'"),
        (["quantize", "--calibration-batches", "0"], "0 is not in the range x>=1"),
        (["qat"], "student A is not known"),
        (["qat", "--lr", "nan"], "nan is not a finite number"),
        (["qat", "--lr", "0"], "'--lr' / '--learning-rate': 0.0 is not in the range x>0"),
        (["qat", "--alpha", "2"], "2.0 is not in the range 0<=x<=1"),
        (["validate-quantized"], "quantized student A is not known"),
        (["validate-quantized", "--quant-dir", "none"], "none: expected student_A_int8.pt or"),
        (["validate-quantized", "--min-action-agreement", "2"], "must be a number from 0 to 1"),
        (["validate-quantized", "--throughput-timed-batches", "0"], "0 is not in the range"),
    ],
)
def test_bad_input_is_one_sentence(capsys, arguments, message) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_bad_files_are_one_sentence(capsys, stages, tmp_path) -> None:
    (tmp_path / "empty.npy").touch()
    student = stages / "distillation" / "student_A.pt"
    for arguments, message in (
        (["--states-file", tmp_path / "empty.npy"], "empty.npy"),
        (["--input-dim", "4"], "--input-dim is 4, but student_A"),
        (["--student-a-ckpt", stages / "quantized" / "student_A_int8.pt"], "it is int8 already"),
    ):
        code, out, err = run(
            capsys,
            *("quantize", "--pair", "A", "--student-a-ckpt", student, "--output-dir", tmp_path),
            *arguments,
        )
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("script", ["quantize_distilled", "qat_distilled", "validate_quantized"])
def test_the_documented_scripts_are_these_commands(script) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPTS / f"{script}.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--checkpoint-dir" in done.stdout
