"""Alignment: hidden units of one parent put into the order of another.

A hidden layer computes the same function in any order of its units, so permuting them changes no
Q-value. Parents that were initialized independently have unrelated orders, and mixing them position
by position mixes noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from populations.plans import Align
from strategies.errors import AlignmentError
from strategies.parents import Parent
from strategies.permutation import Permutations, permute_units

IMPROVEMENT = 1e-6  # relative gain that coordinate descent needs to go on


def match_weights(a: Parent, b: Parent) -> Permutations:
    """Find the order of ``b``'s units in which its weights resemble those of ``a`` most.

    Maximizes the inner product of all tensors of ``a`` and the permuted ``b``, biases and
    normalizations included, by coordinate descent: layer by layer, first to last, the best order of
    one layer given the others is a linear assignment, until no layer gains. The descent starts from
    ``b``'s own order or from the one that matches incoming weights alone, first layer to last,
    whichever resembles ``a`` more; the former on a tie. The second start recovers permuted copies
    exactly, the first one leaves kin alone.

    Source: Ainsworth et al. 2022, "Git Re-Basin", arXiv:2209.04836, algorithm 1; there the layers
    are visited in random order, from one start.

    Args:
        a: Stays as it is.
        b: Whose units are to be reordered; of the same architecture.

    Returns:
        Permutations for :meth:`Parent.reordered` of ``b``.
    """
    own = [np.arange(layer.n_units) for layer in a.spec.units]
    incoming = _match_incoming(a, b)
    as_it_is, matched = (_inner_product(a, b, orders) for orders in (own, incoming))
    return _descend(a, b, incoming if matched > as_it_is + IMPROVEMENT * abs(as_it_is) else own)


def match_activations(a: Parent, b: Parent) -> Permutations:
    """Find the order of ``b``'s units in which they respond to states as those of ``a`` do.

    Maximizes, for each hidden layer by itself, the summed correlation of paired units behind the
    ReLU, because that is what the next layer reads. A unit that is constant there (a dead one) has
    correlation 0 with all others; such ties are broken by the correlation in front of the ReLU,
    added with a weight of 0.001 (see :attr:`Parent.profiles`).

    Source: Li et al. 2016, "Convergent Learning", arXiv:1511.07543, section 3.

    Args:
        a: Stays as it is.
        b: Whose units are to be reordered; of the same architecture, with the same states.

    Returns:
        Permutations for :meth:`Parent.reordered` of ``b``.
    """
    layers = zip(a.profiles, b.profiles, strict=True)
    return [_assign(of_a.T @ of_b) for of_a, of_b in layers]


def align_parents(parents: Sequence[Parent], mode: Align) -> tuple[Parent, ...]:
    """Put the hidden units of all parents into the order of the first one.

    Args:
        parents: The first one is returned as it is.
        mode: ``none``; ``weights`` or ``activations`` for all parents; or ``auto``: by activations
            for the parents whose basis is not that of the first one. Parents of other widths than
            the first one cannot be reordered, and are left alone by ``auto``.

    Returns:
        The parents; those that need no alignment are returned as they came.

    Raises:
        AlignmentError: States are needed and there are none, the mode is not known, or a parent has
            another architecture than the first one and the mode is neither ``none`` nor ``auto``.
    """
    if mode not in ("none", "weights", "activations", "auto"):
        raise AlignmentError(
            f"align must be 'none', 'weights', 'activations' or 'auto', not {mode!r}"
        )
    if mode == "none" or not parents or not parents[0].spec.units:
        return tuple(parents)
    return (parents[0], *(_aligned(parents[0], other, mode) for other in parents[1:]))


def _aligned(first: Parent, other: Parent, mode: Align) -> Parent:
    if mode == "auto" and (other.is_kin_of(first) or other.spec != first.spec):
        return other
    if other.spec != first.spec:
        raise AlignmentError(
            f"units of {other.id} cannot be put into the order of {first.id}: their architectures "
            f"differ, {other.spec} and {first.spec}; use align='none' or 'auto'"
        )
    if mode == "weights":
        return other.reordered(match_weights(first, other))
    if not (first.has_states and other.has_states):
        raise AlignmentError(f"align={mode!r} compares activations on states; there are none")
    return other.reordered(match_activations(first, other))


def _descend(a: Parent, b: Parent, start: Permutations) -> Permutations:
    """Return the orders at the end of coordinate descent."""
    permutations = list(start)
    stale = set(range(len(permutations)))  # layers whose neighbors have changed since
    while stale:
        index = min(stale)
        stale.remove(index)
        products = _products(a, b, index, permutations, following=True)
        units = np.arange(len(products))
        own = products[units, permutations[index]]
        better = _assign(products)
        gain = float(products[units, better].sum()) - float(own.sum())
        if gain > IMPROVEMENT * float(np.abs(own).sum()):
            permutations[index] = better
            stale |= {index - 1, index + 1} & set(range(len(permutations)))
    return permutations


def _match_incoming(a: Parent, b: Parent) -> Permutations:
    """Match each layer by what its units read, given the order of the layer before."""
    permutations: list[NDArray[np.intp]] = []
    for index in range(len(a.spec.units)):
        permutations.append(_assign(_products(a, b, index, permutations, following=False)))
    return permutations


def _products(
    a: Parent, b: Parent, index: int, permutations: Permutations, *, following: bool
) -> NDArray[np.float32]:
    """Return the inner product of each unit of ``a`` with each of ``b`` in one hidden layer.

    Args:
        a: The rows of the result.
        b: The columns, in its own order of this layer's units.
        index: Number of the hidden layer.
        permutations: Orders of ``b``'s units in the other layers, as far as they are needed.
        following: Whether outgoing weights count, too.

    Returns:
        Shape ``(n_units, n_units)``.
    """
    blocks = a.spec.blocks
    n_in, n_vectors = blocks[index].n_in, len(blocks[index].tensors) - 1
    columns = [
        permutations[index - 1] if index > 0 else np.arange(n_in),
        n_in + np.arange(n_vectors),
    ]
    if following:
        is_last = index + 2 == len(blocks)  # actions keep their order
        order = np.arange(blocks[index + 1].n_out) if is_last else permutations[index + 1]
        columns.append(n_in + n_vectors + order)
    taken = np.concatenate(columns)
    products: NDArray[np.float32] = (
        a.unit_rows[index][:, : len(taken)] @ b.unit_rows[index][:, taken].T
    )
    return products


def _inner_product(a: Parent, b: Parent, permutations: Permutations) -> float:
    permuted = permute_units(a.spec, b.weights, permutations)
    return sum(float(np.vdot(a.weights[name], permuted[name])) for name in a.spec.shapes)


def _assign(similarity: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the partner of each row under the assignment of largest total similarity."""
    columns: NDArray[np.intp] = linear_sum_assignment(similarity, maximize=True)[1]
    return columns
