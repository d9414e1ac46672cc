"""Genomes with their fitness records, ranked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from populations.genome import Genome
from populations.plans import FineTune


@dataclass(frozen=True, slots=True)
class Member:
    """A genome and what is known of its fitness.

    Attributes:
        genome: The genome.
        finetune: How it was trained; its children may inherit from this.
        returns: Return of every episode it has played for selection, oldest first.
    """

    genome: Genome
    finetune: FineTune
    returns: tuple[float, ...]

    @property
    def fitness(self) -> float:
        """Mean return over all episodes so far."""
        return float(np.mean(self.returns))

    @property
    def sem(self) -> float:
        """Standard error of :attr:`fitness`; 0 for a single episode."""
        if len(self.returns) < 2:
            return 0.0
        return float(np.std(self.returns, ddof=1) / math.sqrt(len(self.returns)))

    @property
    def rank_key(self) -> tuple[float, int, int, int]:
        """Sorting key: fitter first, then longer tested, then older."""
        lineage = self.genome.lineage
        return (-self.fitness, -len(self.returns), lineage.generation, lineage.index)

    def pooled_with(self, returns: Iterable[float]) -> Member:
        """Return the member with more episodes in its record."""
        return Member(self.genome, self.finetune, (*self.returns, *returns))


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
            if known is None or len(member.returns) > len(known.returns):
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
