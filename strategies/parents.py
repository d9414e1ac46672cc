"""A parent, and what operators may need to know of it besides its weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.errors import NeedError
from strategies.forward import pre_activations
from strategies.gradients import fisher_diagonal
from strategies.permutation import Permutations, permute_units

TIE_BREAK = 1e-3  # weight of the correlation before the ReLU
CONSTANT = 1e-5  # a unit whose standard deviation is below this share of its RMS is constant


class Parent:
    """One network that children are made of. What is asked of it is computed once, and kept.

    Whatever operators are given of it is read-only, for good: they are code of the user's own, and
    several children share a parent. What only alignment reads is not copied for that.

    Attributes:
        id: Genome id, or whatever errors should call it.
        spec: Its architecture.
        weights: Float32 tensors by name.
        basis: Id of the genome whose order of hidden units it keeps; empty for an order of its own.

    Args:
        id: Genome id.
        spec: Its architecture.
        weights: Float32 tensors by name; copied.
        states: Flattened observations, ``(n_states, n_inputs)``, that facts are computed on; None
            where no operator or alignment will ask for such facts.
        basis: Whose order of units it keeps.
    """

    def __init__(
        self,
        id: str,
        spec: NetworkSpec,
        weights: Weights,
        states: NDArray[np.float32] | None = None,
        basis: str = "",
    ) -> None:
        self.id = id
        self.spec = spec
        self.weights = _frozen_weights(spec, weights)
        self.basis = basis
        self._states = None if states is None else frozen(states)

    @property
    def states(self) -> NDArray[np.float32]:
        """The states that facts are computed on.

        Raises:
            NeedError: It was made without.
        """
        if self._states is None or not self.has_states:
            raise NeedError(f"states are needed to compare {self.id} with others; there are none")
        return self._states

    @property
    def has_states(self) -> bool:
        """Whether facts can be computed at all."""
        return self._states is not None and len(self._states) > 0

    def is_kin_of(self, other: Parent) -> bool:
        """Tell whether both keep the order of units of one genome."""
        return self.basis != "" and self.basis == other.basis

    @cached_property
    def responses(self) -> tuple[NDArray[np.float32], ...]:
        """What enters each ReLU, per hidden layer, ``(n_states, n_units)``."""
        return tuple(pre_activations(self.spec, self.weights, self.states))

    @cached_property
    def activations(self) -> tuple[NDArray[np.float32], ...]:
        """What leaves each ReLU, per hidden layer, ``(n_states, n_units)``."""
        return tuple(frozen(np.maximum(values, 0)) for values in self.responses)

    @cached_property
    def profiles(self) -> tuple[NDArray[np.float32], ...]:
        """What units respond to, per hidden layer, ``(2 * n_states, n_units)``.

        Each column holds what leaves the unit's ReLU on the states, and behind that what enters it
        with a small weight, both standardized to mean 0 and norm 1 (all 0 where they are constant):
        the inner product of two columns is the correlation of two units, with ties between dead
        units broken.
        """
        return tuple(_profile(values) for values in self.responses)

    @cached_property
    def unit_rows(self) -> tuple[NDArray[np.float32], ...]:
        """All weights of each hidden unit as a row, per hidden layer, ``(n_units, n_numbers)``.

        A row holds the incoming weights, the bias, the normalization, and the outgoing weights.
        """
        return tuple(
            np.concatenate(
                [
                    _by_unit(self.weights[name], axis)
                    for name, axis in (*layer.incoming, *layer.outgoing)
                ],
                axis=1,
            )
            for layer in self.spec.units
        )

    @cached_property
    def grams(self) -> tuple[NDArray[np.float32], ...]:
        """Mean of ``x^T x`` per block, ``(n_in + 1, n_in + 1)``; see :attr:`Family.grams`."""
        grams = []
        for inputs in (self.states, *self.activations):
            extended = np.concatenate([inputs, np.ones((len(inputs), 1), np.float32)], axis=1)
            grams.append(frozen(extended.T @ extended / np.float32(len(inputs))))
        return tuple(grams)

    @cached_property
    def fisher(self) -> Weights:
        """Diagonal Fisher information by tensor; see :func:`strategies.gradients`."""
        information = fisher_diagonal(
            self.spec, self.weights, self.states, activations=self.activations
        )
        return _frozen_weights(self.spec, information)

    def reordered(self, permutations: Permutations) -> Parent:
        """Return the same function with its hidden units in another order.

        What is known of this parent is reordered as well, not computed again.

        Args:
            permutations: One per hidden layer; unit ``i`` of the result is unit
                ``permutation[i]``.
        """
        return _Reordered(self, permutations)


class _Reordered(Parent):
    """A parent whose facts are those of another one, in another order."""

    def __init__(self, original: Parent, permutations: Permutations) -> None:
        spec = original.spec
        weights = permute_units(spec, original.weights, permutations)
        super().__init__(original.id, spec, weights, original._states, original.basis)
        self._original = original
        self._permutations = permutations

    @cached_property
    def responses(self) -> tuple[NDArray[np.float32], ...]:
        return self._by_unit(self._original.responses)

    @cached_property
    def activations(self) -> tuple[NDArray[np.float32], ...]:
        return self._by_unit(self._original.activations)

    @cached_property
    def profiles(self) -> tuple[NDArray[np.float32], ...]:
        return self._by_unit(self._original.profiles)

    @cached_property
    def grams(self) -> tuple[NDArray[np.float32], ...]:
        grams = [self._original.grams[0]]
        for gram, order in zip(self._original.grams[1:], self._permutations, strict=True):
            with_bias = np.append(order, len(order))
            grams.append(frozen(gram[np.ix_(with_bias, with_bias)]))
        return tuple(grams)

    @cached_property
    def fisher(self) -> Weights:
        permuted = permute_units(self.spec, self._original.fisher, self._permutations)
        return _frozen_weights(self.spec, permuted)

    def _by_unit(self, layers: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], ...]:
        pairs = zip(layers, self._permutations, strict=True)
        return tuple(frozen(values[:, order]) for values, order in pairs)


def frozen(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a copy that nobody can write to, not even after setting its ``writeable`` flag."""
    copy: NDArray[np.float32] = np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
    return copy


def _profile(responses: NDArray[np.float32]) -> NDArray[np.float32]:
    n_states, n_units = responses.shape
    both = np.empty((2, n_states, n_units), np.float32)
    np.maximum(responses, 0, out=both[0])
    both[1] = responses
    means = np.full(n_states, 1 / n_states, np.float32) @ both  # (2, n_units)
    both -= means[:, None]
    squares = np.einsum("kij,kij->kj", both, both)
    varies = squares > CONSTANT**2 * (squares + n_states * np.square(means))
    weights = np.array([[1], [np.sqrt(TIE_BREAK)]], np.float32)
    both *= np.divide(weights, np.sqrt(squares), out=np.zeros_like(squares), where=varies)[:, None]
    return both.reshape(2 * n_states, n_units)


def _by_unit(tensor: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return a view of shape ``(units, numbers per unit)``."""
    if tensor.ndim == 1:
        return tensor[:, None]
    return tensor if axis == 0 else tensor.T


def _frozen_weights(spec: NetworkSpec, weights: Weights) -> Weights:
    return MappingProxyType({name: frozen(weights[name]) for name in spec.shapes})
