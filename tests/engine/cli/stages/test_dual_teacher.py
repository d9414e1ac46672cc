import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.cli import main
from engine.cli.stages.dual_teacher import dual_teacher_cartpole
from engine.learning.checkpoints import load_network
from engine.stages.networks import Network
from engine.stages.validation.returns import play_roles

TRAIN = ("--train-episodes", "2", "--hidden-size", "32")
STAGES = ("--distill-epochs", "2", "--finetune-epochs", "1", "--selection-episodes", "2")
LATER = (*STAGES, "--episodes", "3", "--n-states", "300")
SMALL = (*TRAIN, *LATER)
DOCUMENTED = """
    parent_A.pt parent_B.pt student_A.pt student_B.pt student_A_int8.pt student_B_int8.pt
    child_crossover.pt child_finetuned.pt child_finetuned_int8.pt distillation_report_A.json
    distillation_report_B.json quantization_report_A.json quantization_report_B.json
    recombination_validation.json pipeline_report.json
    """
TIMING = re.compile(r"_ms$|_s$|^latency_ratio$|^elapsed_seconds$|^timestamp$|^timing$")


def run(capsys, *arguments: str) -> tuple[object, str, str]:
    """Return exit code, output and errors of a command."""
    with pytest.raises(SystemExit) as exited:
        main.main(list(arguments))
    captured = capsys.readouterr()
    return exited.value.code, captured.out, captured.err


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not TIMING.search(k)}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder in which the small canonical run was made, as ``run``."""
    folder = tmp_path_factory.mktemp("canonical")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.raises(SystemExit) as exited:
            main.main(["dual-teacher-cartpole", *SMALL, "--output-dir", "run", "--report-only"])
    finally:
        os.chdir(before)
    assert exited.value.code == 0
    return folder


def test_all_documented_files_are_written_and_networks_have_sidecars(folder) -> None:
    names = {path.name for path in (folder / "run").iterdir()}
    assert set(DOCUMENTED.split()) <= names
    networks = [name for name in names if name.endswith(".pt")]
    assert len(networks) == 11
    for name in networks:
        assert f"{name}.json" in names
        torch.load(folder / "run" / name, weights_only=True)
    int8 = torch.load(folder / "run" / "child_finetuned_int8.pt", weights_only=True)
    assert [int8[f"network.{n}.weight"].dtype for n in (0, 4, 8)] == [torch.int8] * 3


def test_the_report_tells_every_flag_and_what_came_of_it(folder) -> None:
    report = read(folder / "run" / "pipeline_report.json")
    for option in dual_teacher_cartpole.params:
        assert option.opts[0].removeprefix("--").replace("-", "_") in report["config"]
    assert report["config"]["train_episodes"] == 2
    assert report["config"]["allow_unsafe_unpickle"] is False
    assert report["config"]["unsafe_unpickle_needed_by"] == []
    assert set(report["stages"]) >= {
        "distillation_A",
        "distillation_B",
        "quantization_A",
        "quantization_B",
        "finetune_dual_teacher",
        "distillation_validation_A",
        "distillation_validation_B",
        "recombination_validation",
    }
    for path in report["artifacts"].values():
        assert (folder / path).is_file()
    assert report["passed"] is True
    assert report["checks_passed"] == (
        report["distillation_passed"]
        and report["recombination_passed"]
        and report["returns_passed"]
    )
    assert report["returns_passed"] == (report["child_return_share"] >= 0.99)
    child = read(folder / "run" / "recombination_validation.json")
    assert child["passed"] == report["recombination_passed"]
    assert set(child["comparisons"]) == {
        "child_vs_parent_a",
        "child_vs_parent_b",
        "parent_a_vs_parent_b",
    }


def test_networks_are_judged_on_states_that_nothing_was_trained_on(folder) -> None:
    report = read(folder / "run" / "pipeline_report.json")
    with np.load(folder / "run" / "states.npz") as states:
        train, heldout = ({row.tobytes() for row in states[name]} for name in ("train", "heldout"))
        assert len(states["train"]) == 300
    assert not train & heldout
    for name in ("distillation_report_A", "recombination_validation"):
        judged = read(folder / "run" / f"{name}.json")["states"]
        assert judged["held_out"] is True
        assert judged["sha256"] == report["states"]["heldout_sha256"]


def test_the_returns_are_those_of_the_files(folder) -> None:
    report = read(folder / "run" / "pipeline_report.json")
    files = ("parent_A", "student_B_int8", "child_crossover", "child", "child_int8")
    roles = {name: Network(*load_network(folder / report["artifacts"][name])) for name in files}
    again = play_roles(roles, "CartPole-v1", 3)["roles"]
    played = report["returns"]["roles"]
    assert {name: played[name] for name in files} == again
    better = max(played[name]["mean"] for name in ("parent_A", "parent_B"))
    assert report["child_return_share"] == played["child"]["mean"] / better
    assert {"ensemble", "student_A_finetuned", "random_finetuned"} <= set(played)


def test_the_same_seeds_write_the_same_bytes(folder, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(capsys, "dual-teacher-cartpole", *SMALL, "--output-dir", "run", "--report-only")
    first, second = folder / "run", tmp_path / "run"
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    for name in names:
        if name.endswith((".md", ".csv")):
            continue  # they show times
        if name.endswith(".json"):
            assert without_times(read(first / name)) == without_times(read(second / name)), name
        else:
            assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_parents_that_are_given_are_used_in_the_same_folder_and_kept(
    folder, tmp_path, capsys, monkeypatch
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert (
        run(
            capsys,
            "train-cartpole-parents",
            "--episodes",
            "2",
            "--eval-episodes",
            "2",
            "--hidden-size",
            "16",
            "--seed-a",
            "5",
            "--output-dir",
            "other",
        )[0]
        == 0
    )
    for suffix, flags in (("", []), ("_int8", ["--allow-unsafe-unpickle"])):
        before = {p.name: p.read_bytes() for p in Path("run").glob("parent_*")}
        paths = [f"other/parent_{label}{suffix}.pt" for label in "AB"]
        given = ("--parent-a-ckpt", paths[0], "--parent-b-ckpt", paths[1])
        code, out, _ = run(
            capsys, "dual-teacher-cartpole", *given, *LATER, *flags, "--output-dir", "run"
        )
        report = read(Path("run/pipeline_report.json"))
        assert code == (0 if report["passed"] else 1)
        assert f"parent A: given, {paths[0]}" in out
        assert report["artifacts"]["parent_A"] == paths[0]
        assert report["stages"]["parents"]["A"]["seed"] == 5
        about = report["config"]["parents"]["A"]
        assert (about["origin"], about["path"]) == ("given", paths[0])
        assert (about["settings"]["seed"], about["settings"]["hidden"]) == (5, 16)
        assert (report["config"]["seed_a"], report["config"]["hidden_size"]) == (5, 16)
        assert report["config"]["train_lr"] == 1e-3
        assert report["config"]["allow_unsafe_unpickle"] == bool(flags)
        assert report["config"]["unsafe_unpickle_needed_by"] == []
        assert {p.name: p.read_bytes() for p in Path("run").glob("parent_*")} == before
        rows = {r.tobytes() for label in "AB" for r in np.load(f"other/replay_states_{label}.npy")}
        with np.load("run/states.npz") as states:
            assert {row.tobytes() for row in states["train"]} <= rows


def test_a_limit_that_is_missed_ends_with_1_unless_only_a_report_is_wanted(
    folder, tmp_path, capsys, monkeypatch
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    strict = ("--max-mse", "0", "--min-distill-agreement", "1", "--output-dir", "run")
    code, out, _ = run(capsys, "dual-teacher-cartpole", *SMALL, *strict)
    report = read(Path("run/pipeline_report.json"))
    assert (code, report["passed"], report["checks_passed"]) == (1, False, False)
    assert "child: child_vs_parent_a.centered_mse is" in report["reason"]
    assert "student A: action_agreement is" in report["reason"]
    assert f"did not pass: {report['reason']}" in " ".join(out.split())
    loose = ("--min-action-agreement", "0", "--min-distill-agreement", "0", "--max-mse", "1e6")
    loose += ("--max-kl-divergence", "1e6", "--max-distill-kl", "1e6", "--output-dir", "run")
    loose += ("--min-cosine-similarity", "-1")
    for least, passes in (("0", True), ("1", report["child_return_share"] >= 1)):
        code, *_ = run(capsys, "dual-teacher-cartpole", *SMALL, *loose, "--min-return-share", least)
        again = read(Path("run/pipeline_report.json"))
        assert (code, again["returns_passed"]) == (0 if passes else 1, passes)
        if not passes:
            assert "of the better parent's return is" in again["reason"]
    code, *_ = run(capsys, "dual-teacher-cartpole", *SMALL, *strict, "--report-only")
    report = read(Path("run/pipeline_report.json"))
    assert (code, report["passed"], report["checks_passed"]) == (0, True, False)


@pytest.mark.slow
def test_the_canonical_run_passes_and_its_int8_child_plays_as_well_as_a_parent(
    tmp_path, capsys
) -> None:
    code, *_ = run(capsys, "dual-teacher-cartpole", "--output-dir", str(tmp_path))
    report = read(tmp_path / "pipeline_report.json")
    assert (code, report["checks_passed"]) == (0, True)
    assert report["returns"]["episodes"] == 100
    assert min(report["child_return_share"], report["child_int8_return_share"]) >= 0.99
    assert max(report["returns"]["roles"][f"parent_{label}"]["mean"] for label in "AB") > 450


def test_the_demo_writes_its_files_and_judges_the_child(folder, tmp_path, capsys) -> None:
    for path in (folder / "run").glob("parent_*"):
        shutil.copy(path, tmp_path)
    for label in "AB":
        shutil.copy(folder / "run" / f"replay_states_{label}.npy", tmp_path)
    small = ("--episodes", "3", "--finetune-epochs", "1", "--n-states", "300")
    out_dir = ("--output-dir", str(tmp_path))
    code, out, _ = run(capsys, "cartpole-recombination", *small, *out_dir)
    report = read(tmp_path / "recombination_validation.json")
    assert code == (0 if report["passed"] else 1)
    assert "parent A: reused" in out
    for name in ("child_crossover.pt", "child_finetuned.pt"):
        assert (tmp_path / name).is_file()
        assert (tmp_path / f"{name}.json").is_file()
    assert set(report["comparisons"]) == {"child_vs_parent_a", "child_vs_parent_b"}
    assert report["states"]["held_out"] is True
    assert report["config"]["finetune_lr"] == 1e-3
    assert set(report["returns"]["roles"]) == {
        "parent_a",
        "parent_b",
        "child_crossover",
        "child",
        "ensemble",
    }
    strict = ("--min-action-agreement", "1", "--max-kl-divergence", "0")
    assert run(capsys, "cartpole-recombination", *small, *out_dir, *strict)[0] == 1
    more = (*strict, "--report-only", "--include-parent-baseline")
    assert run(capsys, "cartpole-recombination", *small, *out_dir, *more)[0] == 0
    assert len(read(tmp_path / "recombination_validation.json")["comparisons"]) == 3


def test_flags_that_parents_of_the_folder_contradict_are_refused(
    folder, tmp_path, capsys, monkeypatch
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "run" / "pipeline_report.json").read_bytes()
    asked = ("--seed-a", "7", "--hidden-size", "64", "--train-episodes", "2")
    for command in ("dual-teacher-cartpole", "cartpole-recombination"):
        code, _, err = run(capsys, command, *asked, "--output-dir", "run")
        assert code == 2
        assert (
            "parent A was trained with --seed-a 42 and --hidden-size 32, not 7 and 64; leave out "
            "what differs, or train anew with --force-train, or choose another --output-dir"
        ) in err
    assert (tmp_path / "run" / "pipeline_report.json").read_bytes() == before


def test_every_stage_tells_how_close_its_networks_come(folder, tmp_path, capsys, monkeypatch):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    _, out, _ = run(capsys, "dual-teacher-cartpole", *LATER, "--report-only", "--output-dir", "run")
    report = read(Path("run/pipeline_report.json"))
    for label in "AB":
        student = report["stages"][f"distillation_{label}"]["heldout"]["action_agreement"]
        int8 = report["stages"][f"quantization_{label}"]["comparison"]["action_agreement"]
        assert f"student {label}: acts as parent {label} in {student:.1%} of held-out" in out
        assert f"student {label} as int8: acts as in float in {int8:.1%} of held-out" in out
    assert "raw child: acts as parents A and B in" in out
    assert "kept of 6 variants: temperature" in out
    assert " ".join(report["crossing"].split()) in " ".join(out.split())
    assert "crossing did" in report["crossing"] or "crossing helped" in report["crossing"]
    # Two episodes of training make poor players, and no limit asks for returns.
    assert any("plays well: the best mean return is" in line for line in report["warnings"])
    for warning in report["warnings"]:
        assert f"warning: {warning}" in " ".join(out.split())
    assert max(map(len, (line for line in out.splitlines() if "/" not in line))) <= 80


def test_the_check_of_the_students_divergence_has_its_own_name(folder) -> None:
    report = read(folder / "run" / "distillation_report_A.json")
    checks = {check["name"]: check["value"] for check in report["checks"]}
    assert set(checks) == {"action_agreement", "kl_at_distillation_temperature"}
    for name, value in checks.items():
        assert value == report[name]


def test_who_stops_a_run_is_told_how_to_go_on(tmp_path, capsys, monkeypatch) -> None:
    from engine.stages.cartpole import report

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "run_dual_teacher", stopped)
    arguments = ("dual-teacher-cartpole", "--output-dir", str(tmp_path))
    code, _, err = run(capsys, *arguments)
    assert code == 130
    assert "start the same command again: parents that are finished are reused" in err
    _, _, err = run(capsys, *arguments, "--force-train")
    assert "start the same command again without --force-train: parents" in err
