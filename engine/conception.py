"""A child's first weights: parents aligned, crossed, rescaled and mutated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConceptionError
from engine.seeding import stream
from engine.user_code import blamed, checked, copied
from populations.genome import Genome
from populations.network import NetworkSpec, Weights
from populations.plans import Align, ChildPlan, Mutator, Operator
from populations.reasons import shortened
from strategies.alignment import align_parents
from strategies.errors import NeedError
from strategies.families import family_of, leaves_ancestor
from strategies.mutation import Newborn
from strategies.operator import Family
from strategies.parents import Parent, frozen
from strategies.rescaling import restore_statistics


class ParentBook:
    """The parents of a batch: what is computed of one serves all its children.

    Args:
        genomes: Every genome that the batch needs, by id.
        states: What facts are computed on, ``(n_states, n_inputs)``.
    """

    def __init__(self, genomes: Mapping[str, Genome], states: NDArray[np.float32]) -> None:
        self._genomes = genomes
        self._states = frozen(states)
        self._parents: dict[str, Parent] = {}
        self._aligned: dict[tuple[str, str, Align], Parent] = {}

    def states_for(self, mutation: Mutator) -> NDArray[np.float32] | None:
        """Return the states if the mutation asks for them, read-only."""
        return self._states if "states" in mutation.needs else None

    def parent(self, genome: str) -> Parent:
        """Return a parent in its own order of units."""
        if genome not in self._parents:
            found = self._genomes[genome]
            self._parents[genome] = Parent(
                genome, found.spec, found.to_weights(), self._states, found.lineage.basis
            )
        return self._parents[genome]

    def aligned(self, genomes: Sequence[str], mode: Align) -> list[Parent]:
        """Return parents in the order of units of the first one.

        Raises:
            AlignmentError: They cannot be aligned.
        """
        parents = [self.parent(genome) for genome in genomes]
        for index in range(1, len(parents)):
            key = (genomes[0], genomes[index], mode)
            if key not in self._aligned:
                self._aligned[key] = align_parents([parents[0], parents[index]], mode)[1]
            parents[index] = self._aligned[key]
        return parents


def conceive(spec: NetworkSpec, plan: ChildPlan, book: ParentBook) -> Weights:
    """Return the weights of a child before it has learned anything.

    Args:
        spec: Architecture of the child.
        plan: How it is to be born.
        book: Its parents.

    Returns:
        New float32 tensors.

    Raises:
        ConceptionError: The operator, the mutation or the alignment raised or gave something that
            is no network of this architecture; the text names which, and why.
    """
    rng = stream(plan.seed)
    operator = copied(plan.operator)
    if leaves_ancestor(operator.needs, plan.align, len(plan.parents)):
        raise ConceptionError(
            f"{operator.name} needs parents in the order of units of their common ancestor, which "
            f"align={plan.align} changes; use auto or none"
        )
    with blamed("alignment"):
        parents = book.aligned(plan.parents, plan.align)
    family = _family(spec, plan, operator, parents, book)
    with blamed(operator.name):
        child = checked(spec, operator.cross(family, rng), f"child of {operator.name}")
    if plan.rescale and len(parents) > 1:
        with blamed("rescale"):
            child = restore_statistics(spec, child, parents)
    if plan.mutation is not None:
        mutation = copied(plan.mutation)
        with blamed(mutation.name):
            newborn = Newborn(_read_only(child), spec, book.states_for(mutation))
            mutant = mutation.mutate(newborn, rng)
            child = checked(spec, mutant, f"mutant of {mutation.name}")
    return child


def _family(
    spec: NetworkSpec,
    plan: ChildPlan,
    operator: Operator,
    parents: Sequence[Parent],
    book: ParentBook,
) -> Family:
    if not parents:
        return Family([], spec, [], [])
    ancestor = None if plan.ancestor is None else book.parent(plan.ancestor).weights
    try:
        return family_of(operator, parents, plan.fitness, ancestor)
    except NeedError as error:
        raise ConceptionError(shortened(str(error))) from error


def _read_only(weights: Weights) -> Weights:
    for tensor in weights.values():
        tensor.flags.writeable = False
    return weights
