"""Genomes with their fitness records, ranked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from populations.genome import Genome
from populations.plans import FineTune, Mutator

LARGEST_RETURN = 1e100
"""Of what is measured, either way: far beyond any task, and sums of its squares stay finite."""


@dataclass(frozen=True, slots=True)
class Record:
    """Summary of the episodes that a genome has played: of one size, however many they are.

    Attributes:
        episodes: Number of episodes.
        mean: Mean return.
        squares: Sum of squared deviations from the mean.
        low: Lowest return.
        high: Highest return.
    """

    episodes: int
    mean: float
    squares: float
    low: float
    high: float

    @classmethod
    def of(cls, returns: Sequence[float] | NDArray[np.float64]) -> Record:
        """Summarize returns.

        Raises:
            ValueError: There is none.
        """
        if len(returns) == 0:
            raise ValueError("a record needs at least one episode")
        values = np.array(returns, np.float64)
        # The sums of mean() and sum(), called directly: every child of a run comes by here.
        mean = float(np.add.reduce(values)) / len(values)
        squares = float(np.add.reduce((values - mean) ** 2))
        return cls(len(values), mean, squares, float(values.min()), float(values.max()))

    def pooled_with(self, other: Record) -> Record:
        """Return the record of both sets of episodes (Chan et al. 1979, equations 2.1)."""
        episodes = self.episodes + other.episodes
        gap = other.mean - self.mean
        return Record(
            episodes,
            self.mean + gap * other.episodes / episodes,
            self.squares + other.squares + gap**2 * self.episodes * other.episodes / episodes,
            min(self.low, other.low),
            max(self.high, other.high),
        )

    @property
    def sem(self) -> float:
        """Standard error of the mean; 0 for a single episode."""
        if self.episodes < 2:
            return 0.0
        return math.sqrt(self.squares / (self.episodes - 1) / self.episodes)


@dataclass(frozen=True, slots=True)
class Member:
    """A genome and what is known of its fitness.

    Attributes:
        genome: The genome.
        finetune: How it was trained; its children may inherit from this.
        record: All episodes that it has played for selection.
        mutation: How it was mutated, or None; its children may inherit the step size.
    """

    genome: Genome
    finetune: FineTune
    record: Record
    mutation: Mutator | None = None

    @property
    def fitness(self) -> float:
        """Mean return over all episodes so far."""
        return self.record.mean

    @property
    def rank_key(self) -> tuple[float, int, int, int]:
        """Sorting key: fitter first, then longer tested, then older."""
        lineage = self.genome.lineage
        return (-self.fitness, -self.record.episodes, lineage.generation, lineage.index)

    def pooled_with(self, returns: Sequence[float]) -> Member:
        """Return the member with more episodes in its record; none change nothing."""
        if len(returns) == 0:
            return self
        return replace(self, record=self.record.pooled_with(Record.of(returns)))


class Population:
    """Distinct genomes, fittest first.

    Args:
        members: The members; of equal genomes the one with the longer record is kept.
        size: How many of the fittest are kept; None keeps all.
    """

    def __init__(self, members: Iterable[Member], size: int | None = None) -> None:
        distinct: dict[str, Member] = {}
        for member in members:
            known = distinct.get(member.genome.id)
            if known is None or member.record.episodes > known.record.episodes:
                distinct[member.genome.id] = member
        ranked = sorted(distinct.values(), key=lambda member: member.rank_key)
        self._members = {member.genome.id: member for member in ranked[:size]}

    def __len__(self) -> int:
        """Return the number of genomes."""
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        """Iterate over the members, fittest first."""
        return iter(self._members.values())

    def __contains__(self, genome_id: object) -> bool:
        """Tell whether a genome is in the population."""
        return genome_id in self._members

    def __getitem__(self, genome_id: str) -> Member:
        """Return the member with this genome id."""
        return self._members[genome_id]

    def top(self, n: int) -> list[Member]:
        """Return the ``n`` fittest members, or all of a smaller population."""
        return list(self)[:n]
