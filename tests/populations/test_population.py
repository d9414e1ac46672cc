"""Ranking and pooling of fitness records, computed by hand or with NumPy."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from populations.genome import Genome, Lineage
from populations.network import NetworkSpec
from populations.plans import FineTune
from populations.population import Member, Population, Record

SPEC = NetworkSpec((1,), (), 2)
FINETUNE = FineTune("teachers", 1, 1e-3, 1.0, 0.0, (1.0,))


def member(number: int, *returns: float, generation: int = 0, index: int | None = None) -> Member:
    """Return a member whose genome differs from those of other numbers."""
    weights = {
        "network.0.weight": np.array([[1], [0]], np.float32),
        "network.0.bias": np.array([number, 0], np.float32),
    }
    lineage = Lineage("child", generation, number if index is None else index)
    return Member(Genome.from_weights(SPEC, weights, lineage), FINETUNE, Record.of(returns))


RETURNS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9)


@given(RETURNS, RETURNS)
def test_pooling_gives_the_mean_and_standard_error_of_all_episodes(
    first: list[float], second: list[float]
) -> None:
    pooled = member(0, *first).pooled_with(second)
    values = np.array(first + second)
    assert pooled.record.episodes == len(values)
    assert (pooled.record.low, pooled.record.high) == (values.min(), values.max())
    assert pooled.fitness == pytest.approx(values.mean(), abs=1e-6)
    spread = np.sqrt(((values - values.mean()) ** 2).sum() / (len(values) - 1))
    assert pooled.record.sem == pytest.approx(spread / np.sqrt(len(values)), abs=1e-6)


def test_pooling_weighs_episodes_not_generations() -> None:
    assert member(0, 10.0, 10.0, 10.0).pooled_with([50.0]).fitness == 20.0


def test_pooling_returns_a_new_member() -> None:
    before = member(0, 1.0)
    after = before.pooled_with([3.0])
    assert (before.fitness, before.record.episodes) == (1.0, 1)
    assert (after.fitness, after.record.episodes) == (2.0, 2)
    assert after.genome is before.genome
    assert after.finetune is before.finetune


def test_a_single_episode_has_no_standard_error() -> None:
    assert member(0, 5.0).record.sem == 0.0


def test_members_are_ranked_by_fitness_then_record_then_age() -> None:
    ranked = [
        member(0, 9.0),
        member(1, 5.0, 5.0, 5.0, generation=7),  # tested longer than the next ones
        member(2, 6.0, 4.0, generation=1, index=0),
        member(3, 4.0, 6.0, generation=1, index=1),
        member(4, 5.0, 5.0, generation=2, index=0),
        member(5, -1.0, generation=0),
    ]
    for order in itertools.permutations(ranked):
        assert list(Population(order)) == ranked


@given(st.lists(RETURNS, max_size=8), st.integers(0, 10))
def test_the_fittest_survive(records: list[list[float]], size: int) -> None:
    members = [member(i, *returns) for i, returns in enumerate(records)]
    population = Population(members, size)
    fitness = sorted((m.fitness for m in members), reverse=True)
    assert [m.fitness for m in population] == fitness[:size]
    assert len(population) == min(size, len(members))
    assert population.top(3) == list(population)[:3]
    assert len(Population(members)) == len(members)


def test_of_equal_genomes_the_longer_record_is_kept() -> None:
    short, long = member(0, 100.0), member(0, 1.0, 2.0)
    for order in ([short, long], [long, short]):
        assert list(Population(order)) == [long]
    first, second = member(0, 3.0), member(0, 4.0)
    assert list(Population([first, second])) == [first]


def test_members_are_found_by_genome_id() -> None:
    kept, dropped = member(0, 2.0), member(1, 1.0)
    population = Population([dropped, kept], size=1)
    assert kept.genome.id in population
    assert dropped.genome.id not in population
    assert population[kept.genome.id] is kept
    with pytest.raises(KeyError):
        population[dropped.genome.id]


def test_an_empty_population_has_nobody() -> None:
    assert len(Population([])) == 0
    assert Population([]).top(3) == []
