"""Ray keeps a note of each task while it runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest


def wait_for(sign: Path) -> None:
    from engine.dispatch.begun import noted

    with noted():
        Path(f"{sign}.begun").touch()
        while not sign.exists():
            time.sleep(0.02)


@pytest.mark.ray
def test_what_runs_has_begun_and_what_waits_or_is_over_has_not(ray_cluster, tmp_path) -> None:
    import ray
    from ray.cloudpickle import register_pickle_by_value

    from engine.dispatch.begun import forget, has_begun

    register_pickle_by_value(sys.modules[__name__])
    task = ray.remote(num_cpus=2, max_retries=0)(wait_for)  # all that there are
    first, second = task.remote(tmp_path / "first"), task.remote(tmp_path / "second")
    names = [reference.task_id().hex() for reference in (first, second)]
    while not (tmp_path / "first.begun").exists():
        time.sleep(0.02)
    assert [has_begun(name) for name in names] == [True, False]
    (tmp_path / "first").touch()
    ray.get(first)
    while not (tmp_path / "second.begun").exists():
        time.sleep(0.02)
    assert [has_begun(name) for name in names] == [False, True]
    ray.cancel(second, force=True)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(second)
    assert has_begun(names[1])  # it could not remove the note
    forget(names[1])
    assert not has_begun(names[1])
