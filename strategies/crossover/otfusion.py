"""Fusion of two parents, also of different widths, by optimal transport between their units."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.checks import limits
from strategies.operator import CrossoverOperator, Family
from strategies.registry import crossovers

Matrix = NDArray[np.float64]

TIE_BREAK = 1e-3  # weight of what units read, beside how they respond
COPIES = 4  # an assignment is quicker than a linear program up to so many copies of a unit


@crossovers.register
class OTFusionCrossover(CrossoverOperator):
    """Transport the units of the second parent onto those of the first, then average.

    Hidden layer ``l`` of B has ``m`` units of mass ``1 / m``, that of A ``n`` units of mass
    ``1 / n``. ``T_l``, of shape ``(m, n)``, is the exact transport between them of least cost. The
    cost of a pair of units is the mean squared difference of their activations on the states; the
    squared difference of what they read (aligned incoming weights, bias, normalization) is added
    with a weight of 0.001, since all units that are dead on the states respond alike. Either
    distance is measured in units of its mean over all pairs. From the first layer to the last::

        B'  = B_l diag(1 / rows of T_{l-1}) T_{l-1}        its columns are units of A
        B'' = diag(1 / columns of T_l) T_l^T B'             its rows, too
        child = share * A + (1 - share) * B''

    Biases and LayerNorm tensors are transported like rows. Inputs and actions keep their order.
    The child has the widths of A; ``share`` is drawn evenly from ``[low, high]``.

    Source: Singh and Jaggi 2020, "Model Fusion via Optimal Transport", arXiv:1910.05653, algorithm
    1 with activation-based alignment. For ``m = n`` it is the same. There the columns, too, are
    divided by the column sums of ``T``, which averages what several units of B contribute to the
    next layer; here the contributions are added up, which keeps the function of a B whose units are
    copies of A's. The factor between the two is ``m / n``.

    Args:
        low: Smallest share of the first parent, in ``[0, 1]``.
        high: Largest share of the first parent, in ``[0, 1]``; equal to ``low`` for a fixed one.

    Raises:
        ValueError: A share is outside ``[0, 1]``, or ``low`` is above ``high``.
    """

    name = "otfusion"
    n_parents = 2
    needs = ("activations",)
    same_widths = False

    def __init__(self, low: float = 0.1, high: float = 0.9) -> None:
        self.low, self.high = limits(low, high, 0.0, 1.0)

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        """Return one child; see :class:`CrossoverOperator`."""
        share = rng.uniform(self.low, self.high)
        child = {}
        layers = zip(parents.spec.blocks, _transported(parents), strict=True)
        for block, (ours, theirs) in layers:
            merged = (share * ours + (1 - share) * theirs).astype(np.float32)
            child[block.weight] = merged[:, : block.n_in].copy()
            for column, name in enumerate(block.tensors[1:], block.n_in):
                child[name] = merged[:, column].copy()
        return child


def transport_plan(cost: Matrix) -> Matrix:
    """Return the transport of least cost between units of equal mass.

    The masses are multiples of one over the least common multiple of both numbers of units, and so
    is what an optimal plan moves. It is an assignment between copies of the units where few are
    needed, above all for equal widths; otherwise a linear program.

    Args:
        cost: Of each pair, ``(m, n)``.

    Returns:
        What is moved, ``(m, n)``, with rows of sum ``1 / m`` and columns of sum ``1 / n``.
    """
    m, n = cost.shape
    pieces = math.lcm(m, n)
    per_row, per_column = pieces // m, pieces // n
    if pieces <= COPIES * max(m, n):
        moved = _assigned(cost, per_row, per_column)
    else:
        moved = _programmed(cost, per_row, per_column)
    return moved / pieces


def _transported(parents: Family) -> Iterator[tuple[Matrix, Matrix]]:
    """Yield the rows of each layer, of both parents, all between units of the first one."""
    ours_by_layer, theirs_by_layer = map(_rows, parents.specs, parents)
    from_inputs: Matrix = np.eye(parents.spec.n_inputs)
    for index, (ours, theirs) in enumerate(zip(ours_by_layer, theirs_by_layer, strict=True)):
        n_in = len(from_inputs)
        theirs = np.concatenate([theirs[:, :n_in] @ from_inputs, theirs[:, n_in:]], axis=1)
        if index < len(parents.spec.hidden):
            first, second = (activations[index].T for activations in parents.activations)
            cost = _relative_distances(second, first)
            cost += TIE_BREAK * _relative_distances(theirs, ours)
            plan = transport_plan(cost)
            theirs = (plan / plan.sum(axis=0)).T @ theirs
            from_inputs = plan / plan.sum(axis=1, keepdims=True)
        yield ours, theirs


def _rows(spec: NetworkSpec, weights: Weights) -> list[Matrix]:
    """Return everything that belongs to a unit or action in a row, layer by layer.

    A row holds the weights, the bias and the normalization, ``(n_out, numbers per unit)``.
    """
    return [
        np.concatenate(
            [weights[block.weight], *(weights[name][:, None] for name in block.tensors[1:])],
            axis=1,
            dtype=np.float64,
        )
        for block in spec.blocks
    ]


def _relative_distances(a: NDArray[np.floating], b: NDArray[np.floating]) -> Matrix:
    """Return the squared distances of rows, ``(rows of a, rows of b)``, with a mean of 1."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    sizes = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b)
    distances: Matrix = np.maximum(sizes - 2 * (a @ b.T), 0)
    return distances / (float(distances.mean()) or 1.0)


def _assigned(cost: Matrix, per_row: int, per_column: int) -> Matrix:
    """Return how many pieces go where, by assigning pieces of rows to pieces of columns."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and few operators need it

    copies = np.repeat(np.repeat(cost, per_row, axis=0), per_column, axis=1)
    rows, columns = linear_sum_assignment(copies)
    moved = np.zeros(cost.shape)
    np.add.at(moved, (rows // per_row, columns // per_column), 1)
    return moved


def _programmed(cost: Matrix, per_row: int, per_column: int) -> Matrix:
    """Return how many pieces go where, by linear programming."""
    from scipy import sparse  # slow to import, and few operators need it
    from scipy.optimize import linprog

    m, n = cost.shape
    sums = sparse.vstack(
        [
            sparse.kron(sparse.eye_array(m), np.ones((1, n))),
            sparse.kron(np.ones((1, m)), sparse.eye_array(n)),
        ]
    )
    totals = np.concatenate([np.full(m, per_row), np.full(n, per_column)])
    # The simplex method ends in a vertex, and vertices of this problem are whole numbers.
    found = linprog(  # type: ignore[call-overload]  # the stubs know no sparse matrices
        cost.ravel(), A_eq=sums.tocsr(), b_eq=totals, method="highs-ds"
    )
    moved: Matrix = np.rint(found.x).reshape(m, n)
    return moved
