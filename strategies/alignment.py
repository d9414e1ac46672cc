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

from populations.network import NetworkSpec, UnitLayer, Weights
from populations.plans import Align
from strategies.errors import AlignmentError
from strategies.forward import pre_activations

Permutations = list[NDArray[np.intp]]
"""One index array per hidden layer: unit ``i`` of the result is unit ``permutation[i]``."""

TIE_BREAK = 1e-3  # weight of the correlation before the ReLU
CONSTANT = 1e-5  # a unit whose standard deviation is below this share of its RMS is constant
IMPROVEMENT = 1e-6  # relative gain that coordinate descent needs to go on


def permute_units(
    spec: NetworkSpec, weights: Weights, permutations: Sequence[NDArray[np.intp]]
) -> dict[str, NDArray[np.float32]]:
    """Return the same function with its hidden units in another order.

    Rows of a layer's weight, its bias and its normalization move together with the columns of the
    next weight. Tensors without hidden units are passed on as they are, not copied.

    Args:
        spec: Architecture of the weights.
        weights: Float32 tensors by name.
        permutations: One per hidden layer; unit ``i`` of the result is unit ``permutation[i]``.

    Raises:
        AlignmentError: The number of permutations is not the number of hidden layers.
    """
    if len(permutations) != len(spec.units):
        raise AlignmentError(
            f"expected {len(spec.units)} permutations, one per hidden layer, "
            f"not {len(permutations)}"
        )
    permuted = dict(weights)
    for layer, permutation in zip(spec.units, permutations, strict=True):
        _permute_layer(permuted, layer, permutation)
    return {name: permuted[name] for name in spec.shapes}


def match_weights(spec: NetworkSpec, a: Weights, b: Weights) -> Permutations:
    """Find the order of ``b``'s units in which its weights resemble those of ``a`` most.

    Maximizes the inner product of all tensors of ``a`` and the permuted ``b``, biases and
    normalizations included, by coordinate descent: layer by layer, first to last, the best order of
    one layer given the others is a linear assignment, until no layer gains. The descent is run from
    ``b``'s own order and from the order that matches incoming weights alone, first layer to last;
    the better end is kept, the former on a tie. The second start recovers permuted copies exactly.

    Source: Ainsworth et al. 2022, "Git Re-Basin", arXiv:2209.04836, algorithm 1; there the layers
    are visited in random order, from one start.

    Args:
        spec: Architecture of both.
        a: Weights that stay as they are.
        b: Weights whose units are to be reordered.

    Returns:
        Permutations for :func:`permute_units` of ``b``.
    """
    own = [np.arange(layer.n_units) for layer in spec.units]
    descents = [_descend(spec, a, b, start) for start in (own, _match_incoming(spec, a, b))]
    (own_gain, own_end), (other_gain, other_end) = descents
    return other_end if other_gain > own_gain + IMPROVEMENT * abs(own_gain) else own_end


def match_activations(
    spec: NetworkSpec, a: Weights, b: Weights, states: NDArray[np.float32]
) -> Permutations:
    """Find the order of ``b``'s units in which they respond to ``states`` as those of ``a`` do.

    Maximizes, for each hidden layer by itself, the summed correlation of paired units behind the
    ReLU, because that is what the next layer reads. A unit that is constant there (a dead one) has
    correlation 0 with all others; such ties are broken by the correlation in front of the ReLU,
    added with a weight of 0.001.

    Source: Li et al. 2016, "Convergent Learning", arXiv:1511.07543, section 3.

    Args:
        spec: Architecture of both.
        a: Weights that stay as they are.
        b: Weights whose units are to be reordered.
        states: Flattened observations, shape ``(n_states, n_inputs)``; a few hundred do.

    Returns:
        Permutations for :func:`permute_units` of ``b``.
    """
    layers = zip(pre_activations(spec, a, states), pre_activations(spec, b, states), strict=True)
    return [_assign(_similarity(of_a, of_b)) for of_a, of_b in layers]


def align(
    spec: NetworkSpec,
    parents: Sequence[Weights],
    mode: Align,
    states: NDArray[np.float32] | None,
    same_basis: Sequence[bool],
) -> tuple[Weights, ...]:
    """Put the hidden units of all parents into the order of the first one.

    Args:
        spec: Architecture shared by all parents.
        parents: Weights, the first of which is returned as it is.
        mode: ``none``; ``weights`` or ``activations`` for all parents; or ``auto``: by activations
            for the parents whose basis is not that of the first one.
        states: What activations are compared on, shape ``(n_states, n_inputs)``; may be None where
            no activations are compared.
        same_basis: For each parent, the first one included, whether its units are in the order of
            the first one already (see ``Lineage.basis``).

    Returns:
        The parents; those that need no alignment are returned as they came.

    Raises:
        AlignmentError: ``same_basis`` has another length than ``parents``, states are needed and
            there are none, or the mode is not known.
    """
    if len(same_basis) != len(parents):
        raise AlignmentError(
            f"same_basis must hold one entry for each of the {len(parents)} parents, "
            f"not {len(same_basis)}"
        )
    if mode not in ("none", "weights", "activations", "auto"):
        raise AlignmentError(
            f"align must be 'none', 'weights', 'activations' or 'auto', not {mode!r}"
        )
    if mode == "none" or not spec.units:
        return tuple(parents)
    aligned = list(parents[:1])
    for parent, kin in zip(parents[1:], same_basis[1:], strict=True):
        if mode == "auto" and kin:
            aligned.append(parent)
            continue
        if mode == "weights":
            permutations = match_weights(spec, parents[0], parent)
        elif states is None or len(states) == 0:
            raise AlignmentError(f"align={mode!r} compares activations on states; there are none")
        else:
            permutations = match_activations(spec, parents[0], parent, states)
        aligned.append(permute_units(spec, parent, permutations))
    return tuple(aligned)


def _permute_layer(
    weights: dict[str, NDArray[np.float32]], layer: UnitLayer, permutation: NDArray[np.intp]
) -> None:
    """Replace, in the dictionary, the tensors that hold units of one layer."""
    for tensor, axis in (*layer.incoming, *layer.outgoing):
        weights[tensor] = weights[tensor].take(permutation, axis=axis)


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
                _permute_layer(current, layer, better)
                permutations[index] = permutations[index][better]
                gained = True
    return sum(float(np.vdot(a[name], current[name])) for name in spec.shapes), permutations


def _match_incoming(spec: NetworkSpec, a: Weights, b: Weights) -> Permutations:
    """Match each layer by what its units read, given the order of the layer before."""
    current = dict(b)
    permutations = []
    for layer in spec.units:
        permutation = _assign(_inner_products(a, current, layer.incoming))
        _permute_layer(current, layer, permutation)
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


def _similarity(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the similarity of each unit of ``a`` with each of ``b``, from what enters the ReLU."""
    behind = _standardized(np.maximum(a, 0)).T @ _standardized(np.maximum(b, 0))
    in_front = _standardized(a).T @ _standardized(b)
    similarity: NDArray[np.float32] = behind + np.float32(TIE_BREAK) * in_front
    return similarity


def _standardized(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return columns of mean 0 and norm 1; constant columns become 0."""
    centered: NDArray[np.float32] = values - values.mean(axis=0)
    norms = np.sqrt(np.einsum("ij,ij->j", centered, centered))
    sizes = np.sqrt(np.einsum("ij,ij->j", values, values))
    varies = norms > CONSTANT * sizes
    centered *= np.divide(1.0, norms, out=np.zeros_like(norms), where=varies)
    return centered


def _assign(similarity: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the partner of each row under the assignment of largest total similarity."""
    columns: NDArray[np.intp] = linear_sum_assignment(similarity, maximize=True)[1]
    return columns
