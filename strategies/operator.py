"""The contract of a crossover operator, and the family of parents that it is given."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, overload

import numpy as np

from populations.network import NetworkSpec, Weights


class Family(Sequence[Weights]):
    """The parents of one child: a sequence of their weights, and what else may be asked of them.

    The weights are aligned to the first parent and read-only. An operator that needs no more than
    the weights can treat a family as a plain sequence.

    Attributes:
        spec: Architecture shared by all parents; ``spec.blocks`` and ``spec.units`` tell which
            tensors belong together.
        ids: Genome id of each parent.
        fitness: Fitness of each parent, higher is better.
    """

    def __init__(
        self,
        weights: Sequence[Weights],
        spec: NetworkSpec,
        ids: Sequence[str],
        fitness: Sequence[float],
    ) -> None:
        self._weights = tuple(weights)
        self.spec = spec
        self.ids = tuple(ids)
        self.fitness = tuple(fitness)

    @overload
    def __getitem__(self, index: int) -> Weights: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Weights]: ...
    def __getitem__(self, index: int | slice) -> Weights | Sequence[Weights]:
        """Return the weights of one parent, or of several."""
        return self._weights[index]

    def __len__(self) -> int:
        """Return the number of parents."""
        return len(self._weights)


class CrossoverOperator(ABC):
    """Combines the weights of parents into the weights of a child.

    A subclass sets ``name`` and ``n_parents``, keeps every constructor argument in an attribute of
    the same name, and validates it there. Instances are pickled and travel to workers; they hold
    no state between calls. :func:`strategies.testing.check_crossover_operator` checks all of this.

    Attributes:
        name: Name in configurations and on the leaderboard, snake_case.
        n_parents: How many parents :meth:`cross` is given.
        idempotent: Whether parents that are all equal give a child equal to them, up to rounding.
            False for an operator that adds noise or makes weights of its own.
    """

    name: ClassVar[str]
    n_parents: ClassVar[int] = 2
    idempotent: ClassVar[bool] = True

    @abstractmethod
    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return the weights of one child.

        Args:
            parents: Aligned float32 weights, read-only; ``network.0.weight`` is ``(out, in)``.
            rng: Random stream of this child, the only source of randomness.

        Returns:
            New arrays with the names, shapes and dtypes of the parents.
        """

    @property
    def params(self) -> dict[str, Any]:
        """Constructor arguments by name, as the leaderboard shows them."""
        return constructor_params(self)


def constructor_params(instance: object) -> dict[str, Any]:
    """Return the constructor arguments of ``instance``, read from the attributes they are kept in.

    Raises:
        TypeError: An argument is not kept in an attribute of its name.
    """
    names = [
        name
        for name, parameter in inspect.signature(type(instance).__init__).parameters.items()
        if name != "self"
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    missing = [name for name in names if not hasattr(instance, name)]
    if missing:
        raise TypeError(
            f"{type(instance).__name__} must keep its argument {missing[0]!r} "
            "in an attribute of the same name"
        )
    return {name: getattr(instance, name) for name in names}
