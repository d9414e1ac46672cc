"""atheris finds what was planted, and tells it in the same words as the mutator."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing.coverage_guided import MISSING, explore, is_here

PLANTED = Path(__file__).parent
LIMITS = {"seconds": 1.0, "megabytes": 200, "source": "planted:readers", "folders": (PLANTED,)}

pytestmark = pytest.mark.skipif(not is_here(), reason=MISSING)


@pytest.fixture(scope="module")
def planted() -> dict[str, object]:
    import importlib.util

    spec = importlib.util.spec_from_file_location("planted", PLANTED / "planted.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {reader.name: reader for reader in module.readers(0)}


def test_a_fault_behind_three_branches_is_found_and_kept(planted, tmp_path: Path) -> None:
    found = explore(planted["faulty"], tmp_path, files=20_000, **LIMITS)
    assert found["counts"]["accepted"] > 1000
    assert found["counts"]["rejected"] >= 1
    assert found["counts"]["crash"] >= 1
    ((why, kept),) = found["crashes"].items()
    assert "ZeroDivisionError: 'the planted fault' at planted.py" in why
    assert Path(kept).read_bytes()[:3] == b"Tr!"


def test_a_reader_that_does_not_end_is_ended(planted, tmp_path: Path) -> None:
    limits = LIMITS | {"seconds": 0.2}
    found = explore(planted["endless"], tmp_path, files=20_000, **limits)
    assert found["counts"]["crash"] == 1
    assert Path(found["crashes"]["timeout"]).read_bytes()[:1] == b"T"
