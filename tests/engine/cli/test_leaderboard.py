from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from engine.cli.format import TextColumn, print_columns
from engine.cli.leaderboard import leaderboard, print_finish
from populations.errors import LeaderboardError
from populations.leaderboard import Columns, LeaderboardWriter, Row, load_leaderboard


def child(number: int, fitness: float, **values: Any) -> Row:
    fields: dict[str, Any] = {
        "run": "one",
        "kind": "child",
        "generation": 1,
        "child": number,
        "genome": f"{number:012x}",
        "parents": ("3f9c1a7be210", "b81d04c2aa97"),
        "operator": "unit" if number % 2 else "layer",
        "fitness": fitness,
        "fitness_sem": 0.125,
        "episodes": 32,
        "size_bytes": 4096,
        "parameters": 1282,
    }
    return Row(**(fields | values))


ROWS = [
    Row(run="one", kind="teacher", generation=0, child=0, fitness=230.5, episodes=32),
    child(1, 100 / 3),
    child(2, 200.0),
    child(
        2,
        150.0,
        **{"generation": 2, "child": None, "episodes": 64},  # scored again, not born again
        **{"fitness_holdout": 140.0, "fitness_holdout_sem": 2.0},
    ),
    child(3, -7.25),
    Row(run="one", kind="child", generation=1, child=4, status="failed", reason="a | NaN"),
]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    LeaderboardWriter(path / "leaderboard.csv", Columns(("0",))).rewrite(ROWS)
    return path


def invoke(*arguments: str | Path) -> str:
    result = CliRunner().invoke(
        leaderboard, [str(argument) for argument in arguments], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    return result.stdout


def records(*arguments: str | Path) -> list[dict[str, Any]]:
    values = json.loads(invoke(*arguments, "--format", "json"))
    assert isinstance(values, list)
    return values


def test_the_table_has_a_line_per_genome_the_best_first(run_dir: Path) -> None:
    header, *lines = invoke(run_dir).splitlines()
    assert header.split()[:5] == ["#", "genome", "kind", "gen", "operator"]
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "5"]
    assert "teacher 0" in lines[0]
    assert "000000000002" in lines[1]
    assert "150.0 ± 0.1  140.0 ± 2.0" in lines[1]
    assert "4,096" in lines[1]
    assert "3f9c1a7be210 b81d04c2aa97" in lines[1]
    assert "33.3 ± 0.1" in lines[2]
    assert "a | NaN" in lines[4]
    assert len({line.index("± 0.1") for line in lines[1:4]}) == 1  # numbers are aligned


def test_top_limits_rows_and_tells_how_many_there_are(run_dir: Path) -> None:
    result = CliRunner().invoke(leaderboard, [str(run_dir), "--top", "2"])
    assert len(result.stdout.splitlines()) == 3
    assert result.stderr == "2 of 5 rows; --top 5 shows all\n"
    assert len(records(run_dir, "--top", "2")) == 2
    assert len(records(run_dir, "--top", "0")) == 5


def test_all_rows_shows_every_evaluation(run_dir: Path) -> None:
    assert len(records(run_dir, "--all-rows")) == len(ROWS)


def test_where_is_asked_before_the_best_row_is_chosen(run_dir: Path) -> None:
    found = records(run_dir, "--where", "generation == 1 and fitness > 0")
    assert [(row["genome"], row["fitness"]) for row in found] == [
        ("000000000002", 200.0),
        ("000000000001", 100 / 3),
    ]


@pytest.mark.parametrize("arguments", [("--sort", "-child,fitness"), ("--sort=-child",)])
def test_sort_takes_descending_columns(run_dir: Path, arguments: tuple[str, ...]) -> None:
    assert [row["child"] for row in records(run_dir, *arguments)] == [4, 3, 2, 1, 0]


def test_columns_are_shown_in_the_order_asked_for(run_dir: Path) -> None:
    lines = invoke(run_dir, "--columns", "fitness, parents,child", "--sort", "child").splitlines()
    assert lines[0].split() == ["fitness", "parents", "child"]
    assert lines[2].split() == ["33.3", "3f9c1a7be210", "b81d04c2aa97", "1"]


def test_by_shows_groups(run_dir: Path) -> None:
    lines = invoke(run_dir, "--by", "kind,operator").splitlines()
    assert lines[0].split() == ["kind", "operator", "count", "scored", "mean", "median", "best"]
    assert lines[1].split() == ["child", "layer", "1", "1", "200.0", "200.0", "200.0"]
    assert lines[3].split() == ["child", "-", "1", "0", "-", "-", "-"]
    groups = records(run_dir, "--by", "operator", "--sort", "best", "--where", "fitness > 0")
    assert [group["operator"] for group in groups] == ["unit", "layer"]
    everything = records(run_dir, "--by", "generation", "--all-rows")
    assert {(one["kind"], one["generation"]): one["count"] for one in everything} == {
        ("teacher", 0): 1,
        ("child", 1): 4,
        ("child", 2): 1,
    }


def test_by_counts_every_birth_of_a_genome(run_dir: Path) -> None:
    clones = [child(n, 50.0 * n, kind="control", operator="clone", genome="a" * 12) for n in (1, 3)]
    LeaderboardWriter(run_dir / "leaderboard.csv", Columns()).rewrite([*ROWS, *clones])
    (control,) = records(run_dir, "--by", "operator", "--where", "kind == 'control'")
    assert (control["operator"], control["count"], control["mean"]) == ("clone", 2, 100.0)


def test_csv_is_exact_and_can_be_loaded_again(run_dir: Path, tmp_path: Path) -> None:
    text = invoke(run_dir, "--format", "csv", "--all-rows", "--sort", "generation")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(ROWS)
    assert rows[1]["fitness"] == "33.333333333333336"
    copy = tmp_path / "copy.csv"
    copy.write_text(text)
    assert load_leaderboard([copy])["fitness"].tolist()[1] == 100 / 3


def test_json_has_lists_and_nulls(run_dir: Path) -> None:
    rows = {row["child"]: row for row in records(run_dir)}
    assert rows[1]["parents"] == ["3f9c1a7be210", "b81d04c2aa97"]
    assert rows[1]["episodes"] == 32
    assert rows[4]["fitness"] is None
    assert rows[4]["genome"] is None


def test_arguments_are_short_in_a_table_and_exact_in_a_file(run_dir: Path) -> None:
    mutation = {"name": "gaussian", "size": 0.06837292228616075}
    LeaderboardWriter(run_dir / "leaderboard.csv", Columns()).rewrite(
        [child(1, 2.0, mutation=mutation)]
    )
    assert '"size":0.06837}' in invoke(run_dir, "--columns", "mutation")
    assert records(run_dir)[0]["mutation"] == mutation


def test_a_long_reason_leaves_the_other_columns_whole(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [child(1, 2.0, status="failed", reason="read what it was given, " * 9)]
    LeaderboardWriter(run_dir / "leaderboard.csv", Columns()).rewrite(rows)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(leaderboard, [str(run_dir), "--columns", "operator,genome,reason"])
    header, line = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout).splitlines()
    assert header.split() == ["operator", "genome", "reason"]
    assert line.startswith("unit      000000000001  read what")
    assert (len(line), line[-1]) == (80, "…")


def test_an_infinite_return_is_refused(run_dir: Path) -> None:
    LeaderboardWriter(run_dir / "leaderboard.csv", Columns()).rewrite([child(1, float("-inf"))])
    with pytest.raises(LeaderboardError, match=r"column fitness: .* found '-inf'"):
        invoke(run_dir)


def test_markdown_is_a_table_in_full_precision(run_dir: Path) -> None:
    text = invoke(
        run_dir, "--format", "markdown", "--columns", "child,fitness,reason", "--sort", "-child"
    )
    assert text.splitlines()[:3] == [
        "| child | fitness | reason |",
        "| ---: | ---: | --- |",
        "| 4 |  | a \\| NaN |",
    ]
    assert "| 1 | 33.333333333333336 |  |" in text


def test_several_runs_show_the_run(run_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    LeaderboardWriter(other, Columns(("x",))).rewrite([child(9, 999.0, run="two")])
    header, first, *_ = invoke(run_dir, other).splitlines()
    assert header.split()[:3] == ["#", "run", "genome"]
    assert first.split()[:3] == ["1", "two", "000000000009"]


def test_a_long_reason_is_cut_before_it_is_left_out() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=40, color_system=None)
    columns = [
        TextColumn("status", ["failed"], keep=90),
        TextColumn("reason", ["expected one thing, found another " * 3], keep=80, least=16),
        TextColumn("parents", ["3f9c1a7be210"], keep=10),
    ]
    print_columns(console, columns)
    assert isinstance(console.file, io.StringIO)
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        "status  reason              parents",
        "failed  expected one thin…  3f9c1a7be210",
    ]


def test_no_rows_are_told(run_dir: Path) -> None:
    result = CliRunner().invoke(leaderboard, [str(run_dir), "--where", "fitness > 1e6"])
    assert (result.stdout, result.stderr) == ("", "no rows\n")
    assert records(run_dir, "--where", "fitness > 1e6") == []
    assert invoke(run_dir, "--where", "fitness > 1e6", "--format", "csv").count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--columns", "fitnes"), "'fitnes'. Did you mean fitness"),
        (("--sort", "-fitnes"), "'fitnes'. Did you mean fitness"),
        (("--by", "operatr"), "'operatr'. Did you mean operator"),
        (("--where", "fitness ="), "cannot be read"),
        (("--by", "operator", "--sort", "fitness"), "no column named 'fitness'. Columns: kind, op"),
    ],
)
def test_wrong_options_are_told(run_dir: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(LeaderboardError, match=message.replace(".", r"\.")):
        invoke(run_dir, *arguments)


def test_the_command_is_part_of_the_command_line(run_dir: Path) -> None:
    from engine.cli.main import cli

    result = CliRunner().invoke(cli, ["leaderboard", "--help"])
    assert result.exit_code == 0
    assert "cultivar leaderboard runs/smoke-0 --top 5" in result.output
    assert isinstance(leaderboard, click.Command)


def test_the_finish_is_ranked_by_held_out_return(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rivals = [child(9, 180.0, fitness_holdout=170.0, fitness_holdout_sem=2.0)]
    LeaderboardWriter(run_dir / "leaderboard.csv", Columns(("0",))).rewrite([*ROWS, *rivals])
    print_finish(run_dir)
    printed, said = capsys.readouterr()
    assert said == ""
    _, *rows = printed.splitlines()
    # Those that were not judged on held-out episodes are left out; how an elite was born is told.
    assert [row.split()[:5] for row in rows] == [
        ["1", f"{9:012x}", "child", "1", "unit"],
        ["2", f"{2:012x}", "child", "1", "layer"],
    ]
    print_finish(run_dir, top=1)
    printed, said = capsys.readouterr()
    assert [line.split()[0] for line in printed.splitlines()] == ["#", "1"]
    # ``cultivar evolve``, which this is the end of, has no --top.
    assert said == f"all rows: cultivar leaderboard {run_dir} --top 0\n"


@pytest.mark.parametrize("width", [22, 80, 120])
def test_a_narrow_terminal_leaves_out_the_least_important_columns(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    columns = [
        TextColumn("genome", ["3f9c1a7be210"], keep=100),
        TextColumn("parents", ["p" * 60], keep=1),
        TextColumn("fitness", ["487.3"], is_number=True, keep=100),
        TextColumn("operator", ["o" * 30], keep=2),
    ]
    print_columns(console, columns)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)
    shown = lines[0].split()
    assert (
        shown
        == {
            22: ["genome", "fitness"],
            80: ["genome", "fitness", "operator"],
            120: ["genome", "parents", "fitness", "operator"],
        }[width]
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("search_config.json", "is a crossover search, .*read recommendation.txt and leaderboard"),
        ("multi_gen_config.json", "is a search over generations, .*read multi_gen_summary.json"),
    ],
)
def test_a_search_of_the_pipeline_says_what_to_read(tmp_path, settings, sentence) -> None:
    (tmp_path / settings).write_text("{}")
    (tmp_path / "leaderboard.csv").write_text("rank,child_id\n")
    for path in (tmp_path, tmp_path / "leaderboard.csv"):
        with pytest.raises(LeaderboardError, match=sentence):
            CliRunner().invoke(leaderboard, [str(path)], catch_exceptions=False)
