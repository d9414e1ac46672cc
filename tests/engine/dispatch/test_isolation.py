"""The search for the one plan to blame: what it costs, and that nobody else suffers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dispatch.executor import Batch
from engine.dispatch.isolation import after_failure, after_loss, after_silence, after_success
from engine.dispatch.speculation import Flight


@dataclass(frozen=True)
class Piece:
    """A plan that needs one genome of its own."""

    index: int
    phase: str = "pieces"

    @property
    def needs(self) -> tuple[str, ...]:
        return (f"genome {self.index}",)

    def abandoned(self, status: str, reason: str, attempts: int) -> tuple[int, str, int]:
        return self.index, status, attempts


Decide = Callable[[Batch, int], tuple[list[Batch], list]]


def failing(batch: Batch, tries: int) -> tuple[list[Batch], list]:
    return after_failure(batch, "it failed", tries)


def silent(batch: Batch, tries: int) -> tuple[list[Batch], list]:
    return after_silence(batch, "it never answered", tries)


def losing(batch: Batch, tries: int) -> tuple[list[Batch], list]:
    return after_loss(batch, "it was lost", tries)


def batch_of(n_plans: int) -> Batch:
    plans = [Piece(index) for index in range(n_plans)]
    return Batch.of(plans, {name: None for plan in plans for name in plan.needs})


def carry_out(
    n_plans: int, poison: Collection[int], mishaps: Collection[int], decide: Decide, tries: int
) -> tuple[dict[int, str], int]:
    """Dispatch a batch and what follows from it.

    Args:
        n_plans: Size of the batch.
        poison: Plans that ruin each batch which they are in.
        mishaps: Dispatches that come to nothing though no plan is to blame, counted from 0.
        decide: What follows from a batch that came to nothing.
        tries: How often a plan to blame is tried.

    Returns:
        The status of each plan, and the number of dispatches.
    """
    queue, n_dispatches, found = deque([batch_of(n_plans)]), 0, []
    while queue:
        batch = queue.popleft()
        assert sorted(batch.genomes) == sorted(name for plan in batch.plans for name in plan.needs)
        indices = {plan.index for plan in batch.plans}
        if indices & set(poison) or n_dispatches in mishaps:
            again, results = decide(batch, tries)
            found += [(index, status) for index, status, _ in results]
        else:
            again = after_success(batch)
            found += [(index, "ok") for index in indices]
        queue.extendleft(reversed(again))
        n_dispatches += 1
    assert sorted(index for index, _ in found) == list(range(n_plans))  # one result for each
    return dict(found), n_dispatches


@pytest.mark.parametrize("n_plans", range(2, 65))
def test_one_bad_plan_costs_few_dispatches_wherever_it_is(n_plans) -> None:
    bound = math.ceil(math.log2(n_plans)) + 2
    for bad in range(n_plans):
        statuses, n_dispatches = carry_out(n_plans, {bad}, (), failing, 2)
        assert statuses.pop(bad) == "failed"
        assert set(statuses.values()) == {"ok"}
        assert n_dispatches - 1 <= bound


def test_in_a_batch_of_eight_it_costs_five_at_most() -> None:
    extra = [carry_out(8, {bad}, (), failing, 2)[1] - 1 for bad in range(8)]
    # Three probes, the second try, and what was parked meanwhile; where the last probe is not to
    # blame, the one plan left is. Where no probe fails, nothing was parked.
    assert extra == [5, 5, 5, 5, 5, 5, 5, 4]


@given(
    st.integers(1, 64).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=6))
    ),
    st.integers(1, 3),
)
def test_each_bad_plan_fails_and_no_other(batch, attempts) -> None:
    n_plans, poison = batch
    statuses, n_dispatches = carry_out(n_plans, poison, (), failing, attempts)
    assert {index for index, status in statuses.items() if status == "failed"} == poison
    bound = math.ceil(math.log2(n_plans)) + max(attempts, 2)
    assert n_dispatches - 1 <= len(poison) * bound


@given(
    st.integers(1, 64).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=3))
    ),
    st.integers(0, 12),
)
def test_a_mishap_on_the_way_does_no_harm(batch, mishap) -> None:
    n_plans, poison = batch
    statuses, _ = carry_out(n_plans, poison, {mishap}, failing, 2)
    assert {index for index, status in statuses.items() if status == "failed"} == poison


@given(st.integers(1, 64), st.sets(st.integers(0, 30)), st.sampled_from([failing, silent, losing]))
def test_whatever_happens_each_plan_gets_one_result(n_plans, mishaps, decide) -> None:
    carry_out(n_plans, (), mishaps, decide, 2)


def test_a_batch_too_large_for_its_time_limit_is_carried_out_in_parts() -> None:
    statuses, n_dispatches = {}, 0
    queue = deque([batch_of(64)])
    while queue:
        batch = queue.popleft()
        n_dispatches += 1
        if len(batch.plans) > 1:  # any two of them take too long
            again, results = failing(batch, 2)
            assert results == []
        else:
            again = after_success(batch)
            statuses[batch.plans[0].index] = "ok"
        queue.extendleft(reversed(again))
    assert sorted(statuses) == list(range(64))
    assert n_dispatches < 64 * 4


@pytest.mark.parametrize("bad", range(8))
def test_a_batch_that_never_answers_is_searched_and_a_plan_alone_is_lost_in_the_end(bad) -> None:
    statuses, n_dispatches = carry_out(8, {bad}, (), silent, 2)
    assert statuses.pop(bad) == "lost"
    assert set(statuses.values()) == {"ok"}
    assert n_dispatches - 1 <= math.log2(8) + 3  # the last one left is not taken for lost before


def test_a_lost_machine_is_never_the_fault_of_its_batch() -> None:
    batch = batch_of(2)
    for n_losses in range(1, 5):
        (batch,), results = after_loss(batch, "gone", 5)
        assert (len(batch.plans), batch.losses, batch.attempts) == (2, n_losses, 0)
        assert results == []
    again, results = after_loss(batch, "gone", 5)
    assert again == []
    assert results == [(0, "lost", 5), (1, "lost", 5)]


def test_a_probe_whose_machine_is_lost_holds_the_others_until_it_has_an_outcome() -> None:
    (probe,), _ = failing(batch_of(8), 2)
    (again,), _ = after_loss(probe, "gone", 2)
    assert [plan.index for plan in again.plans] == [0, 1, 2, 3]
    (held,), results = after_loss(again, "gone", 2)
    assert [index for index, _, _ in results] == [0, 1, 2, 3]
    assert [plan.index for plan in held.plans] == [4, 5, 6, 7]


def test_a_second_copy_counts_as_an_attempt_even_if_all_fail() -> None:
    flight: Flight = Flight(3)
    flight.add("first", batch_of(1))
    flight.add_copy("second", "first", None)
    flight.failed("first")
    _, (result,) = after_loss(flight.batch("second"), "gone", 1)
    assert result == (0, "lost", 2)
