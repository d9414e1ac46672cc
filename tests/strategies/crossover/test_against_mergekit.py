"""The operators with a common ancestor against mergekit, a second implementation.

Skipped where mergekit is not installed; it is not among the development tools, because it brings
and pins packages for language models. ``make references`` installs it without those.

mergekit is given float64, so that what differs is our rounding to float32. Where we differ on
purpose, the case is arranged so that both agree: see each test.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.crossover import (
    DareCrossover,
    ModelStockCrossover,
    TaskArithmeticCrossover,
    TiesCrossover,
)
from strategies.families import family_of
from strategies.flat import unflatten
from strategies.operator import CrossoverOperator
from strategies.parents import Parent

SPEC = NetworkSpec((3,), (8, 4), 2, norm="layer")  # every tensor has an even number of entries
SEED = 11
TOLERANCE = 1e-7  # rounding to float32 is 6e-8

Merge = Callable[..., NDArray[np.float64]]


@pytest.fixture(scope="module")
def merge() -> Merge:
    """Return ``merge(method, ancestor, parents, parameters)`` for single tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what mergekit's imports say is not about this code
        api = pytest.importorskip("mergekit.merge_methods.api", exc_type=ImportError)
    import torch

    def merged(
        method: str,
        ancestor: NDArray[np.float32],
        parents: Sequence[NDArray[np.float32]],
        **parameters: Any,
    ) -> NDArray[np.float64]:
        tensors = [torch.tensor(values, dtype=torch.float64) for values in (ancestor, *parents)]
        result = api.merge_tensors(tensors, method, parameters=parameters, base_index=0)
        array: NDArray[np.float64] = result.numpy()
        return array

    return merged


def siblings(n_parents: int, in_common: float = 0.3) -> tuple[Weights, list[Weights]]:
    """Return an ancestor, and parents that have a part of their change in common."""
    rng = np.random.default_rng(5)

    def draw(size: float) -> Weights:
        return {n: size * rng.standard_normal(s, np.float32) for n, s in SPEC.shapes.items()}

    ancestor, shared = draw(1.0), draw(in_common)
    own = [draw(0.3) for _ in range(n_parents)]
    return ancestor, [{n: ancestor[n] + shared[n] + o[n] for n in SPEC.shapes} for o in own]


def cross(operator: CrossoverOperator, parents: Sequence[Weights], ancestor: Weights) -> Weights:
    known = [Parent(f"p{i}", SPEC, weights) for i, weights in enumerate(parents)]
    family = family_of(operator, known, [0.0] * len(known), ancestor)
    return operator.cross(family, np.random.default_rng(SEED))


@pytest.mark.parametrize("n_parents", [2, 3])
@pytest.mark.parametrize("scale", [0.4, 1.0, 1.3])
def test_task_arithmetic(merge: Merge, n_parents: int, scale: float) -> None:
    ancestor, parents = siblings(n_parents)
    child = cross(TaskArithmeticCrossover(scale, scale, n_parents=n_parents), parents, ancestor)
    for name in SPEC.shapes:
        tensors = [parent[name] for parent in parents]
        # Their default is the sum of the paper; its lambda is our scale by the number of parents.
        paper = merge(
            "task_arithmetic", ancestor[name], tensors, weight=1.0, **{"lambda": scale / n_parents}
        )
        mean = merge(
            "task_arithmetic",
            ancestor[name],
            tensors,
            weight=0.7,
            normalize=True,
            **{"lambda": scale},
        )
        np.testing.assert_allclose(child[name], paper, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(child[name], mean, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("n_parents", [2, 3])
@pytest.mark.parametrize("density", [0.5, 1.0])  # whole numbers of entries: they round down
@pytest.mark.parametrize("shares", ["equal", "random"])
def test_ties(merge: Merge, n_parents: int, density: float, shares: Any) -> None:
    ancestor, parents = siblings(n_parents)
    child = cross(TiesCrossover(density, 0.9, 0.9, shares, n_parents), parents, ancestor)
    rng = np.random.default_rng(SEED)
    rng.uniform()  # the scale is drawn first
    weights = rng.dirichlet(np.ones(n_parents)) if shares == "random" else np.ones(n_parents)
    for name in SPEC.shapes:
        expected = merge(
            "ties",
            ancestor[name],
            [parent[name] for parent in parents],
            weight=weights.tolist(),
            density=density,
            normalize=True,
            **{"lambda": 0.9},
        )
        np.testing.assert_allclose(child[name], expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(("method", "elect"), [("dare_linear", False), ("dare_ties", True)])
@pytest.mark.parametrize("n_parents", [2, 3])
def test_dare(
    merge: Merge, monkeypatch: pytest.MonkeyPatch, method: str, elect: bool, n_parents: int
) -> None:
    """Compare with the same entries dropped.

    Their rescaling keeps the sum of magnitudes and is off here; the factor of the paper is in their
    lambda, which comes after the merge and changes no sign.
    """
    import torch

    ancestor, parents = siblings(n_parents)
    child = cross(DareCrossover(0.3, elect, 0.8, 0.8, n_parents=n_parents), parents, ancestor)
    rng = np.random.default_rng(SEED)
    rng.uniform()  # the scale is drawn first
    kept = [unflatten(SPEC, row < 0.7) for row in rng.random((n_parents, SPEC.n_parameters))]
    masks = iter([mask[name] for name in SPEC.shapes for mask in kept])
    monkeypatch.setattr(torch, "bernoulli", lambda density: torch.from_numpy(next(masks)))
    for name in SPEC.shapes:
        expected = merge(
            method,
            ancestor[name],
            [parent[name] for parent in parents],
            weight=1.0,
            density=0.7,
            normalize=True,
            rescale=False,
            **{"lambda": 0.8 / 0.7},
        )
        np.testing.assert_allclose(child[name], expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("n_parents", [2, 3])
def test_model_stock(merge: Merge, n_parents: int) -> None:
    """Compare layers as one vector, of parents that agree: theirs go by tensor, unclipped."""
    ancestor, parents = siblings(n_parents, in_common=0.6)
    child = cross(ModelStockCrossover(n_parents), parents, ancestor)

    def joined(weights: Weights, names: Sequence[str]) -> NDArray[np.float32]:
        return np.concatenate([weights[name].ravel() for name in names])

    for block in SPEC.blocks:
        own = [joined(parent, block.tensors) for parent in parents]
        expected = merge("model_stock", joined(ancestor, block.tensors), own)
        np.testing.assert_allclose(
            joined(child, block.tensors), expected, rtol=TOLERANCE, atol=TOLERANCE
        )
