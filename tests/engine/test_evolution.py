"""The loop, with executors that misbehave in every way that the protocol allows."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine.breeding import Context
from engine.config import DispatchConfig, RunConfig
from engine.dispatch.executor import Batch
from engine.dispatch.serial import SerialExecutor
from engine.errors import RunInterruptedError
from engine.evolution import evolve
from engine.extinction import ExtinctionError
from engine.layout import RECIPES
from engine.progress import GenerationSummary, SilentProgress
from engine.recipe_table import read_table
from engine.run_directory import RunDirectory
from populations.leaderboard import stable_bytes
from populations.plans import Result
from strategies.errors import SelectionError
from strategies.selection import TournamentSelection


class Executor(SerialExecutor):
    """Changes the results, and may hand them back in reverse."""

    def __init__(self, change: Callable[[Result], Result], reverse: bool = False) -> None:
        super().__init__(DispatchConfig(attempts=1))
        self.change = change
        self.reverse = reverse
        self.batches: list[Batch] = []

    def run(
        self, context: Context, batches: Sequence[Batch], stop: threading.Event
    ) -> Iterator[list[Result]]:
        self.batches += batches
        groups = list(super().run(context, batches, stop))
        for group in reversed(groups) if self.reverse else groups:
            yield [self.change(result) for result in group]


def unchanged(result: Result) -> Result:
    return result


def without_genome(result: Result, status: str, reason: str) -> Result:
    return replace(result, status=status, reason=reason, genome=None, returns=(), agreements=())


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Return a run with teachers and states that need no training."""
    rng = np.random.default_rng(0)
    files = []
    for i in range(2):
        shapes = {"0.weight": (8, 4), "0.bias": (8,), "2.weight": (2, 8), "2.bias": (2,)}
        weights = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
        files.append(str(tmp_path / f"{i}.safetensors"))
        save_file(weights, files[-1])
    np.save(tmp_path / "states.npy", rng.normal(size=(128, 4)).astype(np.float32))
    return RunConfig.model_validate(
        {
            "seed": 1,
            "teachers": {"files": files},
            "states": {"file": str(tmp_path / "states.npy")},
            "network": {"hidden": [6]},
            "distillation": {"students": 8, "steps": 20, "ancestor_steps": 20},
            "finetune": {"steps": 10},
            "evolution": {
                "generations": 2,
                "population": 4,
                "children": 7,
                "elites": 2,
                "batch_size": 3,
                "controls": 1,
            },
            "evaluation": {"episodes": 2, "holdout_episodes": 4, "champion_candidates": 2},
        }
    )


def run(path: Path, config: RunConfig, executor: Executor) -> list[dict[str, str]]:
    with RunDirectory.open(path, config) as directory:
        evolve(directory, executor, SilentProgress())
    with (path / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def with_recipes(config: RunConfig, recipes: list[dict[str, Any]], **changes: Any) -> RunConfig:
    """Return the run with other recipes and other settings of the loop."""
    values = config.model_dump()
    values["evolution"] |= {"recipes": recipes, **changes}
    return RunConfig.model_validate(values)


def test_rows_are_in_the_order_of_the_plans_whatever_order_results_have(tmp_path, config) -> None:
    run(tmp_path / "a", config, Executor(unchanged))
    run(tmp_path / "b", config, Executor(unchanged, reverse=True))
    assert stable_bytes(tmp_path / "a/leaderboard.csv") == stable_bytes(
        tmp_path / "b/leaderboard.csv"
    )


def test_a_bandit_learns_the_same_in_whatever_order_results_arrive(tmp_path, config) -> None:
    recipes = [{"operator": ["weighted", "unit"], "align": ["auto", "none"]}]
    config = with_recipes(config, recipes, draw="bandit")
    found = []
    for name, reverse in (("a", False), ("b", True)):
        executor = Executor(unchanged, reverse=reverse)
        run(tmp_path / name, config, executor)
        found.append((tmp_path / name / RECIPES).read_bytes())
    assert found[0] == found[1]
    table = read_table(tmp_path / "a" / RECIPES)
    assert sum(row.births for row in table) == 2 * 7
    # Each of the two generations has given away 7 / 2 of rewards, and the first is discounted.
    assert sum(row.alpha - 1 for row in table if row.alpha) == pytest.approx(3.5 * (1 + 0.95))


def test_operators_get_the_shared_ancestor_also_after_a_stop(tmp_path, config) -> None:
    config = with_recipes(config, [{"operator": "task_arithmetic"}])
    rows = run(tmp_path / "whole", config, Executor(unchanged))
    children = [row for row in rows if row["operator"] == "task_arithmetic" and row["child"]]
    assert [row["status"] for row in children] == ["ok"] * 14

    stop = threading.Event()

    def stop_in_generation_1(result: Result) -> Result:
        if result.phase == "children":
            stop.set()
        return result

    path = tmp_path / "stopped"
    with RunDirectory.open(path, config) as directory, pytest.raises(RunInterruptedError):
        evolve(directory, Executor(stop_in_generation_1), SilentProgress(), stop)
    with RunDirectory.resume(path) as directory:
        evolve(directory, Executor(unchanged), SilentProgress())
    assert stable_bytes(path) == stable_bytes(tmp_path / "whole")
    assert (path / RECIPES).read_bytes() == (tmp_path / "whole" / RECIPES).read_bytes()


def test_batches_hold_one_phase_and_only_the_genomes_they_name(tmp_path, config) -> None:
    executor = Executor(unchanged)
    run(tmp_path / "run", config, executor)
    assert [len(b.plans) for b in executor.batches] == [1, 3, 3, 2, *(2, 3, 3, 3) * 2, 2]
    for batch in executor.batches:
        assert len({(plan.phase, plan.generation) for plan in batch.plans}) == 1
        named = {
            name
            for plan in batch.plans
            for name in ((plan.genome,) if hasattr(plan, "genome") else plan.parents)
        }
        assert set(batch.genomes) == named


@pytest.mark.parametrize("status", ["failed", "lost", "rejected"])
def test_births_that_go_wrong_get_a_row_and_the_run_goes_on(tmp_path, config, status) -> None:
    def spoil(result: Result) -> Result:
        bad = result.phase in ("students", "children") and result.index in (1, 4)
        return without_genome(result, status, "bad luck") if bad else result

    rows = run(tmp_path / "run", config, Executor(spoil))
    bad = [row for row in rows if row["status"] == status and row["reason"] == "bad luck"]
    assert [(row["generation"], row["child"]) for row in bad] == [
        (generation, child) for generation in "012" for child in "14"
    ]
    assert {(row["fitness"], row["genome"], row["size_bytes"]) for row in bad} == {("", "", "")}
    assert (tmp_path / "run/champion.safetensors").is_file()


def test_an_elite_that_cannot_be_scored_again_keeps_its_record(tmp_path, config) -> None:
    def spoil(result: Result) -> Result:
        if result.phase in ("elites", "holdout") and result.index == 0:
            return without_genome(result, "lost", "NodeDiedError: the node was lost 5 times")
        return result

    rows = run(tmp_path / "run", config, Executor(spoil))
    again = [row for row in rows if row["generation"] == "1" and not row["child"]]
    assert [(row["status"], row["episodes"]) for row in again] == [("lost", ""), ("ok", "4")]
    assert again[0]["reason"] == "NodeDiedError: the node was lost 5 times"
    assert (tmp_path / "run/champion.json").is_file()


@pytest.mark.parametrize(
    ("phase", "first"), [("ancestor", 1), ("students", 8), ("children", 7), ("holdout", 2)]
)
def test_a_stage_where_nothing_succeeds_ends_the_run_and_says_why(
    tmp_path, config, phase, first
) -> None:
    def spoil(result: Result) -> Result:
        return without_genome(result, "failed", "all bad") if result.phase == phase else result

    message = f"all {first} {phase} of generation . failed; the first one because: all bad"
    for _ in range(2):  # going on finds the same
        with pytest.raises(ExtinctionError, match=message):
            run(tmp_path / "run", config, Executor(spoil))


class Notes(SilentProgress):
    """Keeps what a user is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def barren(*generations: int) -> Callable[[Result], Result]:
    """Return a change of results that lets all children of some generations fail."""

    def spoil(result: Result) -> Result:
        is_child = result.phase == "children" and result.generation in generations
        return without_genome(result, "failed", "bad luck") if is_child else result

    return spoil


def longer(config: RunConfig, generations: int) -> RunConfig:
    return with_recipes(config, [{"operator": "unit"}], generations=generations)


def test_a_generation_without_children_does_not_end_a_healthy_run(tmp_path, config) -> None:
    config = longer(config, 5)
    progress, path = Notes(), tmp_path / "whole"
    with RunDirectory.open(path, config) as directory:
        evolve(directory, Executor(barren(2, 4)), progress)
    told = [text for text in progress.texts if "has no children" in text]
    assert told == [
        f"generation {number} has no children: the run goes on with their parents, and stops if "
        "that happens again in the next one"
        for number in (2, 4)
    ]
    # A run that is stopped in the barren generation goes on in the same way.
    stop = threading.Event()

    def stop_in_generation_2(result: Result) -> Result:
        if result.generation == 2:
            stop.set()
        return barren(2, 4)(result)

    stopped = tmp_path / "stopped"
    with RunDirectory.open(stopped, config) as directory, pytest.raises(RunInterruptedError):
        evolve(directory, Executor(stop_in_generation_2), SilentProgress(), stop)
    with RunDirectory.resume(stopped) as directory:
        evolve(directory, Executor(barren(2, 4)), SilentProgress())
    assert stable_bytes(stopped) == stable_bytes(path)


def test_two_generations_in_a_row_without_children_end_the_run(tmp_path, config) -> None:
    message = "all 7 children of generation 3 failed; the first one because: bad luck"
    for _ in range(2):  # going on finds the same
        with pytest.raises(ExtinctionError, match=message):
            run(tmp_path / "run", longer(config, 5), Executor(barren(2, 3)))


def test_a_wrong_selection_ends_the_run_before_children_are_bred_and_loses_nothing(
    tmp_path, config, monkeypatch
) -> None:
    whole = run(tmp_path / "whole", config, Executor(unchanged))
    right = TournamentSelection.draw

    def wrong(self: TournamentSelection, n: int, n_parents: int, rng: Any) -> list[int]:
        return [*right(self, n, n_parents, rng)[:-1], n]

    path, executor = tmp_path / "run", Executor(unchanged)
    monkeypatch.setattr(TournamentSelection, "draw", wrong)
    with pytest.raises(SelectionError, match="the selection tournament cannot choose"):
        run(path, config, executor)
    assert {plan.phase for batch in executor.batches for plan in batch.plans} == {
        "ancestor",
        "students",
    }
    monkeypatch.undo()
    assert len(run(path, config, Executor(unchanged))) == len(whole)
    assert stable_bytes(path) == stable_bytes(tmp_path / "whole")


def test_what_gets_in_the_way_of_one_another_is_noted_at_the_start(tmp_path, config) -> None:
    progress = Notes()
    config = with_recipes(config, [{"operator": ["ties", "fresh"]}], generations=1)
    with RunDirectory.open(tmp_path / "run", config) as directory:
        evolve(directory, Executor(unchanged), progress)
    assert any("children of ties fail" in text for text in progress.texts)


def test_every_generation_is_summarized(tmp_path, config) -> None:
    seen: list[GenerationSummary] = []

    class Progress(SilentProgress):
        def generation(self, summary: GenerationSummary) -> None:
            seen.append(summary)

    with RunDirectory.open(tmp_path / "run", config) as directory:
        evolve(directory, Executor(unchanged), Progress())
    assert [(s.generation, s.generations, s.births) for s in seen] == [
        (0, 2, 9),
        (1, 2, 9),
        (2, 2, 9),
    ]


def test_counts_of_a_phase_end_at_its_total(tmp_path, config) -> None:
    ends: list[tuple[str, int | None, int]] = []

    class Progress(SilentProgress):
        def phase(self, name: str, total: int | None = None) -> None:
            ends.append((name, total, 0))

        def advance(self, n: int = 1, detail: str = "") -> None:
            name, total, done = ends[-1]
            ends[-1] = (name, total, done + n)

    with RunDirectory.open(tmp_path / "run", config) as directory:
        evolve(directory, Executor(unchanged), Progress())
    counted = [end for end in ends if end[1] is not None]
    assert [name for name, _, _ in counted] == ["students", "breeding", "breeding", "champion"]
    assert [end for end in counted if end[1] != end[2]] == []
