from __future__ import annotations

import pytest

from engine import launch as launching
from engine.config import DispatchConfig, RunConfig
from engine.config_file import load_config
from engine.errors import ConfigError, RunDirectoryError, TaskError
from engine.extinction import ExtinctionError
from engine.launch import launch
from engine.layout import pack_path
from engine.progress import SilentProgress
from engine.run_directory import RunDirectory
from strategies.crossover import crossovers


@pytest.fixture
def own_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget after the test which operators its plug-ins registered."""
    monkeypatch.setattr(crossovers, "_classes", dict(crossovers._classes))


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


@pytest.mark.usefixtures("own_operators")
def test_operators_that_need_too_many_parents_are_refused_before_anything_runs(tmp_path) -> None:
    plugin = tmp_path / "crowd.py"
    plugin.write_text(
        "from strategies.operator import CrossoverOperator\n"
        "class Crowd(CrossoverOperator):\n"
        "    name = 'crowd'\n"
        "    n_parents = 9\n"
        "    def cross(self, parents, rng):\n"
        "        return parents[0]\n"
    )
    config = load_config(
        "smoke",
        [f"plugins=['{plugin}']", "evolution.recipes=[{operator: crowd}]", "dispatch.workers=0"],
    )
    with pytest.raises(ConfigError, match=r"crowd needs 9 parents, but evolution.population is 4"):
        launch(config, tmp_path / "run", SilentProgress())
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("own_operators")
def test_a_run_whose_children_all_fail_stops_and_says_why(tmp_path) -> None:
    plugin = tmp_path / "faulty.py"
    plugin.write_text(
        "from strategies.operator import CrossoverOperator\n"
        "class Faulty(CrossoverOperator):\n"
        "    name = 'faulty'\n"
        "    def cross(self, parents, rng):\n"
        "        raise ValueError('boom')\n"
    )
    config = load_config(
        "smoke",
        [
            f"plugins=['{plugin}']",
            "evolution.recipes=[{operator: faulty}]",
            "dispatch.workers=0",
            "seed=1",
        ],
    )
    with pytest.raises(ExtinctionError, match=r"all 8 children .* faulty: ValueError: boom"):
        launch(config, tmp_path / "run", SilentProgress())


def test_a_plug_in_that_was_changed_is_refused_on_resume(tmp_path) -> None:
    plugin = tmp_path / "same.py"
    text = (
        "from strategies.operator import CrossoverOperator\n"
        "class Same(CrossoverOperator):\n"
        "    name = 'same'\n"
        "    def cross(self, parents, rng):\n"
        "        return {n: t.copy() for n, t in parents[0].items()}\n"
    )
    plugin.write_text(text)
    config = load_config("smoke", [f"plugins=['{plugin}']"])
    RunDirectory.open(tmp_path / "run", config).close()
    plugin.write_text(text + "\n")
    with pytest.raises(RunDirectoryError, match=r"same.py was changed after the run began"):
        RunDirectory.resume(tmp_path / "run")


def test_a_finished_run_is_read_and_not_run_again(tmp_path, monkeypatch) -> None:
    config = load_config("smoke", ["dispatch.workers=0", "seed=1", "evolution.generations=1"])
    first = launch(config, tmp_path / "run", SilentProgress())
    journal = (tmp_path / "run/journal.jsonl").read_bytes()
    monkeypatch.setattr(launching, "evolve", lambda *_: pytest.fail("ran again"))
    assert launch(config, tmp_path / "run", SilentProgress()) == first
    assert (tmp_path / "run/journal.jsonl").read_bytes() == journal
    monkeypatch.undo()
    pack = pack_path(tmp_path / "run", 1)
    content = pack.read_bytes()
    pack.unlink()
    assert launch(config, tmp_path / "run", SilentProgress()) == first
    assert pack.read_bytes() == content
