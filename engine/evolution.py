"""The loop: from teachers to a champion, one stage after the other."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.breeding import Context
from engine.champion import Champion, crown
from engine.config import RunConfig
from engine.dispatch.executor import Batch, Executor
from engine.errors import RunInterruptedError
from engine.extinction import Offspring, refuse_extinction
from engine.founders import ancestor_plan, student_plans
from engine.layout import pack_path, teacher_path
from engine.preparation import Prepared, baseline_rows, prepare
from engine.progress import GenerationSummary, Progress
from engine.recipes import ConfiguredRecipes, RunSeeds, make_selection
from engine.records import birth_row, member_row, now
from engine.run_directory import RunDirectory
from populations.genome import Genome
from populations.leaderboard import Columns, Row
from populations.manager import PopulationManager, Sizes
from populations.plans import ChildPlan, EvaluationPlan, Plan, Result
from populations.population import Record
from strategies.selection import CheckedSelection


def evolve(
    directory: RunDirectory,
    executor: Executor,
    progress: Progress,
    stop: threading.Event | None = None,
) -> Champion:
    """Run, or finish, the run of a directory.

    Args:
        directory: Where the run is recorded; what it holds already is not done again.
        executor: Where births and evaluations are carried out.
        progress: Told what happens.
        stop: Set it to stop after what is in flight.

    Returns:
        The champion.

    Raises:
        RunInterruptedError: ``stop`` was set before the end.
        CultivarError: A setting, a teacher, the states or a recorded file is not usable.
    """
    return _Run(directory, executor, progress, stop or threading.Event()).to_the_end()


class _Run:
    """One pass through the stages of a run."""

    def __init__(
        self,
        directory: RunDirectory,
        executor: Executor,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self._directory = directory
        self._config: RunConfig = directory.config
        self._executor = executor
        self._progress = progress
        self._stop = stop
        self._recipes: ConfiguredRecipes  # made when the teachers are known
        self._offspring = Offspring()
        self._n_computed = 0  # plans of the last dispatch that the journal had no answer to
        self._n_replayed = 0  # generations without such a plan since the last one with

    def to_the_end(self) -> Champion:
        """Go through all stages."""
        config, directory = self._config, self._directory
        for text in directory.notes:
            self._progress.note(text)
        selection = make_selection(config)
        self._progress.phase("teachers", None)
        prepared = prepare(config, directory, self._tell)
        self._progress.phase("baselines", None)
        names = [teacher.name for teacher in prepared.teachers]
        directory.open_leaderboard(Columns(teachers=names))
        files = [teacher_path(directory.path, teacher.name) for teacher in prepared.teachers]
        directory.finish_stage("baselines", lambda: baseline_rows(config.name, prepared, files))
        returns = [f"{row.fitness_holdout:.1f}" for row in directory.rows("baselines")]
        if len(set(returns[:-1])) == 1 and len(returns) > 2:
            self._progress.note(
                "all teachers return the same: they may have learned nothing "
                "(more teachers.training.steps), or there is nothing left to learn"
            )
        self._progress.note(
            f"held-out returns of the teachers: {', '.join(returns[:-1])}; "
            f"of their ensemble: {returns[-1]}"
        )
        self._recipes = ConfiguredRecipes(config, len(prepared.teachers))
        for text in self._recipes.notes():
            self._progress.note(text)
        manager = PopulationManager(
            Sizes(
                population=config.evolution.population,
                elites=config.evolution.elites,
                controls=config.evolution.controls,
                archive=config.evaluation.champion_candidates,
            ),
            CheckedSelection(selection),
            self._recipes,
            RunSeeds(config.seed),
        )
        self._students(prepared, manager)
        for _ in range(config.evolution.generations):
            self._generation(prepared.context, manager)
        return self._champion(prepared, manager)

    def _tell(self, text: str) -> None:
        """Show what is being done, or stop where that was asked for."""
        self._progress.advance(0, text)
        if self._stop.is_set():
            raise self._interruption()

    def _interruption(self) -> RunInterruptedError:
        return RunInterruptedError(f"stopped; go on with 'cultivar resume {self._directory.path}'")

    def _students(self, prepared: Prepared, manager: PopulationManager) -> None:
        """Distil generation 0."""
        config, context = self._config, prepared.context
        n_teachers = len(prepared.teachers)
        has_ancestor = config.distillation.ancestor == "shared"
        self._progress.phase("students", config.distillation.students + has_ancestor)
        founders: list[tuple[ChildPlan, Result]] = []
        genomes: dict[str, Genome] = {}
        ancestor = None
        if has_ancestor:
            plan = ancestor_plan(config, n_teachers)
            result = self._dispatch(context, [plan], {})[0]
            refuse_extinction([plan], [result])
            assert result.genome is not None, "a birth that is ok has a genome"
            ancestor, genomes = result.genome.id, {result.genome.id: result.genome}
            manager.remember(result.genome)
            founders.append((plan, result))
        plans = student_plans(config, n_teachers, ancestor)
        results = self._dispatch(context, plans, genomes)
        refuse_extinction(plans, results)
        manager.expect(plans)
        manager.tell(results)
        manager.finish_generation()
        founders += zip(plans, results, strict=True)
        self._finish(0, founders, [])
        self._summarize(manager, founders, 0.0)

    def _generation(self, context: Context, manager: PopulationManager) -> None:
        """Breed one generation."""
        started = time.monotonic()
        births = manager.ask(self._config.evolution.children)
        elites = manager.ask_elites()
        plans: list[Plan] = [*elites, *births]
        self._progress.phase("breeding", len(plans))
        results = self._dispatch(context, plans, manager.genomes())
        elite_results, birth_results = results[: len(elites)], results[len(elites) :]
        self._report_failures(births, birth_results)
        manager.tell(results)
        rows = [
            member_row(self._config.name, manager.elites[plan.genome], plan.generation, result)
            for plan, result in zip(elites, elite_results, strict=True)
        ]
        manager.finish_generation()
        born = list(zip(births, birth_results, strict=True))
        self._finish(manager.generation, born, rows)
        self._summarize(manager, born, time.monotonic() - started)

    def _champion(self, prepared: Prepared, manager: PopulationManager) -> Champion:
        """Let the best of the run play held-out episodes, and crown one."""
        candidates = list(manager.archive)
        self._progress.phase("champion", len(candidates))
        plans = [
            EvaluationPlan(manager.generation, index, member.genome.id, "holdout")
            for index, member in enumerate(candidates)
        ]
        results = self._dispatch(prepared.context, plans, manager.genomes())
        refuse_extinction(plans, results)
        records = [Record.of(result.returns) if result.returns else None for result in results]
        played = [
            (member, record)
            for member, record in zip(candidates, records, strict=True)
            if record is not None
        ]
        self._directory.save_recipes(self._recipes.table())  # which may be missing
        champion = crown(self._directory, prepared, played)
        self._directory.finish_stage(
            "champion",
            lambda: [
                member_row(self._config.name, member, manager.generation, result, record)
                for member, result, record in zip(candidates, results, records, strict=True)
            ],
        )
        return champion

    def _finish(
        self,
        generation: int,
        born: Sequence[tuple[ChildPlan, Result]],
        elite_rows: Sequence[Row],
    ) -> None:
        """Write the genomes and the tables of a generation, unless that was done before."""
        name = f"generation-{generation}"
        pack = pack_path(self._directory.path, generation)
        if self._directory.stage(name) is None or not pack.exists():
            genomes = [result.genome for _, result in born if result.genome is not None]
            self._directory.save_genomes(generation, genomes)
            self._directory.save_recipes(self._recipes.table())
        self._directory.finish_stage(
            name,
            lambda: [
                *elite_rows,
                *(birth_row(self._config.name, plan, result) for plan, result in born),
            ],
        )

    def _dispatch(
        self, context: Context, plans: Sequence[Plan], genomes: dict[str, Genome]
    ) -> list[Result]:
        """Return the result of every plan, in their order; what is recorded is not done again."""
        results: dict[tuple[str, int, int], Result] = {}
        for plan in plans:
            recorded = self._directory.recorded(plan.key)
            if recorded is not None:
                results[recorded.key] = recorded
        self._progress.advance(len(results))
        self._n_computed = len(plans) - len(results)
        batches = []
        for chunk in _chunks(plans, self._config.evolution.batch_size):
            missing = [plan for plan in chunk if plan.key not in results]
            if missing:
                batches.append(Batch.of(missing, genomes))
        for arrived in self._executor.run(context, batches, self._stop):
            stamp = now()
            finished = [replace(result, created_at=stamp) for result in arrived]
            self._directory.record(finished)
            results.update({result.key: result for result in finished})
            self._progress.advance(len(finished))
            n_workers = self._executor.n_workers
            n_left = math.ceil((len(plans) - len(results)) / self._config.evolution.batch_size)
            self._progress.workers(min(n_workers, n_left), n_workers)
        if len(results) < len(plans):
            raise self._interruption()
        return [results[plan.key] for plan in plans]

    def _report_failures(self, births: Sequence[ChildPlan], results: Sequence[Result]) -> None:
        """Tell how many births failed and why, and stop where no children come any more."""
        failures = [result for result in results if result.status in ("failed", "lost")]
        if failures and self._n_computed:
            self._progress.note(
                f"{len(failures)} of {len(births)} births of generation {births[0].generation} "
                f"{failures[0].status}, the first one because: {failures[0].reason}"
            )
        if self._offspring.is_barren(births, results) and self._n_computed:
            self._progress.note(
                f"generation {births[0].generation} has no children: the run goes on with their "
                "parents, and stops if that happens again in the next one"
            )

    def _summarize(
        self,
        manager: PopulationManager,
        born: Sequence[tuple[ChildPlan, Result]],
        seconds: float,
    ) -> None:
        fitness = [
            math.fsum(result.returns) / len(result.returns)
            for plan, result in born
            if result.returns and plan.kind in ("student", "child")
        ]
        if self._n_computed == 0:
            self._n_replayed += 1
            return
        if self._n_replayed:
            self._progress.note(f"{self._n_replayed} generations were read back from the journal")
            self._n_replayed = 0
        elites = manager.population.top(max(self._config.evolution.elites, 1))
        self._progress.generation(
            GenerationSummary(
                generation=manager.generation,
                generations=self._config.evolution.generations,
                births=len(born),
                best=max(fitness, default=None),
                mean=float(np.mean(fitness)) if fitness else None,
                elite=float(np.mean([member.fitness for member in elites])),
                median=float(np.median(fitness)) if fitness else None,
                births_per_s=len(born) / seconds if seconds > 0 else None,
            )
        )


def _chunks(plans: Sequence[Plan], size: int) -> list[list[Plan]]:
    """Cut plans into batches of one phase each, the same way whatever the cluster."""
    chunks: list[list[Plan]] = []
    for plan in plans:
        if not chunks or len(chunks[-1]) == size or chunks[-1][0].phase != plan.phase:
            chunks.append([])
        chunks[-1].append(plan)
    return chunks
