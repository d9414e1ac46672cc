from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from populations.network import NetworkSpec, Weights
from strategies.crossover import LayerCrossover
from strategies.crossover.layer import Mode
from strategies.operator import Family
from strategies.testing import check_crossover_operator

MakeFamily = Callable[..., Family]
DEEP = NetworkSpec((3,), (6, 4), 2, norm="layer", dropout_slots=True)
LINEAR = NetworkSpec((3,), (), 2)
A, B = 1, 2  # the numbers in the constant parents


def owner(child: Weights, tensors: tuple[str, ...]) -> int:
    """Return the one parent, A or B, that all these tensors come from."""
    values = {float(value) for name in tensors for value in child[name].ravel()}
    assert len(values) == 1
    return int(values.pop())


def test_a_linear_and_its_norm_stay_together_and_a_child_is_never_a_copy(
    constant_family: MakeFamily,
) -> None:
    family, rng = constant_family(DEEP), np.random.default_rng(0)
    masks = Counter(
        tuple(owner(child, block.tensors) for block in DEEP.blocks)
        for child in (LayerCrossover().cross(family, rng) for _ in range(4000))
    )
    # Of 8 even masks AAA and BBB change one of three layers: 1/8 + 1/8 * 1/3 for each of the rest.
    assert len(masks) == 6
    for count in masks.values():
        assert abs(count / 4000 - 1 / 6) <= 4.5 * np.sqrt(1 / 6 * 5 / 6 / 4000)


@pytest.mark.parametrize(("share", "minority"), [(1.0, B), (0.0, A)])
def test_an_extreme_share_exchanges_one_layer(
    constant_family: MakeFamily, share: float, minority: int
) -> None:
    family, rng = constant_family(DEEP), np.random.default_rng(0)
    for _ in range(20):
        child = LayerCrossover(share=share).cross(family, rng)
        assert [owner(child, block.tensors) for block in DEEP.blocks].count(minority) == 1


def test_alternate_begins_with_the_first_parent(constant_family: MakeFamily) -> None:
    child = LayerCrossover(mode="alternate").cross(constant_family(DEEP), np.random.default_rng(0))
    assert [owner(child, block.tensors) for block in DEEP.blocks] == [A, B, A]


@pytest.mark.parametrize("hidden", [(6,), (6, 4), (5, 4, 3, 2)])
def test_cut_gives_the_first_layers_to_the_first_parent_at_every_inner_place_as_often(
    constant_family: MakeFamily, hidden: tuple[int, ...]
) -> None:
    spec = NetworkSpec((3,), hidden, 2, norm="layer")
    family, rng = constant_family(spec), np.random.default_rng(0)
    cuts: Counter[int] = Counter()
    for _ in range(1000):
        child = LayerCrossover(mode="cut", share=0.9).cross(family, rng)
        owners = [owner(child, block.tensors) for block in spec.blocks]
        assert owners == sorted(owners)
        cuts[owners.count(A)] += 1
    assert sorted(cuts) == list(range(1, len(hidden) + 1))
    for count in cuts.values():
        p = 1 / len(hidden)
        assert abs(count / 1000 - p) <= 4.5 * np.sqrt(p * (1 - p) / 1000)


@pytest.mark.parametrize("mode", ["random", "cut"])
def test_the_only_layer_comes_from_either_parent(constant_family: MakeFamily, mode: Mode) -> None:
    family, rng = constant_family(LINEAR), np.random.default_rng(0)
    children = [LayerCrossover(mode).cross(family, rng) for _ in range(1000)]
    firsts = [owner(child, tuple(LINEAR.shapes)) == A for child in children]
    assert np.mean(firsts) == pytest.approx(0.5, abs=0.07)  # 4.4 standard errors


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode must be 'random', 'alternate' or 'cut', not 'even'"):
        LayerCrossover(mode="even")  # type: ignore[arg-type]  # the mistake under test


def test_cut_keeps_the_contract() -> None:
    check_crossover_operator(LayerCrossover(mode="cut"))
