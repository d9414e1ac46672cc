"""Families: parents as an operator is given them, with what it needs and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from populations.network import Weights
from populations.plans import Align, Operator
from strategies.errors import NeedError
from strategies.operator import NEEDS, Family
from strategies.parents import Parent
from strategies.registry import suggestion


def family_of(
    operator: Operator,
    parents: Sequence[Parent],
    fitness: Sequence[float],
    ancestor: Weights | None = None,
) -> Family:
    """Return parents as an operator is given them, with what it needs and nothing else.

    Args:
        operator: Who is going to cross them.
        parents: Aligned parents, at least one.
        fitness: Fitness of each.
        ancestor: Weights of the genome whose unit order all of them keep, read-only as those of a
            :class:`Parent`; None where there is none.

    Raises:
        NeedError: The operator needs something that is not known, or a common ancestor that these
            parents do not have, or the parents are not of one architecture. For an operator with
            ``same_widths = False`` they may differ in the widths of their hidden layers, but in
            nothing else.
    """
    for parent in parents[1:]:
        _check_architecture(operator, parents[0], parent)
    given = {need: _given(operator, need, parents, ancestor) for need in operator.needs}
    weights = [parent.weights for parent in parents]
    specs = [parent.spec for parent in parents]
    return Family(weights, specs[0], [parent.id for parent in parents], fitness, given, specs)


def leaves_ancestor(needs: Sequence[str], align: Align, n_parents: int) -> bool:
    """Tell whether an alignment moves parents out of the unit order of an ancestor that is needed.

    Those who descend from one genome have their units in its order; put into the best order for
    one another, they are no longer comparable to it.

    Args:
        needs: What the operator needs.
        align: The alignment.
        n_parents: Number of parents; a single one is never moved.
    """
    return "ancestor" in needs and align in ("weights", "activations") and n_parents > 1


def _given(
    operator: Operator, need: str, parents: Sequence[Parent], ancestor: Weights | None
) -> Any:
    """Return one thing that an operator needs."""
    if need not in NEEDS:
        raise NeedError(
            f"{operator.name} needs {need!r}, which is not known."
            f"{suggestion(need, NEEDS)} Known: {', '.join(NEEDS)}"
        )
    if need == "states":
        return parents[0].states
    if need != "ancestor":
        return tuple(getattr(parent, need) for parent in parents)
    if ancestor is None:
        raise NeedError(
            f"{operator.name} needs parents with a recorded common ancestor, but "
            f"{_descent(parents)}; students share one with distillation.ancestor: shared, but a "
            "network from scratch (fresh) and a child of strangers that were not aligned (align: "
            "none) begin a line of their own: leave such recipes out"
        )
    return ancestor


def _descent(parents: Sequence[Parent]) -> str:
    """Tell whose order of units parents keep."""
    names = " and ".join(parent.id for parent in parents)
    bases = {parent.basis for parent in parents}
    if bases == {""}:
        return f"{names} have none"
    if len(bases) == 1:
        return f"that of {names} is not at hand"
    return " and ".join(
        f"{parent.id} begins a line of its own"
        if parent.basis == parent.id
        else f"{parent.id} descends from {parent.basis or 'none that is recorded'}"
        for parent in parents
    )


def _check_architecture(operator: Operator, first: Parent, other: Parent) -> None:
    spec = other.spec
    if not operator.same_widths and len(spec.hidden) == len(first.spec.hidden):
        spec = replace(spec, hidden=first.spec.hidden)
    if spec != first.spec:
        needed = "one architecture" if operator.same_widths else "one architecture but for widths"
        raise NeedError(
            f"{operator.name} needs parents of {needed}, but {other.id} is {other.spec} and "
            f"{first.id} is {first.spec}"
        )
