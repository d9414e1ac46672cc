from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from populations.errors import LeaderboardError
from populations.leaderboard import (
    VOLATILE,
    Columns,
    LeaderboardWriter,
    Row,
    as_table,
    load_leaderboard,
    stable_bytes,
)
from populations.leaderboard_columns import FIXED
from populations.leaderboard_query import (
    aggregate,
    best_rows,
    birth_rows,
    filter_rows,
    sort_rows,
)

COLUMNS = Columns(teachers=("0", "1"))
TEACHER = Row(run="one", kind="teacher", generation=0, fitness=230.0, episodes=32)
STUDENT = Row(run="one", kind="student", generation=0, child=0, genome="3f9c1a7be210", fitness=1e-9)
CHILD = Row(
    run="one",
    kind="child",
    generation=3,
    child=5,
    genome="b81d04c2aa97",
    parents=("3f9c1a7be210", "000000000012"),
    operator="unit",
    operator_params={"weight": 0.25, "a": None},
    align="auto",
    rescale=True,
    preset="short",
    mutation={"name": "gaussian"},
    finetune={"target": "teachers", "steps": 100},
    fitness=1 / 3,
    fitness_sem=0.1,
    episodes=32,
    return_min=-1.0,
    return_max=9.5,
    agreements=(0.5, None),
    kl=0.25,
    size_bytes=4096,
    parameters=1282,
    attempts=1,
    node="alpha",
    wall_s=1.5,
    cpu_s=1.25,
    created_at="2026-01-02T03:04:05Z",
)
FAILED = Row(
    run="one",
    kind="child",
    generation=3,
    child=6,
    status="failed",
    reason="SlerpCrossover raised\nValueError: x, y",
    operator="slerp",
)
ROWS = [TEACHER, STUDENT, CHILD, FAILED]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leaderboard.csv"


@pytest.fixture
def frame(path: Path) -> pd.DataFrame:
    return load(path, ROWS)


def load(path: Path, rows: list[Row], columns: Columns = COLUMNS) -> pd.DataFrame:
    LeaderboardWriter(path, columns).rewrite(rows)
    return load_leaderboard([path])


def genomes(frame: pd.DataFrame) -> list[Any]:
    return frame["genome"].dropna().tolist()


def test_the_row_has_a_field_for_each_column() -> None:
    named = {field.name for field in fields(Row)} - {"agreements", "scenarios"}
    assert named == set(FIXED)
    assert set(VOLATILE) < set(FIXED)


def test_columns_are_in_the_documented_order() -> None:
    names = Columns(("a", "b"), ("windy",)).names
    assert names[:2] == ("schema_version", "run")
    at = names.index("return_max")
    assert names[at : at + 6] == (
        "return_max",
        "scenario_windy",
        "delta_vs_better_parent",
        "agreement_a",
        "agreement_b",
        "kl",
    )
    assert names[-5:] == ("attempts", "node", "wall_s", "cpu_s", "created_at")


def test_appended_rows_equal_rewritten_rows(path: Path, tmp_path: Path) -> None:
    with LeaderboardWriter(path, COLUMNS) as writer:
        writer.append(ROWS[:1])
        assert len(load_leaderboard([path])) == 1  # visible at once
        writer.append(ROWS[1:2])
    with LeaderboardWriter(path, COLUMNS) as writer:
        writer.append(ROWS[2:])
    LeaderboardWriter(tmp_path / "other.csv", COLUMNS).rewrite(iter(ROWS))
    assert path.read_bytes() == (tmp_path / "other.csv").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["leaderboard.csv", "other.csv"]


def test_one_row_is_one_line_with_exact_cells(path: Path) -> None:
    LeaderboardWriter(path, COLUMNS).rewrite(ROWS)
    header, *lines = path.read_text().splitlines()
    assert len(lines) == len(ROWS)
    cells = dict(zip(header.split(","), next(csv.reader([lines[2]])), strict=True))
    assert cells["fitness"] == "0.3333333333333333"
    assert cells["parents"] == '["3f9c1a7be210","000000000012"]'
    assert cells["operator_params"] == '{"a":null,"weight":0.25}'
    assert (cells["rescale"], cells["preset"]) == ("1", "short")
    assert cells["agreement_0"] == "0.5"
    assert cells["agreement_1"] == ""
    assert cells["fitness_holdout"] == ""
    assert "SlerpCrossover raised ValueError: x, y" in lines[3]


@given(value=st.floats(-1e100, 1e100))
def test_floats_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    path = tmp_path_factory.mktemp("leaderboard") / "leaderboard.csv"
    frame = load(path, [replace(CHILD, fitness=value)])
    assert float(frame["fitness"][0]).hex() == value.hex()


@given(text=st.text(max_size=12))
def test_no_text_breaks_the_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("leaderboard") / "leaderboard.csv"
    frame = load(path, [replace(CHILD, reason=text), STUDENT])
    assert genomes(frame) == [CHILD.genome, STUDENT.genome]
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"),
        ("@cmd", "'@cmd"),
        ("+x", "'+x"),
        ("-x", "'-x"),
        ("\t=1", "'=1"),
        ("-5", "-5"),
        ("+1e3", "+1e3"),
        ("NA", "NA"),
        ("a\r\n\tb", "a b"),
    ],
)
def test_text_is_safe_in_a_spreadsheet(path: Path, text: str, written: str) -> None:
    assert load(path, [replace(CHILD, reason=text)])["reason"].tolist() == [written]


def test_loaded_columns_have_fixed_dtypes(frame: pd.DataFrame, path: Path) -> None:
    empty = load(path, [])
    for table in (frame, empty):
        assert tuple(table.columns) == COLUMNS.names
        dtypes = table.dtypes.astype(str)
        assert dtypes["episodes"] == "Int64"
        assert dtypes["fitness"] == dtypes["agreement_0"] == "float64"
        assert dtypes["genome"] == dtypes["parents"] == "string"
    assert frame["genome"].isna().tolist() == [True, False, False, True]
    assert frame["episodes"].isna().tolist() == [False, True, False, True]


def test_genome_ids_that_look_like_numbers_stay_text(path: Path) -> None:
    ids = ["000000000012", "12345678e901"]
    assert genomes(load(path, [replace(CHILD, genome=name) for name in ids])) == ids


def test_a_row_with_the_wrong_number_of_agreements_is_refused(path: Path) -> None:
    row = replace(CHILD, agreements=(0.5,))
    with pytest.raises(LeaderboardError, match=r"1 agreement values, .* has 2 agreement columns"):
        LeaderboardWriter(path, COLUMNS).append([row])


def test_append_refuses_a_file_with_other_columns(path: Path) -> None:
    LeaderboardWriter(path, Columns(("x",))).rewrite([])
    with pytest.raises(LeaderboardError, match="it has other columns"):
        LeaderboardWriter(path, COLUMNS).append(ROWS)


def test_append_refuses_a_file_that_ends_in_half_a_line(path: Path) -> None:
    LeaderboardWriter(path, COLUMNS).rewrite(ROWS)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(LeaderboardError, match="ends in half a line"):
        LeaderboardWriter(path, COLUMNS).append(ROWS)


def test_a_failed_rewrite_keeps_the_old_file(path: Path) -> None:
    writer = LeaderboardWriter(path, COLUMNS)
    writer.rewrite(ROWS)
    before = path.read_bytes()
    with pytest.raises(LeaderboardError):
        writer.rewrite([CHILD, replace(CHILD, agreements=(1.0,))])
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    writer = LeaderboardWriter(tmp_path / "absent" / "leaderboard.csv", COLUMNS)
    for write in (writer.append, writer.rewrite):
        with pytest.raises(LeaderboardError, match=r"cannot write .*absent.*: No such file"):
            write(ROWS)


def test_a_half_written_last_line_is_left_out(path: Path) -> None:
    LeaderboardWriter(path, COLUMNS).rewrite(ROWS)
    data = path.read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(data)):
        path.write_bytes(data[:cut])
        assert len(load_leaderboard([path])) == len(ROWS) - 1


def test_directories_and_files_join_on_the_union_of_columns(tmp_path: Path) -> None:
    for name, teachers in (("a", ("x",)), ("b", ("y",))):
        (tmp_path / name).mkdir()
        row = replace(CHILD, run=name, agreements=(0.75,))
        LeaderboardWriter(tmp_path / name / "leaderboard.csv", Columns(teachers)).rewrite([row])
    frame = load_leaderboard([tmp_path / "a", tmp_path / "b" / "leaderboard.csv", tmp_path / "a"])
    assert frame["run"].tolist() == ["a", "b"]
    assert tuple(frame.columns) == Columns(("x", "y")).names
    assert frame["agreement_x"].tolist()[0] == 0.75
    assert math.isnan(frame["agreement_x"].tolist()[1])
    assert frame["episodes"].dtype == "Int64"


def test_a_file_saved_by_a_spreadsheet_is_read(path: Path) -> None:
    LeaderboardWriter(path, COLUMNS).rewrite(ROWS)
    text = path.read_text().replace("\n", ",note\n", 1)
    text = "".join(line + ("" if "note" in line else ",mine") + "\r\n" for line in text.split("\n"))
    path.write_bytes(b"\xef\xbb\xbf" + text.removesuffix(",mine\r\n").encode() + b"\r\n")
    frame = load_leaderboard([path])
    assert frame.columns[-1] == "note"
    assert frame["note"].tolist() == ["mine"] * len(ROWS)


def test_a_file_of_an_earlier_version_has_empty_cells_for_what_was_added(path: Path) -> None:
    frame = load(path, ROWS)
    old = frame.drop(columns=["rescale", "preset"])
    path.write_text(old.to_csv(index=False, lineterminator="\n"))
    again = load_leaderboard([path])
    assert tuple(again.columns) == COLUMNS.names
    assert again["preset"].isna().all()
    assert again["rescale"].isna().all()
    pd.testing.assert_frame_equal(again[list(old.columns)], old)


def damaged(text: str) -> Iterator[tuple[str, str]]:
    lines = text.splitlines(keepends=True)
    version = text.replace("\n1,", "\n2,")
    yield "", "is empty: expected a header line"
    yield "step,reward\n1,2\n", "is not a leaderboard: expected .* found 'step, reward'"
    yield version, r"line 2, column schema_version: expected 1, found '2'"
    yield version.replace("fitness_sem", "sem"), "expected 1, found '2'"
    yield text.replace("fitness_sem", "sem"), "lacks the columns fitness_sem"
    yield text.replace("agreement_1", "agreement_0"), "more than one column agreement_0"
    yield "".join([*lines[:2], "1,2\n", *lines[2:]]), "line 3: expected 35 cells .* found 2"
    yield (
        text.replace("0.3333333333333333", "high"),
        ("line 4, column fitness: expected a number up to 1e.100, found 'high'"),
    )
    yield (
        text.replace(",1282,", ",12.5,"),
        (r"line 4, column parameters: expected a whole number, found '12\.5'"),
    )


def test_every_way_a_file_can_be_wrong_is_told(path: Path) -> None:
    LeaderboardWriter(path, COLUMNS).rewrite(ROWS)
    cases = list(damaged(path.read_text()))
    assert len(cases) == 9
    for text, message in cases:
        path.write_text(text)
        with pytest.raises(LeaderboardError, match=r"leaderboard\.csv.*" + message):
            load_leaderboard([path])


def test_files_that_are_not_text_or_not_there_are_told(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"\x80\x02}q\x00\n")
    with pytest.raises(LeaderboardError, match="is not UTF-8 text"):
        load_leaderboard([path])
    with pytest.raises(LeaderboardError, match=r"there is no run directory or leaderboard .*nope"):
        load_leaderboard([tmp_path / "nope"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(LeaderboardError, match=r"empty is not a run directory: it has no leader"):
        load_leaderboard([tmp_path / "empty"])
    with pytest.raises(LeaderboardError, match="name at least one"):
        load_leaderboard([])


def test_stable_bytes_differ_only_in_stable_columns(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    LeaderboardWriter(path, COLUMNS).rewrite(ROWS)
    moved = replace(CHILD, run="two", attempts=3, node="beta", wall_s=9.0, cpu_s=9.0, created_at="")
    LeaderboardWriter(other, COLUMNS).rewrite([TEACHER, STUDENT, moved, FAILED])
    assert stable_bytes(path) == stable_bytes(other)
    changed = replace(CHILD, fitness=0.5)
    LeaderboardWriter(other, COLUMNS).rewrite([TEACHER, STUDENT, changed, FAILED])
    assert stable_bytes(path) != stable_bytes(other)
    assert stable_bytes(path).count(b"\n") == 1 + len(ROWS)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("generation >= 3", [2, 3]),
        ("generation >= 3 and fitness > 0.25", [2]),
        ("operator == 'unit' and status == 'ok'", [2]),
        ("operator == 'unit' or kind == 'teacher'", [0, 2]),
        ("operator != 'unit'", [0, 1, 3]),
        ("not fitness > 1", [1, 2, 3]),
        ("operator in ('unit', 'slerp')", [2, 3]),
        ("operator not in ['unit', 'slerp']", [0, 1]),
        ("operator in (None, 'slerp')", [0, 1, 3]),
        ("'3f9c1a7be210' in parents", [2]),
        ("'3f9c1a7be210' not in parents", [0, 1, 3]),
        ("0 < fitness <= 1", [1, 2]),
        ("fitness is None", [3]),
        ("fitness is not None and operator == None", [0, 1]),
        ("fitness * 3 - 1 < 1e-9 and -fitness < +0", [1, 2]),
        ("(fitness - fitness_sem) / episodes > 0", [2]),
        ("fitness / 0 > 1", [0, 1, 2]),
        ("1 / 0 > 1", [0, 1, 2, 3]),
        ("`agreement_0` >= 0.5", [2]),
        ("created_at > '2025-12-31'", [2]),
        ("mutation == 'gaussian'", [2]),
        ("'gaussian' != `mutation`", [0, 1, 3]),
        ("mutation in ('gaussian', 'noise')", [2]),
        ("'\"gauss' in mutation and mutation is not None", [2]),
        ("finetune == 'short'", [2]),
        ("finetune not in ('default', None) and '100' in finetune", [2]),
        (" 1 < 2 ", [0, 1, 2, 3]),
        ("False", []),
    ],
)
def test_filters_select_rows(frame: pd.DataFrame, where: str, rows: list[int]) -> None:
    pd.testing.assert_frame_equal(
        filter_rows(frame, where), frame.iloc[rows].reset_index(drop=True)
    )


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("recipe == 1", r"no column named 'recipe' .*Columns: .*operator, operator_params"),
        ("fitnes > 3", r"no column named 'fitnes' .*Did you mean fitness"),
        ("operator == unit", r"no column named 'unit' \(text goes between quotes\)"),
        ("operator = 'unit'", "cannot be read.*equality is =="),
        ("fitness >", "cannot be read"),
        ("", "cannot be read"),
        ("fitness", "is a number, not a condition such as fitness > 450"),
        ("operator", "is text, not a condition"),
        ("fitness > 3 and operator", "'operator' is text, not a condition"),
        ("operator > 3", "'operator' is text and cannot be compared with '3', which is a number"),
        ("fitness == '3'", "'fitness' is a number and cannot be compared"),
        ("fitness < None", "cannot be compared with 'None'"),
        ("fitness is 3", "'is' compares with None only"),
        ("operator + 'x' == 'y'", "'operator' is text, not a number"),
        ("operator in ('unit', 3)", "holds a number, but is looked up for text"),
        ("operator in operator", "'in' looks for a value in a list"),
        ("'a' in fitness", "'in' looks for a value in a list"),
        ("(fitness > 1) & (fitness < 2)", "write 'and' and 'or'"),
        ("9 ** 9 ** 9 > 1", "is not allowed in a filter; use column names"),
        ("abs(fitness) > 1", "is not allowed in a filter"),
        ("__import__('os').system('true')", "is not allowed in a filter"),
        ("fitness.__class__ == 1", "is not allowed in a filter"),
        ("[x for x in (1,)] == 1", "is not allowed in a filter"),
        ("(lambda: 1)() > 0", "is not allowed in a filter"),
        ("f'{fitness}' == '1'", "is not allowed in a filter"),
        ("1j < 2", "is not allowed in a filter"),
        ("fitness > 1" + "0" * 400, "cannot be read"),
        ("not " * 600 + "1", "at most 2000 characters"),
        ("(" * 900 + "1" + ")" * 900, "cannot be read"),
        ("fitness > 1\0", "cannot be read"),
    ],
)
def test_wrong_filters_are_told(frame: pd.DataFrame, where: str, message: str) -> None:
    with pytest.raises(LeaderboardError, match=message):
        filter_rows(frame, where)


def test_sorting_puts_missing_values_last_and_keeps_equal_rows(frame: pd.DataFrame) -> None:
    assert sort_rows(frame, ["-fitness"])["kind"].tolist() == [
        "teacher",
        "child",
        "student",
        "child",
    ]
    assert sort_rows(frame, ["fitness"])["status"].tolist()[-1] == "failed"
    both = sort_rows(frame, ["-generation", "kind", "-fitness"])
    assert both["kind"].tolist() == ["child", "child", "student", "teacher"]
    assert both["status"].tolist()[0] == "ok"
    pd.testing.assert_frame_equal(sort_rows(frame, []), frame)
    with pytest.raises(LeaderboardError, match=r"'fitnes'\. Did you mean fitness"):
        sort_rows(frame, ["-fitnes"])


def test_the_best_row_of_a_genome_has_most_episodes_and_what_its_other_rows_know(
    path: Path,
) -> None:
    pooled = replace(CHILD, generation=4, episodes=64, fitness=0.4, kl=None, reason="", parents=())
    held_out = replace(CHILD, generation=5, fitness_holdout=0.7, episodes=64, fitness=0.4, kl=None)
    later = replace(CHILD, generation=6, fitness=99.0, episodes=16, kl=None)
    duplicate = replace(
        CHILD,
        generation=7,
        status="rejected",
        reason="duplicate",
        kl=8.0,
        fitness=None,
        episodes=None,
    )
    frame = load(path, [*ROWS, pooled, held_out, later, duplicate])
    best = best_rows(frame)
    assert len(best) == len(ROWS)
    assert tuple(best.columns) == COLUMNS.names
    pd.testing.assert_series_equal(best.dtypes, frame.dtypes)
    row = best[best["genome"] == CHILD.genome].iloc[0]
    assert (row["generation"], row["fitness"], row["fitness_holdout"]) == (3, 0.4, 0.7)
    assert row["kl"] == 0.25
    assert pd.isna(row["reason"])
    assert best_rows(frame.iloc[:0]).empty


def test_births_are_those_of_students_children_and_controls(path: Path) -> None:
    elite = replace(CHILD, child=None, generation=4)
    clone = replace(CHILD, kind="control", operator="clone", child=7)  # nothing has changed it
    ancestor = replace(STUDENT, kind="ancestor")
    teacher = replace(TEACHER, child=0)
    frame = load(path, [teacher, ancestor, STUDENT, CHILD, FAILED, clone, elite])
    pd.testing.assert_frame_equal(
        birth_rows(frame), frame.iloc[[2, 3, 4, 5]].reset_index(drop=True)
    )


def test_groups_keep_kinds_apart(path: Path) -> None:
    student = replace(STUDENT, operator="clone", fitness=1.0)
    control = replace(CHILD, kind="control", operator="clone", fitness=3.0)
    table = aggregate(load(path, [student, control, control]), ["operator", "operator"])
    assert table.columns.tolist()[:3] == ["kind", "operator", "count"]
    assert table.iloc[:, :5].to_numpy().tolist() == [
        ["control", "clone", 2, 2, 3.0],
        ["student", "clone", 1, 1, 1.0],
    ]


def test_groups_tell_mutations_and_fine_tunings_by_name(path: Path) -> None:
    rows = [
        replace(CHILD, mutation={"name": "gaussian", "size": i / 7}, finetune={"steps": i})
        for i in range(3)
    ]
    frame = load(path, [*rows, replace(CHILD, mutation=None, preset="long")])
    table = aggregate(frame, ["mutation", "finetune"])
    assert sorted(table["count"]) == [1, 3]
    assert table["mutation"].dropna().tolist() == ["gaussian"]
    assert set(table["finetune"]) == {"short", "long"}
    frame["mutation"] = "edited by hand"
    assert aggregate(frame, ["mutation"])["mutation"].tolist() == ["edited by hand"]


def test_rows_become_the_table_that_a_file_would_give(path: Path) -> None:
    pd.testing.assert_frame_equal(as_table(ROWS, COLUMNS), load(path, ROWS))
    assert as_table([], COLUMNS).empty


def test_groups_have_count_mean_median_and_best(path: Path) -> None:
    returns = [1.0, 2.0, 9.0]
    frame = load(path, [TEACHER, FAILED, *(replace(CHILD, fitness=value) for value in returns)])
    table = aggregate(frame, ["operator"]).set_index("operator")
    assert table.loc["unit"].tolist() == ["child", 3, 3, 4.0, 2.0, 9.0]
    assert table.loc["slerp"].tolist()[:3] == ["child", 1, 0]
    assert table.index.tolist()[1:] == ["unit", "slerp"]  # best mean first, without fitness last
    assert pd.isna(table.index.tolist()[0])  # the teacher has no operator
    assert aggregate(frame, ["operator", "kind"]).columns.tolist()[:2] == ["operator", "kind"]
    with pytest.raises(LeaderboardError, match="Did you mean operator"):
        aggregate(frame, ["operatr"])
    with pytest.raises(LeaderboardError, match="at least one column"):
        aggregate(frame, [])


def test_a_pipe_is_told_by_the_name_that_it_was_given() -> None:
    reading, writing = os.pipe()  # as a shell does for <(command)
    with (
        os.fdopen(reading, "rb"),
        os.fdopen(writing, "wb"),
        pytest.raises(LeaderboardError) as caught,
    ):
        load_leaderboard([f"/dev/fd/{reading}"])
    assert f"cannot read /dev/fd/{reading}: it is a named pipe" in str(caught.value)


def test_files_are_read_once_and_in_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    names = ("one.csv", "other.csv")
    for name in names:
        load(tmp_path / name, [replace(STUDENT, run=name)])
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "one.csv")
    found = load_leaderboard([tmp_path / "one.csv", tmp_path / "other.csv", link])
    assert found["run"].tolist() == list(names)
