from __future__ import annotations

import os
import signal
import threading

import pytest

from engine.config import DispatchConfig, RunConfig
from engine.errors import ConfigError, TaskError
from engine.launch import launch, stop_on_signals
from engine.progress import SilentProgress


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


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (RunConfig(dispatch=DispatchConfig(workers=0, address="auto")), ConfigError),
        (RunConfig.model_validate({"environment": {"id": "No-v0"}}), TaskError),
        (RunConfig.model_validate({"evolution": {"selection": {"name": "no"}}}), ConfigError),
        (RunConfig.model_validate({"evolution": {"recipes": [{"operator": "no"}]}}), ConfigError),
    ],
)
def test_what_cannot_run_leaves_no_directory(tmp_path, config, error) -> None:
    with pytest.raises(error):
        launch(config, tmp_path / "run", SilentProgress())
    assert not (tmp_path / "run").exists()
