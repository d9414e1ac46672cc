"""The documented flags reach the searches, and what a user can mend is said in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from engine.cli.stages.multi_generation import multi_gen_search
from engine.cli.stages.search import crossover_search
from engine.errors import DispatchError, StageError
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.roles import save_role, sidecar


def invoke(command, line: str) -> Result:
    return CliRunner().invoke(command, line.split(), catch_exceptions=False)


@pytest.fixture
def parents(tmp_path: Path) -> str:
    for name, seed in (("A", 0), ("B", 1)):
        spec = teacher_spec(4, 2, 16)
        network = Network(spec, initial_weights(spec, seed))
        save_role(tmp_path / f"{name}.pt", network, sidecar("student", spec, 0.05))
    return f"--parent-a-ckpt {tmp_path}/A.pt --parent-b-ckpt {tmp_path}/B.pt --n-states 96"


def test_a_custom_grid_of_given_parents(parents, tmp_path) -> None:
    done = invoke(
        crossover_search,
        f"{parents} --search-space custom --crossover-modes weighted layer --alpha-values 0.25 0.75"
        f" --finetune-regimes short --output-dir {tmp_path}/run --quiet",
    )
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert [(r["crossover_mode"], r["crossover_alpha"]) for r in manifest] == [
        ("weighted", 0.25),
        ("weighted", 0.75),
        ("layer", 0.5),
    ]
    config = json.loads((tmp_path / "run" / manifest[0]["run_config_path"]).read_text())
    assert config["states"]["n_train"] == 96
    assert config["finetune"]["dropout"] == 0.05  # the student's
    assert config["parents"]["parent_a"]["path"] == "../../A.pt"
    assert "rank" in done.stdout
    again = invoke(crossover_search, f"--reproduce {tmp_path}/run/{manifest[0]['run_config_path']}")
    assert "child.pt: the same bytes" in again.output


def test_parents_that_nobody_gave_are_untrained_and_kept(tmp_path) -> None:
    line = f"--input-dim 4 --output-dim 2 --hidden-size 16 --n-states 96 --run-dir {tmp_path}/run"
    done = invoke(
        crossover_search, f"{line} --search-space minimal --max-runs 1 --no-parent-baseline"
    )
    assert done.exit_code == 0, done.output
    assert "1/1 000_random_a0p50_s0_short ok" in done.stderr
    assert {"parent_A.pt", "parent_B.pt.json"} <= {p.name for p in (tmp_path / "run").iterdir()}
    assert len(json.loads((tmp_path / "run/leaderboard.json").read_text())) == 1


def test_untrained_parents_of_other_sizes_do_not_replace_those_there(tmp_path) -> None:
    line = f"--input-dim 4 --output-dim 2 --n-states 96 --max-runs 1 --run-dir {tmp_path}/run"
    invoke(crossover_search, f"{line} --hidden-size 16 --quiet")
    before = (tmp_path / "run/parent_A.pt").read_bytes()
    with pytest.raises(StageError, match=r"parent_A.pt is not the untrained network .*--parent-a-"):
        invoke(crossover_search, f"{line} --hidden-size 24 --quiet")
    assert (tmp_path / "run/parent_A.pt").read_bytes() == before
    again = invoke(crossover_search, f"{line} --hidden-size 16")
    assert "1 of 1 children were made before" in again.stderr


def test_the_table_always_has_the_parents_and_says_what_it_leaves_out(parents, tmp_path) -> None:
    done = invoke(
        crossover_search,
        f"{parents} --search-space custom --crossover-modes weighted --finetune-regimes short"
        f" --alpha-values {' '.join(f'0.{i}' for i in range(10, 26))} --run-dir {tmp_path}/run"
        " --quiet",
    )
    rows = json.loads((tmp_path / "run/leaderboard.json").read_text())
    lines = done.stdout.splitlines()
    for row in rows:
        is_shown = row["rank"] <= 10 or row["is_parent_baseline"]
        assert any(row["child_id"] in line.split() for line in lines) == is_shown
    hidden = sum(row["rank"] > 10 and not row["is_parent_baseline"] for row in rows)
    assert f"{hidden} more in {tmp_path}/run/leaderboard.csv" in lines
    assert f"wrote 16 children, leaderboard.csv and more to {tmp_path}/run" in lines
    assert "return" not in lines[0]


def test_the_table_has_returns_where_an_environment_is_played(parents, tmp_path) -> None:
    line = f"{parents} --env CartPole-v1 --episodes 4 --max-runs 2 --run-dir {tmp_path}/run --quiet"
    lines = invoke(crossover_search, line).stdout.splitlines()
    assert lines[0].endswith("with B  return")
    rows = json.loads((tmp_path / "run/leaderboard.json").read_text())
    shown = [float(line.split()[-1]) for line in lines[1 : len(rows) + 1]]
    assert shown == pytest.approx([row["return_mean"] for row in rows], abs=0.06)
    assert max(map(len, lines[: len(rows) + 1])) <= 80


def test_states_of_a_file_are_split(parents, tmp_path) -> None:
    np.save(tmp_path / "s.npy", np.random.default_rng(0).normal(size=(320, 4)).astype(np.float32))
    line = parents.replace("--n-states 96", f"--states-file {tmp_path}/s.npy")
    invoke(crossover_search, f"{line} --max-runs 1 --run-dir {tmp_path}/run --quiet")
    summary = json.loads((tmp_path / "run/search_summary.json").read_text())
    assert (summary["states"]["n_train"], summary["evaluation_states"]["n_states"]) == (288, 32)


def test_training_states_are_judged_on_only_by_a_flag_that_shows(parents, tmp_path) -> None:
    invoke(
        crossover_search, f"{parents} --max-runs 1 --use-training-states --run-dir {tmp_path}/run"
    )
    summary = json.loads((tmp_path / "run/search_summary.json").read_text())
    assert summary["evaluation_states"]["held_out"] is False
    assert summary["evaluation_states"]["sha256"] == summary["states"]["train_sha256"]
    assert "were trained on" in (tmp_path / "run/recommendation.txt").read_text()


def test_generations_print_both_scores(parents, tmp_path) -> None:
    done = invoke(
        multi_gen_search,
        f"{parents} --num-generations 2 --search-space custom --crossover-modes weighted"
        f" --selection-strategy best_vs_original --run-dir {tmp_path}/run --quiet",
    )
    assert done.exit_code == 0, done.output
    assert "vs original" in done.output
    assert max(map(len, done.output.splitlines()[:3])) <= 80
    assert f"wrote multi_gen_summary.json, lineage.json, gen_0, gen_1 to {tmp_path}" in done.output
    lineage = json.loads((tmp_path / "run/lineage.json").read_text())
    # by default a custom grid has one alpha and one regime
    assert [row["name"] for row in lineage] == ["000_weighted_a0p50_sNone_short"] * 2


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("--address nowhere", DispatchError, "--address must be local, auto, HOST:PORT or "),
        ("--min-action-agreement 2", StageError, "--min-action-agreement must be a number from 0"),
        ("--alpha-values 0.5", StageError, "--alpha-values is for --search-space custom"),
        ("--primary-metric return", StageError, "--primary-metric return needs an environment"),
        ("--env Acrobot-v1", StageError, "Acrobot-v1 has 6 inputs and 3 actions"),
        ("--n-states 1", StageError, "--n-states: expected at least 2 states, not 1"),
    ],
)
def test_what_a_user_can_mend_is_said(parents, tmp_path, line, error, message) -> None:
    with pytest.raises(error, match=message):
        invoke(crossover_search, f"{parents} --run-dir {tmp_path}/run {line} --quiet")


@pytest.mark.parametrize("command", [crossover_search, multi_gen_search])
@pytest.mark.parametrize("given", [False, True])
def test_what_a_cluster_may_be_is_passed_on(parents, tmp_path, monkeypatch, command, given) -> None:
    class JoinedError(Exception):
        pass

    def join(limits, address, n_workers, **options):
        assert address == "head:6379"
        assert options["allow_insecure"] is given
        assert options["mixed_cpus"] is given
        raise JoinedError

    monkeypatch.setattr("engine.stages.search.setup.executor_of", join)
    line = f"{parents} --run-dir {tmp_path}/run --quiet --address head:6379"
    with pytest.raises(JoinedError):
        invoke(command, f"{line} --allow-insecure-cluster --mixed-cpus" if given else line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--workers 0", "x>=1"),
        ("--max-runs 0", "x>=1"),
        ("--search-space tiny", "'tiny' is not one of"),
        ("--degenerate-threshold nan", "not a finite number"),
        ("--finetune-regimes short longer", "'longer' is not one of"),
    ],
)
def test_flags_out_of_range_are_refused(line, message) -> None:
    done = invoke(crossover_search, line)
    assert done.exit_code == 2
    assert message in done.output


def test_parents_of_different_tasks_are_refused(parents, tmp_path) -> None:
    spec = teacher_spec(3, 2, 16)
    save_role(
        tmp_path / "B.pt", Network(spec, initial_weights(spec, 1)), sidecar("student", spec, 0.05)
    )
    with pytest.raises(
        StageError, match=r"A.pt has 4 inputs and 2 actions, but .*B.pt has 3 and 2"
    ):
        invoke(crossover_search, f"{parents} --run-dir {tmp_path}/run --quiet")
