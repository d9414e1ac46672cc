"""Both operators keep their contracts, and do what their docstrings say."""

import numpy as np
import pytest
from cultivar_busier import BusierCrossover, SignFlipMutation

from populations.network import NetworkSpec
from strategies.families import family_of
from strategies.mutation import Newborn
from strategies.parents import Parent
from strategies.testing import check_crossover_operator, check_mutation

SPEC = NetworkSpec((1,), (2,), 1)


def parent(name: str, first: float, second: float) -> Parent:
    """Return a network of two units with these incoming weights, on the states 0, 1 and 2."""
    weights = {
        "network.0.weight": np.array([[first], [second]], np.float32),
        "network.0.bias": np.zeros(2, np.float32),
        "network.2.weight": np.array([[first, second]], np.float32),
        "network.2.bias": np.array([first], np.float32),
    }
    return Parent(name, SPEC, weights, np.array([[0], [1], [2]], np.float32))


@pytest.mark.parametrize("sharpness", [0, 1, 2.5, 300])
def test_the_crossover_keeps_the_contract(sharpness):
    """The suite that comes with cultivar has no objection."""
    check_crossover_operator(BusierCrossover(sharpness))


@pytest.mark.parametrize("share", [0, 0.01, 1])
def test_the_mutation_keeps_the_contract(share):
    """The suite that comes with cultivar has no objection."""
    check_mutation(SignFlipMutation(share))


@pytest.mark.parametrize("seed", range(5))
def test_a_dead_unit_never_replaces_a_living_one(seed):
    """An incoming weight below 0 makes a unit dead on states that are not."""
    operator = BusierCrossover()
    family = family_of(operator, [parent("a", 3, -1), parent("b", -2, 5)], [1.0, 0.0])
    child = operator.cross(family, np.random.default_rng(seed))
    assert child["network.0.weight"].tolist() == [[3], [5]]
    assert child["network.2.weight"].tolist() == [[3, 5]]
    assert child["network.2.bias"].tolist() == [3]


def test_the_busier_parent_gives_a_unit_as_often_as_the_formula_says():
    """Activations of three times the deviation: 3^2 / (3^2 + 1^2) = 0.9."""
    operator = BusierCrossover(sharpness=2)
    family = family_of(operator, [parent("a", 3, 1), parent("b", 1, 3)], [1.0, 0.0])
    rng = np.random.default_rng(0)
    children = [operator.cross(family, rng)["network.0.weight"][:, 0] for _ in range(2000)]
    # Five standard errors of a share of 0.9 are 0.034.
    assert np.mean(np.array(children) == 3, axis=0) == pytest.approx([0.9, 0.9], abs=0.034)


@pytest.mark.parametrize("sharpness", [-1, float("nan"), "2"])
def test_a_sharpness_that_makes_no_sense_is_refused(sharpness):
    """The message names the argument."""
    with pytest.raises(ValueError, match="sharpness"):
        BusierCrossover(sharpness)


def test_all_signs_flip_or_none():
    """With a share of 1 the mutant is the negative, with 0 the child itself."""
    child = Newborn(parent("a", 3, -1).weights, SPEC)
    for share, factor in ((1, -1), (0, 1)):
        mutant = SignFlipMutation(share).mutate(child, np.random.default_rng(0))
        assert list(mutant) == list(child.weights)
        for name, tensor in mutant.items():
            assert tensor.dtype == np.float32
            assert np.array_equal(tensor, factor * child.weights[name])
