"""Families of parents that crossover operators are tried on, from ordinary to extreme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.families import family_of
from strategies.operator import CrossoverOperator, Family, Need
from strategies.parents import Parent
from strategies.testing.networks import (
    SEEDS,
    describe,
    random_states,
    random_weights,
    silence_units,
)
from strategies.testing.observe import writable

UNRELATED = "unrelated parents"
RELATED = "parents of one ancestor"
NEAR = "nearly equal parents, the first of them the ancestor itself"
DEAD = "parents with dead units and a tensor of zeros, on 3 states"
SCALES = "parents of very different scale"
TWINS = "equal parents"
WIDTHS = "parents of different widths"
ORDINARY = (UNRELATED, RELATED, NEAR, DEAD, SCALES, TWINS)
"""What every operator has to cope with."""


@dataclass(frozen=True)
class FamilyCase:
    """One family, and the seed of the child that is made of it.

    Attributes:
        kind: What is special about the parents.
        family: The parents, with what the operator needs and nothing else.
        needs: What that is.
        seed: Seed of the child's random stream.
    """

    kind: str
    family: Family
    needs: tuple[Need, ...]
    seed: int

    @property
    def where(self) -> str:
        """What is given, for messages."""
        n = len(self.family)
        kind = {0: "no parents", 1: "one parent"}.get(n, f"{n} {self.kind}")
        return f"{kind}, {describe(self.spec)}, seed {self.seed}"

    @property
    def spec(self) -> NetworkSpec:
        """Architecture that the child has to have."""
        return self.family.spec

    @property
    def given(self) -> Mapping[str, Any]:
        """Weights and facts of the parents."""
        facts = {f"parents.{need}": getattr(self.family, need) for need in self.needs}
        return {"parents": tuple(self.family), **facts}

    def make(self, operator: CrossoverOperator) -> Any:
        """Return what the operator makes of this, with the same random stream every time."""
        return operator.cross(self.family, np.random.default_rng(self.seed))

    def writable(self) -> FamilyCase:
        """Return the same case in arrays that can be written to."""
        family = self.family
        facts: dict[str, Any] = {need: writable(getattr(family, need)) for need in self.needs}
        copy = Family(
            writable(tuple(family)), family.spec, family.ids, family.fitness, facts, family.specs
        )
        return replace(self, family=copy)


def random_family(spec: NetworkSpec, n_parents: int, seed: int) -> Family:
    """Return unrelated random parents, read-only, every tensor drawn from ``N(0, 1)``."""
    rng = np.random.default_rng(seed)
    parents = [_read_only(random_weights(spec, rng)) for _ in range(n_parents)]
    ids = [f"parent{index}" for index in range(n_parents)]
    return Family(parents, spec, ids, [float(-index) for index in range(n_parents)])


def family_cases(
    operator: CrossoverOperator, specs: Sequence[NetworkSpec], kind: str
) -> Iterator[FamilyCase]:
    """Yield the families of one kind that an operator is tried on.

    Args:
        operator: Tells how many parents there are and what it needs of them.
        specs: Architectures of the child and of the first parent.
        kind: One of the constants above.
    """
    if kind == WIDTHS:
        specs = [spec for spec in specs if spec.hidden]
    for spec in specs:
        for seed in SEEDS if kind == UNRELATED else SEEDS[:1]:
            family = _family(operator, kind, spec, seed)
            needs = operator.needs if operator.n_parents else ()
            yield FamilyCase(kind, family, needs, seed)


def _family(operator: CrossoverOperator, kind: str, spec: NetworkSpec, seed: int) -> Family:
    parents, ancestor = _parents(kind, spec, max(operator.n_parents, 1), seed)
    if operator.n_parents == 0:
        return Family([], spec, [], [])  # with nothing that could be needed, as in a run
    # Equal parents are equally fit, which also tries what divides by a difference in fitness.
    fitness = [0.0 if kind in (NEAR, TWINS) else 10.0 - 7 * index for index in range(len(parents))]
    return family_of(operator, parents, fitness, ancestor)


@lru_cache(maxsize=256)  # several operators are tried on the same parents, which are read-only
def _parents(
    kind: str, spec: NetworkSpec, n_parents: int, seed: int
) -> tuple[tuple[Parent, ...], Weights]:
    """Return parents and a common ancestor, which for most kinds is some other network."""
    rng = np.random.default_rng([seed, n_parents])
    ancestor = random_weights(spec, rng)
    states = random_states(spec, seed)
    specs = [spec] * n_parents
    if kind == WIDTHS:
        specs = [_wider(spec, index) for index in range(n_parents)]
    weights = [random_weights(each, rng) for each in specs]
    if kind == RELATED:
        weights = [_moved(ancestor, drawn, 0.1) for drawn in weights]
    elif kind == NEAR:
        weights = [_moved(ancestor, drawn, 1e-6 * (i > 0)) for i, drawn in enumerate(weights)]
    elif kind == DEAD:
        states = states[:3].copy()
        states[:, 0] = 0
        for drawn in weights:
            silence_units(spec, drawn)
        weights[-1][spec.blocks[-1].weight][:] = 0
    elif kind == SCALES:
        for index, drawn in enumerate(weights):
            for tensor in drawn.values():
                tensor *= 10.0 ** (3 if index % 2 else -3)
    elif kind == TWINS:
        weights = weights[:1] * n_parents
    parents = tuple(
        Parent(f"parent{i}", each, drawn, states, basis="ancestor")
        for i, (each, drawn) in enumerate(zip(specs, weights, strict=True))
    )
    return parents, _read_only(ancestor)


def _wider(spec: NetworkSpec, more: int) -> NetworkSpec:
    """Return a spec with other hidden widths: 1 more in the second parent, 2 in the third, ..."""
    return replace(spec, hidden=tuple(width + more for width in spec.hidden))


def _moved(start: Weights, step: Weights, size: float) -> dict[str, NDArray[np.float32]]:
    return {name: start[name] + np.float32(size) * step[name] for name in start}


def _read_only(weights: dict[str, NDArray[np.float32]]) -> Weights:
    for tensor in weights.values():
        tensor.setflags(write=False)
    return MappingProxyType(weights)
