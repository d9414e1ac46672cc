"""What ``evolve`` and ``resume`` make of their options; runs themselves are in integration."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from engine import launch as launching
from engine.champion import Champion
from engine.cli import run
from engine.config import RunConfig
from engine.config_file import dump_config
from engine.errors import ConfigError, RunInterruptedError

SUMMARY = {
    "genome": "3f9c1a7be210",
    "kind": "child",
    "generation": 7,
    "fitness_holdout": 498.25,
    "fitness_holdout_sem": 1.25,
    "episodes_holdout": 256,
    "size_bytes": 1360,
    "parameters": 122,
    "teachers": [
        {"fitness_holdout": 200.0, "size_bytes": 70000},
        {"fitness_holdout": 480.5, "size_bytes": 71234},
    ],
}


class Launches(list):
    """Calls of ``launch``: configuration and directory."""

    error: BaseException | None = None

    def __call__(self, config: RunConfig, directory: Path, progress: object) -> Champion:
        self.append((config, directory))
        if self.error is not None:
            raise self.error
        return Champion(directory / "champion.safetensors", SUMMARY)


@pytest.fixture
def launches(monkeypatch, tmp_path) -> Launches:
    """Record launches instead of carrying them out, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    recorder = Launches()
    monkeypatch.setattr(launching, "launch", recorder)
    return recorder


def invoke(command, *arguments: str):
    return CliRunner().invoke(command, [*arguments, "--quiet"])


def test_the_directory_and_the_name_come_from_preset_and_seed(launches) -> None:
    assert invoke(run.evolve, "smoke", "--seed", "5").exit_code == 0
    config, directory = launches[0]
    assert directory == Path("runs/smoke-5")
    assert config.seed == 5


def test_a_run_without_a_name_is_named_like_its_directory(launches, tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 4\n", encoding="utf-8")
    invoke(run.evolve, "mine.yaml")
    config, directory = launches[0]
    assert (config.name, directory) == ("mine-4", Path("runs/mine-4"))


def test_options_become_settings_and_beat_the_file(launches, tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 4\nname: mine\n", encoding="utf-8")
    done = invoke(
        run.evolve,
        *("mine.yaml", "--run-dir", "here", "--seed", "6", "--workers", "3"),
        *("--address", "head:6379", "--operator", "slerp", "--operator", "my.module:Class"),
        *("--plugin", "one, two.py", "--set", "evolution.children=9", "--set", "seed=5"),
    )
    assert done.exit_code == 0, done.output
    config, directory = launches[0]
    assert directory == Path("here")
    assert (config.name, config.seed) == ("mine", 6)
    assert (config.dispatch.workers, config.dispatch.address) == (3, "head:6379")
    assert [r.operator for r in config.evolution.recipes] == ["slerp", "my.module:Class"]
    assert config.plugins == (str(tmp_path / "one, two.py"),)
    assert config.evolution.children == 9


def test_a_resumed_run_keeps_its_settings_but_for_the_workers(launches, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    recorded = RunConfig(name="mine", seed=8)
    (tmp_path / "run/config.yaml").write_text(dump_config(recorded), encoding="utf-8")
    assert invoke(run.resume, "run", "--workers", "0").exit_code == 0
    config, directory = launches[0]
    assert directory == Path("run")
    assert config.name == "mine"
    assert config.identity() == recorded.identity()
    assert config.dispatch.workers == 0


def resumed(launches: Launches, recorded: str, *arguments: str) -> RunConfig:
    """Return the configuration with which a run is resumed that recorded some of ``dispatch``."""
    Path("run").mkdir(exist_ok=True)
    Path("run/config.yaml").write_text(f"dispatch: {{{recorded}}}", encoding="utf-8")
    done = invoke(run.resume, "run", *arguments)
    assert done.exit_code == 0, done.exception
    return launches.pop()[0]


def test_a_run_of_a_cluster_is_resumed_on_this_machine_where_workers_are_asked_for(
    launches,
) -> None:
    for n_workers in (0, 3):
        here = resumed(launches, "address: 'head:6379'", "--workers", str(n_workers)).dispatch
        assert (here.address, here.workers) == ("local", n_workers)
    here = resumed(launches, "address: auto", "--set", "dispatch.workers=0").dispatch
    assert (here.address, here.workers) == ("local", 0)
    there = resumed(launches, "address: 'head:6379', workers: 2").dispatch
    assert (there.address, there.workers) == ("head:6379", 2)


def test_a_run_without_ray_is_resumed_on_a_cluster(launches) -> None:
    there = resumed(launches, "workers: 0", "--address", "auto").dispatch
    assert (there.address, there.workers) == ("auto", None)
    there = resumed(launches, "workers: 0", "--set", "dispatch.address=auto").dispatch
    assert (there.address, there.workers) == ("auto", None)
    here = resumed(launches, "workers: 0", "--address", "local").dispatch
    assert (here.address, here.workers) == ("local", 0)


def test_resume_takes_settings_of_dispatch_and_no_others(launches) -> None:
    dispatch = resumed(
        launches,
        "attempts: 4, loss_attempts: 9",
        *("--set", "dispatch.stall_timeout_s=30", "--set", "dispatch.attempts=1"),
        *("--set", "dispatch.workers=1", "--workers", "2"),
    ).dispatch
    assert (dispatch.stall_timeout_s, dispatch.attempts, dispatch.loss_attempts) == (30, 1, 9)
    assert dispatch.workers == 2
    for setting in ("seed=1", "evolution.generations=20", "dispatch={}"):
        done = invoke(run.resume, "run", "--set", setting)
        assert isinstance(done.exception, ConfigError)
        assert str(done.exception).startswith(f"--set {setting}: a run that has begun keeps its ")
    assert launches == []


def test_an_open_cluster_is_joined_by_a_word_of_its_own(launches) -> None:
    assert invoke(run.evolve, "smoke", "--address", "head:6379").exit_code == 0
    options = ("smoke", "--address", "head:6379", "--allow-insecure-cluster")
    assert invoke(run.evolve, *options).exit_code == 0
    (careful, _), (trusting, _) = launches
    assert not careful.dispatch.allow_insecure_cluster
    assert trusting.dispatch.allow_insecure_cluster
    assert careful.identity() == trusting.identity()


def test_the_champion_is_compared_with_the_best_teacher(launches) -> None:
    output = invoke(run.evolve, "smoke").output
    assert output.splitlines()[:3] == [
        "champion 3f9c1a7be210, child of generation 7",
        "  return       498.2 ± 1.2 over 256 held-out episodes; best teacher 480.5",
        "  size         1,360 bytes, 122 parameters; that teacher 71,234 bytes",
    ]
    assert "runs/smoke-0/champion.safetensors" in output


def test_a_second_ctrl_c_says_how_to_go_on(launches, tmp_path) -> None:
    launches.error = KeyboardInterrupt()
    (tmp_path / "runs/smoke-0").mkdir(parents=True)
    (tmp_path / "runs/smoke-0/config.yaml").touch()
    error = invoke(run.evolve, "smoke").exception
    assert isinstance(error, RunInterruptedError)
    assert str(error) == "stopped at once; go on with 'cultivar resume runs/smoke-0'"


def test_ctrl_c_before_there_is_a_run_promises_nothing(launches) -> None:
    launches.error = KeyboardInterrupt()
    error = invoke(run.evolve, "smoke").exception
    assert not isinstance(error, RunInterruptedError)


def test_an_operator_and_recipes_are_not_given_together() -> None:
    options = ["smoke", "--operator", "unit", "--set", "evolution.recipes=[{operator: layer}]"]
    result = CliRunner().invoke(run.evolve, options)
    assert isinstance(result.exception, ConfigError)
    assert "give either --operator or --set evolution.recipes" in str(result.exception)
