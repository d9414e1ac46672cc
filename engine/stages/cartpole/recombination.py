"""The quick demo: cross two CartPole parents and fine-tune the child towards parent A.

Nothing is distilled, and there is one teacher. The stages are those of AgentFarm's script
``run_cartpole_recombination``; unlike there, the child learns from states that both parents saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.stages.cartpole.child_report import child_report
from engine.stages.cartpole.findings import warnings
from engine.stages.cartpole.limits import ChildLimits
from engine.stages.cartpole.pair_states import check_states_file, states_of_parents
from engine.stages.cartpole.parent_pair import PairChoice, find_parents
from engine.stages.cartpole.parent_settings import ENVIRONMENT
from engine.stages.cartpole.run_config import config_record
from engine.stages.recombination.family_validation import Found, write_validation
from engine.stages.recombination.finetuning_config import FineTuningConfig
from engine.stages.recombination.finetuning_run import TUNED, Crossover, Family, finetune_child
from engine.stages.roles import load_role
from engine.stages.state_sets import STATES_FILE
from engine.stages.stopwatch import Stopwatch
from engine.stages.validation.returns import play_roles

RAW = "child_crossover.pt"
ARTIFACTS = (RAW, TUNED, STATES_FILE)
PARENTS = ("parent_a", "parent_b")


@dataclass(frozen=True, eq=False)
class RecombinationSettings:
    """Everything that a run depends on.

    Attributes:
        parents: Which parents, and how they are trained.
        n_states: States to train on, where no file is given.
        states_seed: Puts them in order.
        states_file: States to take instead of those that the parents saw.
        crossover: How the parents are crossed.
        finetuning: How the child learns.
        limits: What the child must keep of the parents.
        include_parent_baseline: Whether the report compares the parents with each other, too.
        episodes: Held-out episodes that every network plays.
        report_only: Whether limits that are missed leave the exit code alone.
        flags: The command line, for the report.
    """

    parents: PairChoice = field(default_factory=PairChoice)
    n_states: int = 20_000
    states_seed: int = 42
    states_file: Path | None = None
    crossover: Crossover = field(default_factory=Crossover)
    finetuning: FineTuningConfig = field(
        default_factory=lambda: FineTuningConfig(epochs=10, batch_size=64, seed=0)
    )
    limits: ChildLimits = field(default_factory=ChildLimits)
    include_parent_baseline: bool = False
    episodes: int = 100
    report_only: bool = False
    flags: Mapping[str, Any] = field(default_factory=dict)


def run_cartpole_recombination(
    directory: Path, settings: RecombinationSettings, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Carry out the demo and write all of its files.

    Args:
        directory: Gets the parents that are trained, the child before and after, its states, and
            ``recombination_validation.json`` with the same as Markdown and CSV.
        settings: Everything that the run depends on.
        tell: Is told, in single lines, how things go.

    Returns:
        What ``recombination_validation.json`` holds; ``passed`` is whether all limits are kept.

    Raises:
        StageError: A parent, the states or a file cannot be used.
        TeacherError: The file of a parent is missing, damaged, unsafe, or holds no network.
    """
    watch = Stopwatch()
    watch.begin("parents")
    tell("stage 1 of 3: parents")
    check_states_file(settings.states_file)
    parents = find_parents(directory, settings.parents, ARTIFACTS, tell)
    states = states_of_parents(
        parents, settings.n_states, settings.states_seed, settings.states_file, tell
    )
    watch.begin("crossover and fine-tune")
    tell("stage 2 of 3: crossover, and fine-tune towards parent A")
    a, b = parents["A"].role, parents["B"].role
    family = Family(a, b, environment=ENVIRONMENT)
    finetune_child(directory, family, settings.crossover, settings.finetuning, states, RAW)
    watch.begin("validate")
    tell("stage 3 of 3: validate and play")
    players = {
        "parent_a": a,
        "parent_b": b,
        "child_crossover": load_role("child_crossover", directory / RAW),
        "child": load_role("child_finetuned", directory / TUNED),
    }
    networks = {name: role.network for name, role in players.items()}
    returns = play_roles(networks, ENVIRONMENT, settings.episodes, ensemble=PARENTS)
    report = child_report(
        Found(a, b, players["child"]),
        states.heldout,
        settings.states_seed,
        settings.limits,
        returns,
        settings.include_parent_baseline,
    )
    report |= {
        "config": config_record(settings.flags, settings.parents, parents, players),
        "parents": {label: parent.record() for label, parent in parents.items()},
        "warnings": warnings(networks, states.heldout, returns),
        "timing": watch.record(),
    }
    write_validation(directory, report)
    return report
