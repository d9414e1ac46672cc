from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from engine.cli.stages import options
from engine.cli.stages.value_types import SHARE
from engine.errors import StageError


def arguments(*decorators, given=(), expect=0) -> dict[str, object] | str:
    """Return what a command with these options is called with, or what it says instead."""
    seen = {}

    def command(**kwargs: object) -> None:
        seen.update(kwargs)

    for decorator in reversed(decorators):
        command = decorator(command)
    done = CliRunner().invoke(click.command()(command), list(given))
    assert done.exit_code == expect, done.output
    return done.output if expect else seen


@pytest.mark.parametrize(("pair", "expected"), [("A", ("A",)), ("B", ("B",)), ("both", ("A", "B"))])
def test_a_pair_is_one_network_or_both(pair, expected) -> None:
    given = arguments(options.pair_option(), given=["--pair", pair])
    assert options.labels(given["pair"]) == expected
    assert arguments(options.pair_option("A")) == {"pair": "A"}


def test_both_names_of_the_width_are_one_option() -> None:
    for flag in ("--parent-hidden", "--hidden-size"):
        given = arguments(options.size_options(), given=[flag, "20", "--input-dim", "3"])
        assert given == {"n_inputs": 3, "n_actions": 4, "hidden": 20}
    defaults = {"n_inputs": None, "n_actions": 2, "hidden": 64}
    assert arguments(options.size_options(None, 2)) == defaults
    assert "x>=1" in arguments(options.size_options(), given=["--hidden-size", "0"], expect=2)


def test_documented_defaults_and_flags() -> None:
    decorators = (
        options.states_options(),
        options.training_states_option(),
        options.episode_options(),
        options.report_options("reports/here"),
        options.unsafe_option(),
    )
    assert arguments(*decorators) == {
        "states_file": None,
        "n_states": 1000,
        "seed": 42,
        "use_training_states": False,
        "environment": None,
        "n_episodes": 100,
        "report_dir": Path("reports/here"),
        "report_only": False,
        "allow_unsafe_unpickle": False,
    }
    given = ["--states-file", "s.npy", "--n-states", "5", "--seed", "0", "--use-training-states"]
    given += ["--env", "CartPole-v1", "--episodes", "7", "--report-dir", "r", "--report-only"]
    given += ["--allow-unsafe-unpickle"]
    assert arguments(*decorators, given=given) == {
        "states_file": Path("s.npy"),
        "n_states": 5,
        "seed": 0,
        "use_training_states": True,
        "environment": "CartPole-v1",
        "n_episodes": 7,
        "report_dir": Path("r"),
        "report_only": True,
        "allow_unsafe_unpickle": True,
    }


@pytest.mark.parametrize("seed", ["-1", str(2**63), "1.5"])
def test_a_seed_that_no_generator_takes_is_refused(seed) -> None:
    assert "Invalid value for '--seed'" in arguments(
        options.seed_option(), given=["--seed", seed], expect=2
    )


@pytest.mark.parametrize("value", ["nan", "inf", "-0.5", "1.5", "x"])
def test_a_share_is_a_finite_number_from_0_to_1(value) -> None:
    share = click.option("--share", type=SHARE)
    assert "Invalid value" in arguments(share, given=["--share", value], expect=2)


@dataclass(frozen=True)
class Limits:
    """Limits of a validator."""

    min_action_agreement: float = 0.7
    """Least share of equal actions."""
    max_mse: float | None = None
    report_only: bool = False

    def __post_init__(self) -> None:
        if self.min_action_agreement > 1:
            raise ValueError("min_action_agreement must be at most 1")


def test_limits_become_options_and_one_object() -> None:
    decorators = (options.threshold_options(Limits), options.report_options("r"))
    given = arguments(*decorators, given=["--min-action-agreement", "0.4", "--report-only"])
    assert given["thresholds"] == Limits(0.4, None, report_only=True)
    assert set(given) == {"thresholds", "report_dir", "report_only"}
    assert arguments(*decorators)["thresholds"] == Limits()
    cartpole = (options.threshold_options(Limits, max_mse=10.0), decorators[1])
    assert arguments(*cartpole)["thresholds"] == Limits(max_mse=10.0)


def test_limits_are_described_by_what_stands_below_the_field() -> None:
    command = click.command()(options.threshold_options(Limits)(lambda **_: None))
    shown = CliRunner().invoke(command, ["--help"]).output
    assert "Least share of equal actions." in shown
    assert "default: 0.7" in shown


def test_a_limit_that_makes_no_sense_is_refused() -> None:
    @click.command()
    @options.threshold_options(Limits)
    @options.report_options("r")
    def command(**_: object) -> None: ...

    with pytest.raises(StageError, match="must be at most 1"):
        command.main(["--min-action-agreement", "2"], standalone_mode=False)


def test_only_a_missed_threshold_that_is_to_count_exits_with_1() -> None:
    cases = {(True, False): 0, (True, True): 0, (False, False): 1, (False, True): 0}
    for (passed, report_only), code in cases.items():
        assert options.finish(passed, report_only) == code
