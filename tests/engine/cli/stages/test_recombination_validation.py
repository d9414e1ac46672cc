from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.cli import main
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.quantization.weights import quantized
from engine.stages.recombination.finetuning_config import FineTuningConfig
from engine.stages.recombination.finetuning_run import Crossover, Family, finetune_child
from engine.stages.roles import load_role, save_role, sidecar
from engine.stages.state_sets import training_states

SPEC = teacher_spec(8, 4, 16)
QUICK = ("--latency-repeats", "1", "--latency-warmup", "0")
# Source: the report of AgentFarm's validator, schema 1.1.
KEYS = {
    "schema_version",
    "torch_version",
    "states",
    "model_paths",
    "model_formats",
    "comparisons",
    "summary",
    "thresholds",
    "passed",
}
METRICS = {
    "label",
    "action_agreement",
    "top_k_agreements",
    "kl_divergence",
    "mse",
    "mae",
    "mean_cosine_similarity",
    "reference_inference_ms",
    "query_inference_ms",
    "passed",
}


def run(capsys, *arguments: object) -> tuple[object, str, str]:
    """Return exit code, output and errors of the command."""
    with pytest.raises(SystemExit) as exited:
        main.main(["validate-recombination", *QUICK, *map(str, arguments)])
    captured = capsys.readouterr()
    return exited.value.code, captured.out, captured.err


def saved(path: Path, seed: int, spec=SPEC, **about: object) -> Path:
    network = Network(spec, initial_weights(spec, seed))
    save_role(path, network, sidecar("student", spec, 0.05, **about))
    return path


def flags_of(a: Path, b: Path, child: Path) -> list[object]:
    return ["--parent-a-ckpt", a, "--parent-b-ckpt", b, "--child-ckpt", child]


def rows_of_cartpole(directory: Path) -> Path:
    states = np.random.default_rng(0).uniform(-0.2, 0.2, (100, 4)).astype(np.float32)
    np.save(directory / "rows.npy", states)
    return directory / "rows.npy"


def report_in(directory: Path) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (directory / "recombination_validation.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    """Return a folder with a.pt and b.pt, and in ``out`` a child tuned towards A."""
    folder = tmp_path_factory.mktemp("family")
    a, b = (load_role(name, saved(folder / f"{name}.pt", i)) for i, name in enumerate("ab"))
    config = FineTuningConfig(epochs=6, quantization_applied="ptq_dynamic")
    states = training_states(600, 8, 42)
    finetune_child(folder / "out", Family(a, b), Crossover(), config, states)
    return folder


def test_a_child_of_parent_a_alone_honestly_fails_against_b(capsys, tmp_path, family) -> None:
    child = family / "out" / "child_finetuned.pt"
    flags = flags_of(family / "a.pt", family / "b.pt", child)
    code, text, err = run(capsys, *flags, "--include-parent-baseline", "--report-dir", tmp_path)
    assert (code, err) == (1, "")
    report = report_in(tmp_path)
    assert set(report) >= KEYS
    labels = ["child_vs_parent_a", "child_vs_parent_b", "parent_a_vs_parent_b"]
    assert list(report["comparisons"]) == labels
    for comparison in report["comparisons"].values():
        assert set(comparison) >= METRICS
    assert not report["passed"]
    assert "child_vs_parent_b.action_agreement" in report["failed"]
    with_a, with_b = (report["comparisons"][label]["action_agreement"] for label in labels[:2])
    assert with_a > 0.7 > with_b
    assert report["states"]["held_out"] is True
    assert report["states"]["source"] == "held out when child was trained"
    assert report["states"]["n_states"] == 600
    assert report["returns"]["environment"] is None
    assert "no environment is known" in report["returns"]["reason"]
    assert report["sha256"]["child"] == hashlib.sha256(child.read_bytes()).hexdigest()
    assert "did not pass: child_vs_parent_b" in text
    table = (tmp_path / "recombination_validation.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["comparison"] for row in rows] == labels
    page = (tmp_path / "recombination_validation.md").read_text(encoding="utf-8")
    assert "**Did not pass**" in page


def test_the_held_out_rows_are_those_of_the_child(capsys, tmp_path, family) -> None:
    flags = flags_of(family / "a.pt", family / "b.pt", family / "out" / "child_finetuned.pt")
    run(capsys, *flags, "--n-states", "5000", "--report-dir", tmp_path)
    with np.load(family / "out" / "states.npz") as states:
        heldout = states["heldout"]
    child, a = (load_role("x", flags[i]).network for i in (5, 1))
    expected = (child.q_values(heldout).argmax(1) == a.q_values(heldout).argmax(1)).mean()
    found = report_in(tmp_path)["comparisons"]["child_vs_parent_a"]["action_agreement"]
    assert found == pytest.approx(float(expected))


def test_report_only_exits_with_zero_and_says_so(capsys, tmp_path, family) -> None:
    flags = flags_of(family / "a.pt", family / "b.pt", family / "out" / "child_finetuned.pt")
    code, _, _ = run(capsys, *flags, "--report-only", "--report-dir", tmp_path)
    assert code == 0
    report = report_in(tmp_path)
    assert not report["passed"]
    assert report["report_only"] is True
    assert "parent_a_vs_parent_b" not in report["comparisons"]


def test_a_copy_of_parents_that_are_one_network_passes(capsys, tmp_path, family) -> None:
    a = family / "a.pt"
    code, text, _ = run(capsys, *flags_of(a, a, a), "--report-dir", tmp_path)
    assert code == 0
    report = report_in(tmp_path)
    assert report["passed"]
    assert report["reason"] is None
    assert report["summary"]["oracle_agreement"] == 1
    assert text.splitlines()[0] == "child: passed"


def test_training_states_are_used_only_when_asked_for_and_marked(capsys, tmp_path, family) -> None:
    flags = ["--checkpoint-dir", family / "out", "--use-training-states", "--n-states", "90"]
    code, text, _ = run(capsys, *flags, "--report-dir", tmp_path)
    assert code == 1
    report = report_in(tmp_path)
    assert report["states"]["held_out"] is False
    assert report["states"]["n_states"] == 90
    page = (tmp_path / "recombination_validation.md").read_text(encoding="utf-8")
    assert "was trained on these rows" in page
    assert "--use-training-states" in text


def test_parents_are_found_through_the_sidecar_of_the_child(capsys, tmp_path, family) -> None:
    code, _, _ = run(capsys, "--checkpoint-dir", family / "out", "--report-dir", tmp_path)
    assert code == 1
    paths = {name: Path(path) for name, path in report_in(tmp_path)["model_paths"].items()}
    assert paths["child"] == family / "out" / "child_finetuned.pt"
    assert paths["parent_a"].resolve() == (family / "a.pt").resolve()
    assert paths["parent_b"].resolve() == (family / "b.pt").resolve()


def test_roles_may_be_int8_and_of_different_widths(capsys, tmp_path, family) -> None:
    spec = teacher_spec(8, 4, 24)
    wide = saved(tmp_path / "wide.pt", 3, spec)
    int8 = tmp_path / "a_int8.pt"
    original = load_role("a", family / "a.pt").network
    save_role(int8, quantized(original), sidecar("student", SPEC, 0.05))
    flags = flags_of(int8, wide, family / "out" / "child_finetuned_int8.pt")
    given = ("--parent-a-quantized", "--child-quantized", "--hidden-size", "24")
    code, _, _ = run(capsys, *flags, *given, "--report-dir", tmp_path)
    assert code == 1
    report = report_in(tmp_path)
    assert report["model_formats"] == {"parent_a": "int8", "parent_b": "float32", "child": "int8"}
    assert report["comparisons"]["child_vs_parent_a"]["action_agreement"] > 0.7
    assert report["states"]["held_out"] is True


def test_a_child_with_nan_does_not_pass_and_the_report_is_json(capsys, tmp_path, family) -> None:
    weights = initial_weights(SPEC, 0)
    weights["network.4.weight"][2, 1] = np.nan
    path = tmp_path / "nan.pt"
    torch.save({name: torch.from_numpy(tensor) for name, tensor in weights.items()}, path)
    flags = flags_of(family / "a.pt", family / "b.pt", path)
    played = ("--include-parent-baseline", "--report-dir", tmp_path)
    code, text, _ = run(capsys, *flags, *played)
    assert code == 1
    report = report_in(tmp_path)
    assert report["passed"] is False
    assert report["reason"] == "child: network.4.weight holds NaN or infinity"
    assert report["comparisons"]["child_vs_parent_a"]["action_agreement"] is None
    assert report["comparisons"]["parent_a_vs_parent_b"]["action_agreement"] > 0
    assert "did not pass: child: network.4.weight holds NaN or infinity" in text
    code, _, _ = run(capsys, *flags, *played, "--report-only")
    assert code == 0


def test_all_play_where_the_environment_is_known(capsys, tmp_path) -> None:
    spec = teacher_spec(4, 2, 16)
    flags = flags_of(
        *(saved(tmp_path / f"{i}.pt", i, spec, environment="CartPole-v1") for i in range(3))
    )
    flags += ["--states-file", rows_of_cartpole(tmp_path), "--episodes", "3"]
    flags += ["--report-dir", tmp_path]
    code, text, _ = run(capsys, *flags)
    assert code in (0, 1)
    returns = report_in(tmp_path)["returns"]
    assert returns["environment"] == "CartPole-v1"
    assert set(returns["roles"]) == {"parent_a", "parent_b", "child", "ensemble"}
    assert returns["roles"]["ensemble"]["members"] == ["parent_a", "parent_b"]
    assert returns["roles"]["child"]["episodes"] == 3
    child = returns["roles"]["child"]
    low, high = child["ci95"]
    assert f"    {'child':<20}  {child['mean']:>6.1f}  {low:.1f} to {high:.1f}\n" in text
    checks = report_in(tmp_path)["checks"]
    assert len(checks) == 8
    for check in checks:
        assert f"  {check['name']} " in text
    run(capsys, *flags[:-4], "--episodes", "0", "--report-dir", tmp_path)
    assert report_in(tmp_path)["returns"]["reason"] == "no episodes were asked for (--episodes 0)"


def test_networks_of_two_environments_play_none_unless_one_is_given(capsys, tmp_path) -> None:
    spec = teacher_spec(4, 2, 16)
    environments = ("CartPole-v1", "CartPole-v0", None)
    files = (
        saved(tmp_path / f"{i}.pt", i, spec, environment=environment)
        for i, environment in enumerate(environments)
    )
    flags = [*flags_of(*files), "--report-dir", tmp_path, "--episodes", "2"]
    flags += ["--states-file", rows_of_cartpole(tmp_path)]
    run(capsys, *flags)
    assert "name different environments; give --env" in report_in(tmp_path)["returns"]["reason"]
    run(capsys, *flags, "--env", "CartPole-v1")
    assert report_in(tmp_path)["returns"]["environment"] == "CartPole-v1"


def test_equal_arguments_give_equal_reports_but_for_the_times(capsys, tmp_path, family) -> None:
    reports = []
    for name in ("one", "other"):
        flags = ("--checkpoint-dir", family / "out", "--report-dir", tmp_path / name)
        run(capsys, *flags, "--include-parent-baseline")
        report = report_in(tmp_path / name)
        for comparison in report["comparisons"].values():
            del comparison["reference_inference_ms"], comparison["query_inference_ms"]
        reports.append(report)
    assert reports[0] == reports[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--min-action-agreement", "1.5"], "--min-action-agreement must be a number from 0 to 1"),
        (["--min-cosine-similarity", "-2"], "--min-cosine-similarity must be a number from -1"),
        (["--max-kl-divergence", "-1"], "--max-kl-divergence must be a number of at least 0"),
        (["--max-mse", "nan"], "is not a finite number"),
        (["--k-values", "1;2"], "--k-values must be like 1,2,3, not '1;2'"),
        (["--k-values", "0"], "--k-values must be whole numbers of at least 1"),
        (["--n-states", "0"], "is not in the range x>=1"),
        (["--child-quantized"], "--child-quantized is given, but"),
        (["--parent-b-quantized"], "is float32; leave --parent-b-quantized out"),
        (["--hidden-size", "64"], "is 64, but the networks have hidden layers of 16"),
        (["--input-dim", "4"], "--input-dim is 4, but child"),
        (["--env", "CartPole-v1"], "CartPole-v1 has 4 inputs and 2 actions"),
        (["--env", "NoSuchGame-v0"], "NoSuchGame"),
        (["--child-ckpt", "none.pt"], "none.pt: expected the file of a trained Q-network"),
        (["--states-file", "none.npy"], "none.npy"),
    ],
)
def test_bad_flags_are_one_error(capsys, tmp_path, family, flags, message) -> None:
    roles = flags_of(family / "a.pt", family / "b.pt", family / "out" / "child_finetuned.pt")
    code, _, err = run(capsys, *roles, "--report-dir", tmp_path / "out", *flags)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("n_rows", [0, 1])
def test_a_states_file_without_enough_rows_is_refused(capsys, tmp_path, family, n_rows) -> None:
    np.save(tmp_path / "s.npy", np.zeros((n_rows, 8), np.float32))
    flags = ("--checkpoint-dir", family / "out", "--states-file", tmp_path / "s.npy")
    code, _, err = run(capsys, *flags, "--report-dir", tmp_path / "out")
    assert code == 2
    assert str(tmp_path / "s.npy") in err


def test_networks_of_different_tasks_are_refused(capsys, tmp_path, family) -> None:
    other = saved(tmp_path / "other.pt", 0, teacher_spec(8, 3, 16))
    flags = flags_of(family / "a.pt", other, family / "out" / "child_finetuned.pt")
    code, _, err = run(capsys, *flags, "--report-dir", tmp_path)
    assert code == 2
    assert "other.pt) has 8 inputs and 3 actions" in err


def test_what_is_not_known_is_asked_for(capsys, tmp_path, family) -> None:
    code, _, err = run(capsys, "--report-dir", tmp_path)
    assert code == 2
    assert "the child is not known; give --child-ckpt, or --checkpoint-dir" in err
    code, _, err = run(capsys, "--checkpoint-dir", tmp_path)
    assert code == 2
    assert "expected child_finetuned.pt or child.pt, but there is none; run 'cultivar" in err
    code, _, err = run(capsys, "--child-ckpt", family / "a.pt", "--report-dir", tmp_path)
    assert code == 2
    assert "has no sidecar that names parent_a; give --parent-a-ckpt" in err
