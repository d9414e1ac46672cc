"""The measurement of the driver: a tiny run is a real one, and its figures add up."""

from __future__ import annotations

import json
from pathlib import Path

import benchmark_scale
import pytest
from scaling import driver
from scaling.births import IdleBirths

from populations.leaderboard import load_leaderboard
from populations.plans import EvaluationPlan
from populations.storage import load_pack

GENERATIONS, CHILDREN = 3, 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Measure a tiny run once."""
    folder = tmp_path_factory.mktemp("scale")
    return folder, driver.measure(folder / "run", folder, GENERATIONS, CHILDREN)


def test_births_are_written_as_those_of_a_real_run(run) -> None:
    folder, _ = run
    rows = load_leaderboard([folder / "run"])
    children = rows[(rows["kind"] == "child") & rows["child"].notna()]
    assert list(children["generation"].value_counts().sort_index()) == [CHILDREN] * GENERATIONS
    assert children["genome"].nunique() == len(children) == GENERATIONS * CHILDREN
    pack = load_pack(folder / "run/genomes/gen-0001.safetensors")
    assert {genome.spec.hidden for genome in pack.values()} == {(32, 32)}
    assert (folder / "run/champion.safetensors").exists()


def test_figures_add_up(run) -> None:
    folder, found = run
    size = sum(file.stat().st_size for file in (folder / "run").rglob("*") if file.is_file())
    assert found["bytes"] * found["children"] == pytest.approx(size)
    stages = found["stages_ms"]
    spent = sum(stages.values()) - stages[driver.WORKER] - stages[driver.ONCE]
    assert spent == pytest.approx(found["cpu_ms"])
    assert [children for children, *_ in found["tenths"]] == [20, 40, 60]
    # Every generation has two batches of children, one of the controls, and one of elites; their
    # results are synced, and so is every stage.
    assert found["syncs"] > GENERATIONS * 4
    assert found["sync_ms"] > 0
    # Of every generation at least its pack, its recipes, its rows and its stage; but no batches.
    assert 4 <= found["end_syncs"] < found["syncs"] / GENERATIONS
    assert 0 < found["end_sync_ms"] < found["syncs"] * found["sync_ms"] / GENERATIONS


def test_a_replayed_run_asks_for_no_birth_and_changes_nothing(run) -> None:
    folder, _ = run
    leaderboard = folder / "run/leaderboard.csv"
    before = leaderboard.read_bytes()
    found = driver.measure(folder / "run", folder, GENERATIONS, CHILDREN, is_again=True)
    assert driver.WORKER not in found["stages_ms"]
    assert leaderboard.read_bytes() == before


def test_parts_of_a_run_are_told_per_child() -> None:
    marks = [(0.0, 10.0, 100.0), (1.0, 12.0, 101.0), (3.0, 18.0, 105.0)]
    assert driver.tenths(marks, 500) == [[500, 2.0, 4.0, 101.0], [1000, 4.0, 12.0, 105.0]]


def test_births_that_do_nothing_take_the_seconds_that_they_are_given() -> None:
    births = IdleBirths(4, [0.25, 0.5])
    plans = [EvaluationPlan(0, index, "g", "elites") for index in range(3)]
    assert births.nap_s(plans) == 0.75
    assert births.nap_s(plans[1:]) == 1.0
    assert IdleBirths(4).nap_s(plans) == 0


def test_the_command_prints_and_writes_its_figures(tmp_path, monkeypatch, capsys) -> None:
    arguments = ["--children", "20", "--per-generation", "10", "--json", str(tmp_path / "figures")]
    monkeypatch.setattr("sys.argv", ["benchmark_scale.py", *arguments])
    benchmark_scale.main()
    out = capsys.readouterr().out
    assert out.startswith("20 children: ")
    assert "  planning births" in out
    assert "\nstatus: " in out
    (found,) = json.loads((tmp_path / "figures").read_text())
    assert found["children"] == 20
    table = benchmark_scale.table([found])
    assert [line[:5] for line in table.splitlines() if line.startswith("| 20")] == ["| 20 "] * 2


def test_a_run_that_is_not_looked_at_has_no_row_of_looks(tmp_path, monkeypatch, capsys) -> None:
    figures = tmp_path / "figures"
    arguments = ["--children", "10", "--per-generation", "10", "--no-looks", "--json", str(figures)]
    monkeypatch.setattr("sys.argv", ["benchmark_scale.py", *arguments])
    benchmark_scale.main()
    assert "status: " not in capsys.readouterr().out
    (found,) = json.loads(figures.read_text())
    assert not {"again", "status", "leaderboard"} & set(found)
    assert "replaying" not in benchmark_scale.table([found])


def test_a_look_that_fails_says_why(tmp_path) -> None:
    with pytest.raises(SystemExit, match=r"status .*nowhere ended with "):
        benchmark_scale.look(["status", str(tmp_path / "nowhere")])


def test_how_far_a_run_is_is_told(tmp_path, capsys) -> None:
    driver.measure(tmp_path / "run", tmp_path, 2, 5)
    assert [line.split(":")[0].strip() for line in capsys.readouterr().err.splitlines()] == [
        "generation 1 of 2",
        "generation 2 of 2",
    ]
