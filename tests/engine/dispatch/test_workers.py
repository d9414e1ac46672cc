"""Which executor settings ask for, and what the first and the second Ctrl-C do."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.config import DispatchConfig
from engine.dispatch.serial import SerialExecutor
from engine.dispatch.workers import executor_of, stop_on_signals
from engine.errors import ClusterUnavailableError, DispatchError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_one_stops(number) -> None:
    before = signal.getsignal(number)
    notes: list[str] = []
    with stop_on_signals(notes.append) as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
        assert notes == ["stopping after what is in flight; once more stops at once"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def look() -> None:
        with stop_on_signals(lambda text: None) as stop:
            seen.append((stop.is_set(), signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


def test_no_workers_mean_this_process() -> None:
    with executor_of(DispatchConfig(), "local", 0) as executor:
        assert isinstance(executor, SerialExecutor)


def test_a_cluster_that_does_not_answer_is_an_error() -> None:
    with (
        pytest.raises(
            DispatchError, match="must be local, auto, HOST:PORT or ray://HOST:PORT, not 'nowhere'"
        ),
        executor_of(DispatchConfig(), "nowhere", None),
    ):
        pytest.fail("joined a cluster that does not exist")


@pytest.mark.ray
def test_workers_preload_what_they_are_told_and_close_with_the_block() -> None:
    code = (
        "from engine.config import DispatchConfig\n"
        "from engine.dispatch.workers import executor_of\n"
        "with executor_of(DispatchConfig(), 'local', 1, preload=['engine.breeding']) as used:\n"
        "    import ray  # which reads its settings now, when the session has prepared them\n"
        "    print(used.n_workers, ray.get(used._warm_up))\n"
        "print(ray.is_initialized())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == ["1", "[None]", "False"], done.stderr


def test_work_without_ray_imports_neither_ray_nor_torch() -> None:
    code = (
        "import sys\n"
        "import engine.dispatch.workers\n"
        "print(sorted({'ray', 'torch', 'pydantic', 'gymnasium'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.ray
@pytest.mark.parametrize(
    ("address", "error", "kind"),
    [
        ("ray://head:10001", ConnectionError("Client is shutting down."), ClusterUnavailableError),
        ("ray://head:10001", BrokenPipeError(32, "Broken pipe"), BrokenPipeError),  # our output's
        ("head:6379", ConnectionError("something else"), ConnectionError),
    ],
)
def test_a_lost_connection_of_ray_client_is_told(
    ray_cluster, monkeypatch, address, error, kind
) -> None:
    import engine.dispatch.nodes  # only with Ray, which reads the environment then
    import engine.dispatch.workers

    monkeypatch.setattr(
        engine.dispatch.workers, "joined_session", lambda *arguments: contextlib.nullcontext()
    )
    monkeypatch.setattr(engine.dispatch.nodes, "check_nodes", lambda *arguments: None)
    with pytest.raises(kind) as caught, executor_of(DispatchConfig(), address, None):
        raise error
    if kind is ClusterUnavailableError:
        assert "connection to ray://head:10001 was lost; what was finished" in str(caught.value)
