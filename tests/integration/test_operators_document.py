"""docs/operators.md is true: its files and commands work as written, in order, in one folder."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from engine.config import RunConfig
from populations.network import NetworkSpec
from strategies import Family, crossovers, load_plugin_file, mutations, selections
from strategies.operator import NEEDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS: list[tuple[str, str]] = BLOCK.findall(PAGE)
COMMANDS = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines()]
# The command under test, and an installation that touches nothing and needs no network.
CULTIVAR = f'#!/bin/sh\nexec "{sys.executable}" -m engine.cli.main "$@"\n'
INSTALL = (
    f'#!/bin/sh\nexec "{sys.executable}" -m pip --quiet --disable-pip-version-check "$@" '
    '--no-deps --no-build-isolation --no-index --target "$PACKAGES"\n'
)

Check = Callable[[Path, str], None]
CHECKS: dict[str, Check] = {}


def after(command: str) -> Callable[[Check], Check]:
    """Return a decorator for what is checked after a command: its folder and what it printed."""

    def enter(check: Check) -> Check:
        CHECKS[command] = check
        return check

    return enter


@after("cultivar operators check stroll.py:StrollCrossover")
def the_example_keeps_the_contract(folder: Path, out: str) -> None:
    assert "crossover stroll.py:StrollCrossover" in out
    assert re.search(r"^all \d+ checks passed$", out, re.MULTILINE)


@after(
    "cultivar evolve smoke --workers 0 --run-dir runs/stroll --plugin stroll.py --operator stroll"
)
def the_example_breeds(folder: Path, out: str) -> None:
    assert "champion " in out
    rows = children(folder / "runs/stroll")
    assert {row["operator"] for row in rows} == {"stroll"}
    assert {row["operator_params"] for row in rows} == {'{"reach":0.3}'}
    assert sum(row["status"] == "ok" for row in rows) >= 8


@after("cultivar leaderboard runs/stroll --by operator")
def its_children_are_summed_up(folder: Path, out: str) -> None:
    assert ["child", "stroll"] in [line.split()[:2] for line in out.splitlines()]


@after("pip install .")
def the_example_is_a_package(folder: Path, out: str) -> None:
    installed = folder / "packages"
    assert (installed / "stroll.py").read_bytes() == (folder / "stroll.py").read_bytes()
    assert list(installed.glob("cultivar_stroll-*.dist-info/entry_points.txt"))


@after("cultivar operators show stroll")
def the_package_is_found_by_name(folder: Path, out: str) -> None:
    assert "Walk from the first parent towards the second" in out
    assert "reach" in out


@after("cultivar operators check drift.py")
def mutation_and_selection_keep_theirs(folder: Path, out: str) -> None:
    assert "mutation drift.py:DriftMutation" in out
    assert "selection drift.py:NeighborsSelection" in out
    assert len(re.findall(r"^all \d+ checks passed$", out, re.MULTILINE)) == 2


@after(
    "cultivar evolve smoke --workers 0 --run-dir runs/drift --plugin drift.py "
    "--set evolution.mutation.name=drift --set evolution.selection.name=neighbors"
)
def mutation_and_selection_breed(folder: Path, out: str) -> None:
    rows = children(folder / "runs/drift")
    assert {json.loads(row["mutation"])["name"] for row in rows} == {"drift"}
    assert sum(row["status"] == "ok" for row in rows) >= 8


def children(run: Path) -> list[dict[str, str]]:
    with (run / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    born = [row for row in rows if row["kind"] == "child" and row["child"]]
    assert born
    return born


class Reader:
    """Somebody who writes the files of the page and types its commands, from the top."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._left = list(COMMANDS)
        self._printed: dict[str, str] = {}
        programs = folder / "programs"
        programs.mkdir()
        for name, script in (("cultivar", CULTIVAR), ("pip", INSTALL)):
            (programs / name).write_text(script, encoding="utf-8")
            (programs / name).chmod(0o755)
        for name, content in files().items():
            (folder / name).write_text(content, encoding="utf-8")

    def type_up_to(self, command: str) -> str:
        """Execute what has not been executed yet, up to a command; return what that printed."""
        while command not in self._printed:
            one = self._left.pop(0)
            self._printed[one] = self.execute(one)
        return self._printed[command]

    def execute(self, line: str) -> str:
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "PYTHON"))}
        packages = self.folder / "packages"
        done = subprocess.run(
            ["bash", "-c", line],
            env=inherited
            | {
                "PATH": f"{self.folder / 'programs'}{os.pathsep}{inherited['PATH']}",
                "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}",
                "PYTHONSAFEPATH": "1",  # a file in the folder is not installed
                "PACKAGES": str(packages),
            },
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout


def files() -> dict[str, str]:
    """Return the files of the page: blocks whose first line is a comment with a name."""
    found = {}
    for language, block in BLOCKS:
        name, _, content = block.partition("\n")
        if language in ("python", "toml"):
            assert re.fullmatch(r"# [\w.]+", name), f"a block without a name: {name}"
            found[name.removeprefix("# ")] = content
    return found


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Reader:
    return Reader(tmp_path_factory.mktemp("reader"))


def test_no_command_and_no_file_of_the_page_is_left_out() -> None:
    assert list(CHECKS) == COMMANDS
    assert set(files()) == {"stroll.py", "pyproject.toml", "test_stroll.py", "drift.py"}
    assert {language for language, _ in BLOCKS} == {"python", "toml", "sh", "yaml"}


@pytest.mark.parametrize("command", CHECKS, ids=[check.__name__ for check in CHECKS.values()])
def test_the_page_is_true(reader, command) -> None:
    printed = reader.type_up_to(command)
    CHECKS[command](reader.folder, printed)


def test_an_operator_is_written_checked_used_and_published_in_under_forty_lines() -> None:
    section = PAGE.partition("## From an empty file to a package\n")[2].partition("\n## ")[0]
    blocks = BLOCK.findall(section)
    assert [language for language, _ in blocks] == ["python", "sh", "toml", "sh"]
    assert sum(len(block.splitlines()) for _, block in blocks) < 40
    (operator,) = (block for language, block in blocks if language == "python")
    body = operator[operator.index("class ") :].splitlines()
    assert len([line for line in body if line.strip()]) <= 15
    assert any("pip install" in block for _, block in blocks)


def test_the_test_of_the_page_passes(reader) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_stroll.py"],
        cwd=reader.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_recipes_of_the_page_are_a_configuration(tmp_path) -> None:
    (block,) = (block for language, block in BLOCKS if language == "yaml")
    config = RunConfig.model_validate(yaml.safe_load(block))
    assert config.plugins == ("stroll.py",)
    (tmp_path / "recipes.yaml").write_text(block, encoding="utf-8")
    # In a folder where the package is not installed: its operator would have the name already.
    printed = Reader(tmp_path).execute(
        "cultivar evolve recipes.yaml --workers 0 --run-dir runs/recipes --quiet "
        "--set evolution.generations=1 --set evolution.children=24 --set evolution.population=4 "
        "--set evolution.elites=2 --set distillation.students=4 --set distillation.steps=50 "
        "--set distillation.ancestor_steps=50 --set finetune.steps=10 "
        "--set 'teachers.training.steps=[4000]' --set 'teachers.hidden=[16]' "
        "--set evaluation.holdout_episodes=4 --set evaluation.episodes=2"
    )
    assert "champion " in printed
    rows = children(tmp_path / "runs/recipes")
    strolled = {row["operator_params"] for row in rows if row["operator"] == "stroll"}
    assert strolled == {'{"reach":0.1}', '{"reach":1.0}'}
    assert {row["operator"] for row in rows} == {"stroll", "unit"}


def test_the_example_does_what_its_docstring_says(tmp_path) -> None:
    source = files()["stroll.py"].replace('"stroll"', '"stroll_of_the_page"')
    (tmp_path / "stroll.py").write_text(source, encoding="utf-8")
    operator = load_plugin_file(tmp_path / "stroll.py").StrollCrossover(reach=0.5)
    spec = NetworkSpec((3,), (4,), 2)
    zero, one = (
        {name: np.full(shape, value, np.float32) for name, shape in spec.shapes.items()}
        for value in (0, 1)
    )
    child = operator.cross(Family([zero, one], spec, "ab", [1, 0]), np.random.default_rng(0))
    steps = []
    for block in spec.blocks:
        (step,) = {float(number) for name in block.tensors for number in child[name].flat}
        assert 0 <= step <= 0.5
        steps.append(step)
    assert steps[0] != steps[1]


def test_all_needs_are_explained() -> None:
    explained = re.findall(r'^\| `"(\w+)"` \| `parents\.(\w+)', PAGE, re.MULTILINE)
    assert sorted(need for need, _ in explained) == sorted(NEEDS)
    assert all(need == attribute for need, attribute in explained)


def test_the_catalogue_is_up_to_date_and_complete() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "document_operators.py", "--check"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.partition("## Catalogue")[2], re.MULTILINE)
    built_in = [
        name
        for registry in (crossovers, mutations, selections)
        for name in registry.available()
        if registry.get(name).__module__.startswith("strategies.")
    ]
    assert listed == built_in
    assert len(built_in) > 10


def test_the_groups_of_entry_points_are_those_that_are_looked_for() -> None:
    project = tomllib.loads(files()["pyproject.toml"])["project"]
    assert list(project["entry-points"]) == [f"cultivar.{crossovers.kind}"]
    for registry in (crossovers, mutations, selections):
        assert f"`cultivar.{registry.kind}`" in PAGE


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
