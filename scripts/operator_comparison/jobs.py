"""Jobs of a study: one process per core, and what is done is not done again."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd

from engine.one_thread import one_thread
from operator_comparison.nursery import nursery, prepared, trained_teachers
from operator_comparison.scores import Scores
from operator_comparison.study import measure
from operator_comparison.tasks import REGIMES, Job

TABLE = "children.csv"


def run_jobs(jobs: Sequence[Job], output: Path, workers: int) -> pd.DataFrame:
    """Measure all jobs and return their rows, in the order of the jobs.

    Args:
        jobs: What to measure.
        output: Folder of the study.
        workers: Processes side by side; with one, everything is done in this process.
    """
    folders = [output / job.name for job in jobs]
    if workers == 1 or len(jobs) == 1:
        for job, folder in zip(jobs, folders, strict=True):
            run_job(job, folder)
    else:
        os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that are started now
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for _ in pool.map(run_job, jobs, folders):
                pass
    return pd.concat([pd.read_csv(folder / TABLE) for folder in folders], ignore_index=True)


def run_job(job: Job, folder: Path) -> None:
    """Measure one job; teachers are not trained twice, and no network plays twice."""
    with one_thread():
        files = trained_teachers(job, folder / "teachers", _say)
        begun = time.process_time()
        ready = prepared(job, folder / "run", files)
        scores = Scores(ready.context, folder)
        rows = [
            row
            for regime in REGIMES
            for row in measure(job, regime, nursery(job, regime, ready), scores)
        ]
    pd.DataFrame(rows).to_csv(folder / TABLE, index=False, float_format="%.6g")
    _say(f"{job.name}: {len(rows)} rows in {time.process_time() - begun:.0f} CPU-s")


def _say(text: str) -> None:
    print(text, flush=True)
