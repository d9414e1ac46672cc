from __future__ import annotations

from pathlib import Path

import pytest

from populations.errors import LeaderboardError
from populations.leaderboard import Columns, LeaderboardWriter, Row, load_leaderboard
from populations.leaderboard_query import best_rows
from populations.lineage import ancestors, describe_rows, family_tree, parents_from_rows

FAMILY = {
    "champion": ("mother", "father"),
    "mother": ("grandmother", "ancestor"),
    "father": ("grandmother",),
    "grandmother": ("ancestor",),
    "ancestor": (),
}


def test_ancestors_come_nearest_first_with_their_distance() -> None:
    found = ancestors("champion", FAMILY)
    assert list(found.items()) == [
        ("mother", 1),
        ("father", 1),
        ("grandmother", 2),
        ("ancestor", 2),
    ]
    assert ancestors("ancestor", FAMILY) == {}
    assert ancestors("stranger", FAMILY) == {}


def test_ancestors_of_a_cycle_end() -> None:
    assert ancestors("a", {"a": ("b",), "b": ("a", "c")}) == {"b": 1, "c": 2}
    assert ancestors("a", {"a": ("a",)}) == {}


def test_a_shared_ancestor_is_drawn_once() -> None:
    assert family_tree("champion", FAMILY) == (
        "champion\n"
        "├── mother\n"
        "│   ├── grandmother\n"
        "│   │   └── ancestor\n"
        "│   └── ancestor\n"
        "└── father\n"
        "    └── grandmother (see above)"
    )


def test_a_cycle_is_drawn_once() -> None:
    assert family_tree("a", {"a": ("b", "b"), "b": ("a",)}) == "a\n└── b\n    └── a (see above)"


def test_the_depth_limit_tells_how_many_ancestors_follow() -> None:
    assert family_tree("champion", FAMILY, max_depth=1) == (
        "champion\n├── mother (2 more ancestors)\n└── father (2 more ancestors)"
    )
    assert family_tree("champion", FAMILY, max_depth=0) == "champion (4 more ancestors)"
    assert family_tree("mother", FAMILY, max_depth=1) == (
        "mother\n├── grandmother (1 more ancestor)\n└── ancestor"
    )


def test_a_genome_cut_by_the_depth_limit_is_drawn_where_there_is_room() -> None:
    family = {"a": ("b", "c"), "b": ("c",), "c": ("d",)}
    assert family_tree("a", family, max_depth=2) == (
        "a\n├── b\n│   └── c (1 more ancestor)\n└── c\n    └── d"
    )


def test_thousands_of_generations_are_drawn() -> None:
    family = {str(i): (str(i + 1),) for i in range(3000)}
    assert family_tree("0", family).count("\n") == 3000
    assert len(ancestors("0", family)) == 3000


def write(path: Path, rows: list[Row]) -> Path:
    LeaderboardWriter(path / "leaderboard.csv", Columns()).rewrite(rows)
    return path


def test_a_leaderboard_gives_parents_and_descriptions(tmp_path: Path) -> None:
    rows = [
        Row(run="r", kind="teacher", generation=0, fitness=9.0),
        Row(run="r", kind="student", generation=0, genome="aa", parents=(), fitness=1 / 3),
        Row(run="r", kind="child", generation=1, genome="bb", parents=("aa",), operator="unit"),
        Row(run="r", kind="child", generation=2, genome="bb", parents=("cc",), operator="layer"),
        Row(run="r", kind="child", generation=2, genome="bb", fitness=2.5, episodes=64),
    ]
    frame = load_leaderboard([write(tmp_path, rows)])
    parents_of = parents_from_rows(frame)
    assert parents_of == {"aa": (), "bb": ("aa",)}
    assert family_tree("bb", parents_of, describe_rows(best_rows(frame))) == (
        "bb  child, unit, generation 2, fitness 2.5\n"
        "└── aa  student, generation 0, fitness 0.333333"
    )
    assert describe_rows(frame)("zz") == "zz  not on the leaderboard"


@pytest.mark.parametrize("cell", ["[1]", "aa bb", '"aa"'])
def test_damaged_parents_are_told(tmp_path: Path, cell: str) -> None:
    row = Row(run="r", kind="child", generation=1, genome="bb", parents=("aa",))
    frame = load_leaderboard([write(tmp_path, [row])])
    frame["parents"] = cell
    with pytest.raises(LeaderboardError, match="parents of genome bb must be a JSON list"):
        parents_from_rows(frame)
