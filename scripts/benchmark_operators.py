"""Compare what crossing and aligning 64 children costs with what fine-tuning them costs.

Both sides run in turn in one process on one thread; times are CPU seconds, medians over the rounds,
and what counts is the ratio. Fine-tuning is what a run does by default: output layers refitted, 100
steps towards weighted teachers with int8 in the loop, the best of two looks kept. Parents are
strangers, so that alignment has all its work to do: 64 children of 16 parents, fitter ones chosen
more often, as in a generation of the default settings.

    python scripts/benchmark_operators.py [--rounds 5] [--json FILE]
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from benchmark_generation import SPEC, in_turn, random_weights
from threadpoolctl import threadpool_limits

from engine.breeding import FACT_STATES
from engine.conception import ParentBook, conceive
from engine.config import FineTuneConfig, LearningConfig
from engine.learning.imitation import Lessons, Pupil, imitate
from populations.genome import Genome, Lineage
from populations.plans import Align, ChildPlan, FineTune
from strategies.crossover import crossovers
from strategies.operator import CrossoverOperator
from strategies.selection import TournamentSelection

CHILDREN, PARENTS = 64, 16
MODES: tuple[Align, ...] = ("none", "activations", "weights")
STEPS, TEACHERS = FineTuneConfig().steps, 4
N_STATES, N_VALIDATION = 3584, 512  # states.size, an eighth of it for validation
FINETUNE = FineTune("teachers", STEPS, 3e-3, 1.0, 0.0, (1 / TEACHERS,) * TEACHERS)


def parents(rng: np.random.Generator) -> list[Genome]:
    """Return unrelated genomes, the first one the fittest."""
    return [
        Genome.from_weights(SPEC, random_weights(rng), Lineage("student", 0, index))
        for index in range(PARENTS)
    ]


def plans(genomes: list[Genome], operator: CrossoverOperator, align: Align) -> list[ChildPlan]:
    """Return the births of one generation; an ancestor is named for those who need one."""
    fitness = -np.arange(PARENTS, dtype=np.float64)
    found = []
    for index in range(CHILDREN):
        rng = np.random.default_rng(index)
        chosen = TournamentSelection().select(fitness, operator.n_parents, rng)
        found.append(
            ChildPlan(
                kind="child",
                generation=1,
                index=index,
                parents=tuple(genomes[number].id for number in chosen),
                fitness=tuple(float(fitness[number]) for number in chosen),
                operator=operator,
                align=align,
                mutation=None,
                finetune=FINETUNE,
                seed=(0, index),
                ancestor=genomes[-1].id,
            )
        )
    return found


def make_lessons(rng: np.random.Generator) -> Lessons:
    """Return as many states and teachers as a run has by default, with random smooth values."""
    states = rng.standard_normal((N_STATES + N_VALIDATION, SPEC.n_inputs)).astype(np.float32)
    slopes = rng.standard_normal((TEACHERS, SPEC.n_actions, SPEC.n_inputs)).astype(np.float32)
    values = np.einsum("tai,ni->tan", slopes, states)
    return Lessons(
        train_states=states[:N_STATES],
        train_targets=np.ascontiguousarray(values[:, :, :N_STATES]),
        validation_states=states[N_STATES:],
        validation_targets=np.ascontiguousarray(values[:, :, N_STATES:]),
    )


def sides() -> dict[str, Callable[[], object]]:
    """Return what is measured, by name."""
    rng = np.random.default_rng(0)
    genomes = parents(rng)
    by_id = {genome.id: genome for genome in genomes}
    states = rng.standard_normal((FACT_STATES, SPEC.n_inputs)).astype(np.float32)
    pupils = [Pupil(random_weights(rng), FINETUNE) for _ in range(CHILDREN)]
    lessons = make_lessons(rng)

    def breed(births: list[ChildPlan]) -> None:
        book = ParentBook(by_id, states)
        for plan in births:
            conceive(SPEC, plan, book)

    measured: dict[str, Callable[[], object]] = {
        "fine-tuning": lambda: imitate(SPEC, pupils, lessons, LearningConfig(), (0, 1))
    }
    for name in crossovers.available():
        operator = crossovers.create(name)
        for mode in MODES if _movable(operator) else MODES[:1]:
            births = plans(genomes, operator, mode)
            measured[f"{name}, {mode}"] = lambda births=births: breed(births)
    return measured


def _movable(operator: CrossoverOperator) -> bool:
    """Tell whether parents may be aligned at all: not if they keep the order of an ancestor."""
    return operator.n_parents > 1 and "ancestor" not in operator.needs


def main() -> None:
    """Measure, print, and on request write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        measured = in_turn(sides(), arguments.rounds)
    seconds = {name: statistics.median(times) for name, times in measured.items()}
    whole = seconds.pop("fine-tuning")
    print(
        f"{CHILDREN} children, 32+32 units: fine-tuning as a run does it, {STEPS} steps, takes "
        f"{1e3 * whole:.0f} ms of CPU time"
    )
    print("crossover with alignment, as a share of that:")
    print(f"  {'':<18}" + "".join(f"{mode:>13}" for mode in MODES))
    for name in crossovers.available():
        shares = [seconds.get(f"{name}, {mode}") for mode in MODES]
        cells = ["" if share is None else f"{share / whole:.1%}" for share in shares]
        print(f"  {name:<18}" + "".join(f"{cell:>13}" for cell in cells))
    if arguments.json is not None:
        figures = {"finetuning_s": whole, "crossover_s": seconds}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
