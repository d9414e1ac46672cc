"""Alignment: hidden units of one parent put into the order of another.

A hidden layer computes the same function in any order of its units, so permuting them changes no
Q-value. Parents that were initialized independently have unrelated orders, and mixing them position
by position mixes noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from populations.network import NetworkSpec, Weights
from populations.plans import Align
from strategies.errors import AlignmentError
from strategies.parents import Parent
from strategies.permutation import Permutations, permute_layer, permute_units

IMPROVEMENT = 1e-6  # relative gain that coordinate descent needs to go on


def match_weights(a: Parent, b: Parent) -> Permutations:
    """Find the order of ``b``'s units in which its weights resemble those of ``a`` most.

    Maximizes the inner product of all tensors of ``a`` and the permuted ``b``, biases and
    normalizations included, by coordinate descent: layer by layer, first to last, the best order of
    one layer given the others is a linear assignment, until no layer gains. The descent is run from
    ``b``'s own order and from the order that matches incoming weights alone, first layer to last;
    the better end is kept, the former on a tie. The second start recovers permuted copies exactly.

    Source: Ainsworth et al. 2022, "Git Re-Basin", arXiv:2209.04836, algorithm 1; there the layers
    are visited in random order, from one start.

    Args:
        a: Stays as it is.
        b: Whose units are to be reordered; of the same architecture.

    Returns:
        Permutations for :meth:`Parent.reordered` of ``b``.
    """
    spec = a.spec
    own = [np.arange(layer.n_units) for layer in spec.units]
    starts = (own, _match_incoming(spec, a.weights, b.weights))
    descents = [_descend(spec, a.weights, b.weights, start) for start in starts]
    (own_gain, own_end), (other_gain, other_end) = descents
    return other_end if other_gain > own_gain + IMPROVEMENT * abs(own_gain) else own_end


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
    first, *others = parents or [None]
    if first is None or mode == "none" or not first.spec.units:
        return tuple(parents)
    return (first, *(_aligned(first, other, mode) for other in others))


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


def _descend(
    spec: NetworkSpec, a: Weights, b: Weights, start: Permutations
) -> tuple[float, Permutations]:
    """Return the inner product with ``a`` at the end of coordinate descent, and the orders."""
    permutations = list(start)
    current = permute_units(spec, b, permutations)
    gained = True
    while gained:
        gained = False
        for index, layer in enumerate(spec.units):
            products = _inner_products(a, current, (*layer.incoming, *layer.outgoing))
            before = float(np.trace(products))
            better = _assign(products)
            after = float(products[np.arange(layer.n_units), better].sum())
            if after > before + IMPROVEMENT * float(np.abs(products.diagonal()).sum()):
                permute_layer(current, layer, better)
                permutations[index] = permutations[index][better]
                gained = True
    return sum(float(np.vdot(a[name], current[name])) for name in spec.shapes), permutations


def _match_incoming(spec: NetworkSpec, a: Weights, b: Weights) -> Permutations:
    """Match each layer by what its units read, given the order of the layer before."""
    current = dict(b)
    permutations = []
    for layer in spec.units:
        permutation = _assign(_inner_products(a, current, layer.incoming))
        permute_layer(current, layer, permutation)
        permutations.append(permutation)
    return permutations


def _inner_products(
    a: Weights, b: Weights, tensors: Iterable[tuple[str, int]]
) -> NDArray[np.float32]:
    """Return the inner product of each unit of ``a`` with each of ``b``, ``(n_units, n_units)``."""
    pairs = [(_by_unit(a[name], axis), _by_unit(b[name], axis)) for name, axis in tensors]
    rows_of_a = np.concatenate([pair[0] for pair in pairs], axis=1)
    rows_of_b = np.concatenate([pair[1] for pair in pairs], axis=1)
    products: NDArray[np.float32] = rows_of_a @ rows_of_b.T
    return products


def _by_unit(tensor: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return a view of shape ``(units, numbers per unit)``."""
    if tensor.ndim == 1:
        return tensor[:, None]
    return tensor if axis == 0 else tensor.T


def _assign(similarity: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the partner of each row under the assignment of largest total similarity."""
    columns: NDArray[np.intp] = linear_sum_assignment(similarity, maximize=True)[1]
    return columns
