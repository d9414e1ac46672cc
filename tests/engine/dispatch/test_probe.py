"""A machine's answers can be compared, and need nothing of cultivar to be given."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import torch

from engine.dispatch import probe
from engine.dispatch.probe import DISTRIBUTIONS, PACKAGES, clock, facts, source
from engine.provenance import DISTRIBUTIONS as RECORDED

ROOT = Path(__file__).parents[3]


def test_what_a_run_records_is_what_nodes_are_asked_for() -> None:
    assert DISTRIBUTIONS == RECORDED


def test_facts_are_those_of_this_process() -> None:
    found = facts()
    assert found["versions"]["python"] == platform.python_version()
    assert {n: v for n, v in found["versions"].items() if n != "python"} == {
        name: metadata.version(name) for name in DISTRIBUTIONS
    }
    assert found["cpu"] == torch.backends.cpu.get_cpu_capability()
    assert found["threads"] == torch.get_num_threads()
    assert abs(clock() - time.time()) < 60


def source_of(folder: Path) -> str:
    """Return what a process says whose packages lie in a folder, and nowhere else."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"{Path(probe.__file__).read_text()}\nprint(source())"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_the_digest_of_the_source_changes_with_any_file_of_it(tmp_path) -> None:
    for package in PACKAGES:
        (tmp_path / package / "deep").mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "deep/code.py").write_text(f"# {package}", encoding="utf-8")
    first = source_of(tmp_path)
    assert len(first) == 12
    (tmp_path / "engine/notes.txt").touch()
    assert source_of(tmp_path) == first
    code = tmp_path / "strategies/deep/code.py"
    code.rename(code.with_name("kode.py"))
    renamed = source_of(tmp_path)
    code.with_name("kode.py").write_text("# changed", encoding="utf-8")
    changed = source_of(tmp_path)
    shutil.rmtree(tmp_path / "populations")
    assert len({first, renamed, changed}) == 3
    assert source_of(tmp_path) == ""


def test_the_digest_is_that_of_the_packages_that_are_imported() -> None:
    assert source() == source_of(ROOT)
