"""The contract of a mutation, and the newborn child that it is given."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.operator import constructor_params
from strategies.registry import Registry


@dataclass(frozen=True)
class Newborn:
    """A child as it comes from its parents, before it is mutated.

    Attributes:
        weights: Float32 tensors by name, read-only.
        spec: Their architecture.
        states: Flattened observations of the task, ``(n_states, n_inputs)``, read-only; None unless
            the mutation asks for them.
    """

    weights: Weights
    spec: NetworkSpec
    states: NDArray[np.float32] | None = None


class Mutation(ABC):
    """Changes the weights of one network at random.

    A subclass sets ``name``, keeps every constructor argument in an attribute of the same name, and
    validates it there. Instances are pickled and travel to workers; they hold no state.

    Attributes:
        name: Name in configurations and on the leaderboard, snake_case.
        needs: What it reads of a :class:`Newborn` besides its weights: nothing, or the states.
        step_size: The constructor argument that tells how far a mutant goes, which self-adaptation
            may change; None for a mutation that has none.
        step_size_range: Smallest and largest value that the constructor takes for it.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[Literal["states"], ...]] = ()
    step_size: ClassVar[str | None] = None
    step_size_range: ClassVar[tuple[float, float]] = (0.0, math.inf)

    @abstractmethod
    def mutate(self, child: Newborn, rng: np.random.Generator) -> Weights:
        """Return changed weights.

        Args:
            child: What to mutate; left as it is.
            rng: Random stream of this child, the only source of randomness.

        Returns:
            New arrays with the names, shapes and dtypes of ``child.weights``.
        """

    @property
    def params(self) -> dict[str, Any]:
        """Constructor arguments by name."""
        return constructor_params(self)

    def with_step_size(self, value: float) -> Self:
        """Return this mutation with another step size and all other arguments as they are.

        Args:
            value: The step size; what lies outside ``step_size_range`` becomes the nearer end.

        Raises:
            ValueError: The mutation has no step size, or ``value`` is not a finite number.
        """
        if self.step_size is None:
            raise ValueError(
                f"the mutation {self.name} has no step size to adapt; name the argument that is "
                "one in the class attribute 'step_size'"
            )
        low, high = self.step_size_range
        return type(self)(**{**self.params, self.step_size: min(max(value, low), high)})


mutations: Registry[Mutation] = Registry("mutation", Mutation)
"""All mutations by name."""
