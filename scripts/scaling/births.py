"""Births that do nothing: runs around them are real, but for the children."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engine.config import RunConfig
from engine.seeding import stream
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec
from populations.plans import ChildPlan, Plan, Result
from populations.storage import save_weights

HIDDEN = (32, 32)
TEACHER = NetworkSpec((4,), (8,), 2)
N_TEACHERS = 2
STREAMS = 99  # a number of purpose that no stream of a run has


class IdleBirths:
    """Stands in for what all tasks of a run share; see ``engine.dispatch.executor.Context``.

    It hands back int8 networks of 32+32 units, all different, with returns drawn at random; the
    same ones for the same plans.

    Args:
        episodes: Episodes of a generation.
        naps_s: Seconds that a batch of one plan takes, one after the other by the index of the
            batch's first plan; empty: no time.
    """

    def __init__(self, episodes: int, naps_s: Sequence[float] = ()) -> None:
        self._episodes = episodes
        self._naps_s = tuple(naps_s)
        self._spec = NetworkSpec((4,), HIDDEN, 2)
        weights = random_weights(self._spec, np.random.default_rng(0))
        self._model = Genome.from_weights(self._spec, weights, Lineage("student", 0, 0))

    def nap_s(self, plans: Sequence[Plan]) -> float:
        """Return the seconds that a batch takes."""
        if not self._naps_s:
            return 0.0
        first = plans[0]
        number = (first.generation * 7919 + first.index) % len(self._naps_s)
        return self._naps_s[number] * len(plans)

    def work(self, plans: Sequence[Plan], genomes: Mapping[str, Genome]) -> list[Result]:
        """Return one result per plan, after the batch's time."""
        done_at = time.perf_counter() + self.nap_s(plans)
        results = [self._result(plan, genomes) for plan in plans]
        time.sleep(max(0.0, done_at - time.perf_counter()))
        return results

    def _result(self, plan: Plan, genomes: Mapping[str, Genome]) -> Result:
        phase, generation, index = plan.key
        rng = stream((STREAMS, generation, index))
        returns = tuple(rng.integers(8, 501, self._episodes).astype(float).tolist())
        result = Result(phase, generation, index, "ok", returns=returns, node="stand-in")
        if isinstance(plan, ChildPlan):
            result.genome = self._genome(plan, genomes, rng)
            result.mean_before, result.tuned, result.kl = returns[0], True, 0.01 * returns[1]
            result.agreements = (returns[2] / 512,) * N_TEACHERS
        return result

    def _genome(
        self, plan: ChildPlan, genomes: Mapping[str, Genome], rng: np.random.Generator
    ) -> Genome:
        model, square = self._model, self._spec.matrices[1]
        codes = rng.integers(-127, 128, self._spec.shapes[square], np.int8)
        basis = genomes[plan.parents[0]].lineage.basis if plan.parents else model.id
        return Genome(
            self._spec,
            {**model.codes, square: codes},
            model.scales,
            model.vectors,
            Lineage(
                plan.kind, plan.generation, plan.index, plan.parents, plan.operator.name, basis
            ),
        )


def random_weights(spec: NetworkSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a network with random weights."""
    return {name: rng.normal(size=s).astype(np.float32) for name, s in spec.shapes.items()}


def balancer(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a teacher that balances the pole: a linear controller, a little off each time."""
    weights = {name: np.zeros(shape, np.float32) for name, shape in TEACHER.shapes.items()}
    push = (np.array([0.05, 0.2, 1.0, 0.5]) * rng.uniform(0.8, 1.2, 4)).astype(np.float32)
    weights["network.0.weight"][:2] = push, -push
    weights["network.2.weight"][:, :2] = [[0, 1], [1, 0]]
    return weights


def make_config(folder: Path, generations: int, per_generation: int, **evolution: int) -> RunConfig:
    """Return a run with teachers and states at hand; what it leaves open is as by default.

    Args:
        folder: Where teachers and states are written.
        generations: Number of generations.
        per_generation: Children of each.
        evolution: Other settings of ``evolution``.
    """
    rng = np.random.default_rng(1)
    files = [folder / f"teacher-{number}.safetensors" for number in range(N_TEACHERS)]
    for file in files:
        save_weights(file, TEACHER, balancer(rng), {})
    states = folder / "states.npy"
    np.save(states, rng.normal(scale=0.3, size=(4096, 4)).astype(np.float32))
    return RunConfig.model_validate(
        {
            "seed": 1,
            "teachers": {"files": [str(file) for file in files]},
            "states": {"file": str(states)},
            "network": {"hidden": HIDDEN},
            "evolution": {"generations": generations, "children": per_generation, **evolution},
        }
    )
