"""The readers under atheris: libFuzzer looks for files that take branches no file has taken."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fuzzing.readers import Reader

HERE = Path(__file__).parent
MISSING = "atheris is not installed; pip install -e '.[fuzz]' (Linux only)"
READERS = "fuzzing.readers:readers"
LONGEST_INPUT = 2**20
RSS_MEGABYTES = 2500
"""Of the whole process, torch and all good files included."""
SPARE_SECONDS = 120
"""On the clock, for imports and for what is slow on a busy machine."""


def is_here() -> bool:
    """Tell whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def explore(
    reader: Reader,
    keep: Path,
    *,
    files: int,
    seconds: float,
    megabytes: int,
    seed: int = 0,
    bomb: int = 2**20,
    duration_s: float | None = None,
    source: str = READERS,
    folders: tuple[Path, ...] = (),
) -> dict[str, Any]:
    """Fuzz one reader in a process of its own.

    Args:
        reader: The reader; its good files are what libFuzzer begins with.
        keep: Folder for the inputs that crash it.
        files: Number of inputs.
        seconds: Of CPU, for one file.
        megabytes: That one file may add.
        seed: Of libFuzzer.
        bomb: Bytes that zip bombs among the good files become.
        duration_s: Stop after this time; None for no limit.
        source: Function of a module that returns the readers, given ``bomb``.
        folders: Where that module lies, if not in ``scripts``.

    Returns:
        ``counts`` of outcomes, ``crashes`` (a file for each reason), the slowest ``seconds``, the
        largest ``megabytes``.
    """
    keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds, work = folder / "seeds", folder / "work"
        seeds.mkdir()
        work.mkdir()
        for number, good in enumerate(reader.samples()):
            (seeds / str(number)).write_bytes(good)
        options = [
            *(f"-atheris_runs={files}", f"-seed={seed + 1}", f"-max_len={LONGEST_INPUT}"),
            *(f"-rss_limit_mb={RSS_MEGABYTES}", f"-timeout={max(int(10 * seconds), 1)}"),
            *("-verbosity=0", "-len_control=0", f"-artifact_prefix={folder}/ended-", str(seeds)),
        ]
        if duration_s is not None:
            options.append(f"-max_total_time={int(duration_s)}")
        asked = {
            "reader": reader.name, "source": source, "bomb": bomb, "keep": str(keep.resolve()),
            "seconds": seconds, "megabytes": megabytes, "counts": str(folder / "counts"),
            "options": options,
        }  # fmt: skip
        places = [str(HERE.parent), str(HERE.parents[1]), *map(str, folders)]
        with (folder / "errors").open("wb") as errors:
            ended = subprocess.run(
                [sys.executable, str(HERE / "instrumented.py"), json.dumps(asked)],
                cwd=work,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(places), "TMPDIR": name},
                stdout=subprocess.DEVNULL,
                stderr=errors,
                check=False,
            )
        text = (folder / "errors").read_text(errors="replace")
        counts_file = folder / "counts"
        if not counts_file.exists():
            raise SystemExit(f"{reader.name}: the fuzzer did not begin:\n{text[-2000:]}")
        found: dict[str, Any] = json.loads(counts_file.read_text().partition("\n")[0])
        # What libFuzzer itself has ended the process for: no answer, or too much memory.
        for ending in sorted(folder.glob("ended-*")):
            kept = keep / f"atheris-{ending.name}-{reader.file.replace('/', '-')}"
            kept.write_bytes(ending.read_bytes())
            found["crashes"][ending.name.split("-")[1]] = str(kept)
            found["counts"]["crash"] = found["counts"].get("crash", 0) + 1
        # The alarm that libFuzzer looks for hangs with may ring once Python has taken its leave.
        is_done = ended.returncode == -signal.SIGALRM and sum(found["counts"].values()) >= files
        if ended.returncode != 0 and not is_done and not found["crashes"]:
            raise SystemExit(f"{reader.name}: ended with {ended.returncode}:\n{text[-2000:]}")
        return found
