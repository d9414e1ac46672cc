"""The contract of a crossover operator, and the family of parents that it is given."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Literal, get_args, overload

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.errors import NeedError

Need = Literal["ancestor", "states", "activations", "grams", "fisher"]
"""What an operator may ask for besides weights; see :class:`Family`."""
NEEDS: tuple[Need, ...] = get_args(Need)


class Family(Sequence[Weights]):
    """The parents of one child: a sequence of their weights, and what else may be asked of them.

    The weights are aligned to the first parent and read-only. An operator that needs no more than
    the weights can treat a family as a plain sequence. What it declares in ``needs`` is computed
    once per parent, is in the unit order of the aligned weights, and is read-only, too.

    Attributes:
        spec: Architecture of the child and of the first parent; ``spec.blocks`` and ``spec.units``
            tell which tensors belong together.
        specs: Architecture of each parent. All are ``spec`` unless the operator says
            ``same_widths = False``.
        ids: Genome id of each parent.
        fitness: Fitness of each parent, higher is better.

    Args:
        weights: Weights of each parent.
        spec: Architecture of the child and of the first parent.
        ids: Genome id of each parent.
        fitness: Fitness of each parent.
        given: What was asked for, by need.
        specs: Architecture of each parent, where they differ.
    """

    def __init__(
        self,
        weights: Sequence[Weights],
        spec: NetworkSpec,
        ids: Sequence[str],
        fitness: Sequence[float],
        given: Mapping[str, Any] | None = None,
        specs: Sequence[NetworkSpec] | None = None,
    ) -> None:
        self._weights = tuple(weights)
        self.spec = spec
        self.specs = (spec,) * len(self._weights) if specs is None else tuple(specs)
        self.ids = tuple(ids)
        self.fitness = tuple(fitness)
        self._given: Mapping[str, Any] = given or {}

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

    @property
    def ancestor(self) -> Weights:
        """Weights of the common ancestor whose order of units all parents keep.

        Raises:
            NeedError: The operator does not declare the need ``ancestor``.
        """
        found: Weights = self._need("ancestor")
        return found

    @property
    def states(self) -> NDArray[np.float32]:
        """A few hundred observations of the task, flattened, ``(n_states, n_inputs)``.

        Raises:
            NeedError: The operator does not declare the need ``states``.
        """
        found: NDArray[np.float32] = self._need("states")
        return found

    @property
    def activations(self) -> Sequence[Sequence[NDArray[np.float32]]]:
        """What leaves each ReLU, per parent and hidden layer, ``(n_states, n_units)``.

        Raises:
            NeedError: The operator does not declare the need ``activations``.
        """
        found: Sequence[Sequence[NDArray[np.float32]]] = self._need("activations")
        return found

    @property
    def grams(self) -> Sequence[Sequence[NDArray[np.float32]]]:
        """Mean of ``x^T x`` per parent and block, ``(n_in + 1, n_in + 1)``.

        ``x`` is what enters the block's Linear on one of the states, with a 1 behind it for the
        bias.

        Raises:
            NeedError: The operator does not declare the need ``grams``.
        """
        found: Sequence[Sequence[NDArray[np.float32]]] = self._need("grams")
        return found

    @property
    def fisher(self) -> Sequence[Weights]:
        """Diagonal Fisher information of each parent's softmax policy, by tensor, at least 0.

        Raises:
            NeedError: The operator does not declare the need ``fisher``.
        """
        found: Sequence[Weights] = self._need("fisher")
        return found

    def _need(self, need: Need) -> Any:
        if need not in self._given:
            raise NeedError(
                f"parents.{need} was not asked for; declare it: needs = ({need!r},) in the class"
            )
        return self._given[need]


class CrossoverOperator(ABC):
    """Combines the weights of parents into the weights of a child.

    A subclass sets ``name`` and ``n_parents``, gives every constructor argument a name (no
    ``**kwargs``), keeps it in an attribute of that name, and validates it there. Instances are
    pickled and travel to workers; neither they nor their class or module hold any state between
    calls that a child depends on. :func:`strategies.testing.check_crossover_operator` checks all of
    this.

    Attributes:
        name: Name in configurations and on the leaderboard, snake_case.
        n_parents: How many parents :meth:`cross` is given; a constructor may set it.
        needs: What it reads of its parents besides their weights, see :class:`Family`.
        same_widths: Whether all parents must share one architecture. With False, parents may differ
            in the widths of their hidden layers; the child has those of the first one.
        idempotent: Whether parents that are all equal give a child equal to them, up to rounding.
            False for an operator that adds noise or makes weights of its own.
    """

    name: ClassVar[str]
    n_parents: int = 2
    needs: ClassVar[tuple[Need, ...]] = ()
    same_widths: ClassVar[bool] = True
    idempotent: ClassVar[bool] = True

    @abstractmethod
    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return the weights of one child.

        Args:
            parents: Aligned float32 weights, read-only; ``network.0.weight`` is ``(out, in)``.
            rng: Random stream of this child, the only source of randomness.

        Returns:
            New arrays with the names, shapes and dtypes of the first parent.
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
    names = _argument_names(type(instance).__init__)
    missing = [name for name in names if not hasattr(instance, name)]
    if missing:
        raise TypeError(
            f"{type(instance).__name__} must keep its argument {missing[0]!r} "
            "in an attribute of the same name"
        )
    return {name: getattr(instance, name) for name in names}


@cache  # signatures are slow to read, and every child has an operator whose arguments are recorded
def _argument_names(constructor: Callable[..., None]) -> tuple[str, ...]:
    return tuple(
        name
        for name, parameter in inspect.signature(constructor).parameters.items()
        if name != "self"
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    )
