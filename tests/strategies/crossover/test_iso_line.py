from __future__ import annotations

import numpy as np
import pytest

from populations.network import NetworkSpec
from strategies.crossover import IsoLineCrossover
from strategies.operator import Family
from strategies.testing import random_family

SPEC = NetworkSpec((3,), (6, 4), 2, norm="layer")


def test_without_noise_a_child_lies_on_the_line_through_its_parents() -> None:
    family, rng = random_family(SPEC, 2, 0), np.random.default_rng(0)
    shift = {name: family[1][name] - family[0][name] for name in SPEC.shapes}
    steps = []
    for _ in range(1000):
        child = IsoLineCrossover(iso_sigma=0, line_sigma=0.2).cross(family, rng)
        moved = {name: child[name] - family[0][name] for name in SPEC.shapes}
        steps.append(np.median(moved[SPEC.matrices[0]] / shift[SPEC.matrices[0]]))
        for name in SPEC.shapes:  # one step for all numbers
            np.testing.assert_allclose(moved[name], steps[-1] * shift[name], atol=1e-5)
    assert np.mean(steps) == pytest.approx(0, abs=0.03)  # 4.7 standard errors
    assert np.std(steps) == pytest.approx(0.2, abs=0.02)  # 4.5 standard errors


def test_noise_is_in_proportion_to_the_row_and_of_unit_size_for_a_normalization() -> None:
    spec = NetworkSpec((300,), (40,), 3, norm="layer")
    shapes = spec.shapes
    scales = np.array([0.01, 10.0] * 20, np.float32)
    parent = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    signs = np.where(np.random.default_rng(1).random((40, 300)) < 0.5, 1, -1)
    parent["network.0.weight"] = (signs * scales[:, None]).astype(np.float32)  # RMS is the scale
    family = Family([parent, parent], spec, ["a", "b"], [0.0, 0.0])
    children = [
        IsoLineCrossover(iso_sigma=0.1).cross(family, np.random.default_rng(seed))
        for seed in range(200)
    ]

    def deviations(name: str) -> np.ndarray:
        return np.std([child[name] - parent[name] for child in children], axis=0)

    rows = np.sqrt(np.square(deviations("network.0.weight")).mean(axis=1))
    np.testing.assert_allclose(rows, 0.1 * scales, rtol=0.02)
    np.testing.assert_allclose(deviations("network.0.bias"), 0.1 * scales, rtol=0.25)
    for name in ("network.1.weight", "network.1.bias"):
        np.testing.assert_allclose(deviations(name), 0.1, rtol=0.25)
    output = 0.1 / np.sqrt(40)  # rows of zeros
    assert deviations("network.3.weight").mean() == pytest.approx(output, rel=0.05)
    np.testing.assert_allclose(deviations("network.3.bias"), output, rtol=0.25)


def test_noise_is_normal_and_independent() -> None:
    spec = NetworkSpec((100,), (), 100)
    ones = {name: np.ones(shape, np.float32) for name, shape in spec.shapes.items()}
    family = Family([ones, ones], spec, ["a", "b"], [0.0, 0.0])
    child = IsoLineCrossover(iso_sigma=0.5).cross(family, np.random.default_rng(0))
    z = (child["network.0.weight"] - 1).ravel() / 0.5
    for bound, p in ((1, 0.6827), (2, 0.9545)):
        assert (np.abs(z) < bound).mean() == pytest.approx(p, abs=4.5 * np.sqrt(p * (1 - p) / 1e4))
    assert np.corrcoef(z[:-1], z[1:])[0, 1] == pytest.approx(0, abs=0.045)


def test_no_steps_at_all_copy_the_first_parent() -> None:
    family = random_family(SPEC, 2, 0)
    child = IsoLineCrossover(0, 0).cross(family, np.random.default_rng(0))
    assert all(np.array_equal(child[name], family[0][name]) for name in SPEC.shapes)


@pytest.mark.parametrize("name", ["iso_sigma", "line_sigma"])
def test_a_negative_deviation_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number of at least 0, not -1"):
        IsoLineCrossover(**{name: -1})
