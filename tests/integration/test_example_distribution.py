"""The distribution in examples/ is built, installed, tested and bred with, as its README says."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "cultivar-busier"
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check", "install")
OFFLINE = ("--no-deps", "--no-build-isolation", "--no-index")
RIVAL = """
[project]
name = "cultivar-rival"
version = "0.1.0"

[project.entry-points."cultivar.crossover"]
busier = "rival:RivalCrossover"

[tool.setuptools]
py-modules = ["rival"]
"""


def python(*arguments: str | Path, found: Path | None = None, cwd: Path = ROOT) -> tuple[int, str]:
    """Run this Python and return its exit code and everything it said.

    Args:
        arguments: What follows ``python``.
        found: Folder with installed distributions, besides those of this Python.
        cwd: Where it runs.
    """
    path = os.pathsep.join(str(folder) for folder in (found, ROOT) if folder)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def cultivar(*arguments: str | Path, found: Path) -> tuple[int, str]:
    return python("-m", "engine.cli.main", *arguments, found=found)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """Return a copy of the example: building leaves folders beside the source."""
    folder = tmp_path_factory.mktemp("example") / EXAMPLE.name
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return folder


@pytest.fixture(scope="module")
def site(copy, tmp_path_factory) -> Path:
    """Return a folder that the example is installed in."""
    target = tmp_path_factory.mktemp("site") / "packages"
    code, said = python(*PIP, *OFFLINE, "--target", target, copy)
    assert code == 0, said
    return target


def test_its_own_tests_pass(copy, site) -> None:
    code, said = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "tests"),
        found=site,
        cwd=copy,
    )
    assert code == 0, said
    assert re.search(r"^\d+ passed", said, re.MULTILINE)


def test_both_operators_are_shown_and_checked_by_name(site) -> None:
    code, said = cultivar("operators", "show", "busier", found=site)
    assert code == 0, said
    assert "sharpness" in said
    assert "activations" in said
    for name in ("busier", "sign_flip"):
        code, said = cultivar("operators", "check", name, found=site)
        assert code == 0, said
        assert re.search(r"^all \d+ checks passed$", said, re.MULTILINE)
    code, said = cultivar("operators", found=site)
    assert code == 0, said
    assert {"busier", "sign_flip", "weighted"} <= set(said.split())


def test_children_are_bred_with_both_operators(site, tmp_path) -> None:
    run = tmp_path / "run"
    code, said = cultivar(
        *("evolve", "smoke", "--workers", "0", "--run-dir", run, "--operator", "busier"),
        *("--set", "evolution.mutation.name=sign_flip"),
        found=site,
    )
    assert code == 0, said
    with (run / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "child" and row["child"]]
    assert len(rows) == 16
    assert {row["operator"] for row in rows} == {"busier"}
    assert {row["operator_params"] for row in rows} == {'{"sharpness":2.0}'}
    assert {json.loads(row["mutation"])["name"] for row in rows} == {"sign_flip"}
    assert {row["status"] for row in rows} <= {"ok", "rejected"}
    assert sum(row["status"] == "ok" for row in rows) >= 8


def test_two_distributions_with_one_name_are_refused_and_both_are_named(
    site, copy, tmp_path
) -> None:
    source = tmp_path / "rival"
    source.mkdir()
    (source / "pyproject.toml").write_text(RIVAL, encoding="utf-8")
    operator = (copy / "src/cultivar_busier/crossover.py").read_text(encoding="utf-8")
    operator = operator.replace("BusierCrossover", "RivalCrossover")
    (source / "rival.py").write_text(operator, encoding="utf-8")
    both = tmp_path / "both"
    shutil.copytree(site, both)
    code, said = python(*PIP, *OFFLINE, "--target", both, source)
    assert code == 0, said

    run = tmp_path / "run"
    for arguments in (
        ("operators", "show", "busier"),
        ("evolve", "smoke", "--workers", "0", "--run-dir", run, "--operator", "busier"),
    ):
        code, said = cultivar(*arguments, found=both)
        assert code == 2, said
        assert "Traceback" not in said
        assert "'busier'" in said
        assert "cultivar_busier:BusierCrossover (installed by cultivar-busier)" in said
        assert "rival:RivalCrossover (installed by cultivar-rival)" in said
        assert "rename one of them" in said
    assert not run.exists()


def test_the_readme_has_the_commands_that_are_tested_here() -> None:
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block.splitlines() == [
        "pip install .",
        "pytest tests",
        "cultivar operators show busier",
        "cultivar operators check busier",
        "cultivar evolve cartpole --operator busier --set evolution.mutation.name=sign_flip",
    ]
    for link in re.findall(r"\]\((\.\./[^)]+)\)", text):
        assert (EXAMPLE / link).exists(), link
