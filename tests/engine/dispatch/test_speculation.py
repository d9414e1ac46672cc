"""When a batch is late, where it is started once more, and which of two answers counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from engine.dispatch.executor import Batch
from engine.dispatch.speculation import MINIMUM_S, Flight

FACTOR = 3.0


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def batch_of(n_plans: int, phase: str = "children") -> Batch:
    return Batch(tuple(SimpleNamespace(needs=(), phase=phase) for _ in range(n_plans)), {})


def flight_with(clock: Clock, durations: Sequence[float], factor: float = FACTOR) -> Flight:
    """Return a flight in which batches of two plans have taken such times on node ``a``."""
    flight: Flight = Flight(factor, clock=clock)
    for number, seconds in enumerate(durations):
        flight.add(f"done {number}", batch_of(2))
        clock.now += seconds
        assert flight.answered(f"done {number}", "a") is None
    return flight


@pytest.mark.parametrize(
    ("durations", "n_plans", "limit"),
    [
        ([10, 20, 90], 2, 60),  # three times the median
        ([10, 20, 90], 1, 30),  # per plan
        ([10, 20, 90], 6, 180),
        ([0.1, 0.2, 0.3], 2, MINIMUM_S),
    ],
)
def test_a_batch_is_late_after_so_many_times_the_usual(clock, durations, n_plans, limit) -> None:
    flight = flight_with(clock, durations)
    flight.add("x", batch_of(n_plans))
    clock.now += limit
    assert flight.look_for_late() == 0
    assert flight.to_copy(9) is None
    clock.now += 1
    assert flight.look_for_late() == 1
    found = flight.to_copy(9)
    assert found is not None
    assert found[0] == "x"
    clock.now += 1
    assert flight.look_for_late() == 0  # it was told already


def test_switched_off_nothing_is_late(clock) -> None:
    flight = flight_with(clock, [1, 1, 1, 1], 0)
    flight.add("x", batch_of(2))
    clock.now += 1e6
    assert flight.look_for_late() == 0
    assert flight.to_copy(9) is None


@pytest.mark.parametrize("n_finished", [0, 1, 2])
@pytest.mark.parametrize(
    ("earlier", "limit"),
    [
        ({}, 700),  # when a worker would have ended itself
        ({"children": [10, 10, 10]}, 60),  # three times the usual, for two plans
        ({"elites": [15, 15, 15], "students": [1, 1, 1]}, 90),  # of the slowest other phase
    ],
)
def test_what_is_usual_before_enough_have_finished(clock, n_finished, earlier, limit) -> None:
    flight: Flight = Flight(FACTOR, earlier, 700, clock=clock)
    for number in range(n_finished):
        flight.add(number, batch_of(2))
        clock.now += 20
        flight.answered(number, "a")
    flight.add("x", batch_of(2))
    clock.now += limit
    assert flight.look_for_late() == 0
    clock.now += 1
    assert flight.look_for_late() == 1
    assert flight.to_copy(9)[0] == "x"


def test_earlier_flights_tell_nothing_once_enough_have_finished(clock) -> None:
    flight: Flight = Flight(FACTOR, {"children": [1] * 100, "elites": [1] * 100}, clock=clock)
    for number in range(3):
        flight.add(number, batch_of(1))
        clock.now += 20
        flight.answered(number, "a")
    assert flight.durations() == {"children": [20, 20, 20], "elites": [1] * 100}
    flight.add("child", batch_of(1))
    flight.add("elite", batch_of(1, "elites"))
    clock.now += 60
    assert flight.look_for_late() == 1
    assert flight.to_copy(9)[0] == "elite"


def test_a_copy_prefers_a_node_that_has_answered_since_and_has_no_other_copy(clock) -> None:
    flight = flight_with(clock, [20, 20, 20])
    flight.add("x", batch_of(2))
    flight.add("y", batch_of(2))
    clock.now += 100
    flight.look_for_late()
    assert flight.to_copy(9)[2] == "a"  # before they began, but no other node is known
    flight.add("b", batch_of(2))
    flight.answered("b", "b")
    clock.now += 1
    flight.add("c", batch_of(2))
    flight.answered("c", "c")

    original, _, node = flight.to_copy(9)
    assert (original, node) == ("x", "c")
    flight.add_copy("x again", original, node)
    original, _, node = flight.to_copy(9)
    assert (original, node) == ("y", "b")


def test_without_an_answer_in_this_flight_a_copy_goes_where_the_last_one_came_from(clock) -> None:
    answered = {"silent": 50.0, "other": 60.0}
    flight: Flight = Flight(FACTOR, {"children": [1, 1, 1]}, answered=answered, clock=clock)
    flight.add("x", batch_of(1))
    flight.add("y", batch_of(1))
    clock.now += 100
    assert flight.look_for_late() == 2
    for name in "xy":
        assert flight.to_copy(9)[::2] == (name, "other")
        flight.add_copy(f"{name} again", name, "other")
    flight.answered("x again", "other")
    assert answered == {"silent": 50.0, "other": 200.0}


@pytest.mark.parametrize("n_workers", [1, 2, 3, 4])
def test_there_are_no_more_copies_than_idle_slots_and_never_two_of_a_batch(
    clock, n_workers
) -> None:
    flight = flight_with(clock, [20, 20, 20])
    for name in "wxyz":
        flight.add(name, batch_of(2))
    clock.now += 1000
    assert flight.look_for_late() == 4
    flight.add("on time", batch_of(2))
    copied = []
    while found := flight.to_copy(n_workers):
        copied.append(found[0])
        flight.add_copy(f"{found[0]} again", found[0], None)
    assert copied == list("wxyz")[: n_workers - 1]

    clock.now += 1000  # the copies are late as well
    flight.look_for_late()
    again = []
    while found := flight.to_copy(99):
        again.append(found[0])
        flight.add_copy(f"{found[0]} again", found[0], None)
    assert again == [name for name in [*"wxyz", "on time"] if name not in copied]


def test_a_plan_that_ruined_a_worker_is_not_copied_and_one_whose_machine_was_lost_is(clock) -> None:
    flight = flight_with(clock, [20, 20, 20])
    flight.add("ruined a worker", replace(batch_of(1), attempts=1))
    flight.add("lost a machine", replace(batch_of(1), losses=1))
    clock.now += 1000
    assert flight.look_for_late() == 2
    assert flight.to_copy(9)[0] == "lost a machine"


@pytest.mark.parametrize("fast", ["x", "copy"])
def test_the_first_answer_counts_both_dispatches_and_ends_the_other(clock, fast) -> None:
    flight = flight_with(clock, [20, 20, 20])
    flight.add("x", batch_of(2))
    flight.add_copy("copy", "x", None)
    assert flight.batch(fast).failures == 1  # so the result is that of dispatch number two
    slow = ({"x", "copy"} - {fast}).pop()
    assert flight.answered(fast, "a") == slow
    assert slow not in flight
    assert len(flight) == 0


@pytest.mark.parametrize("bad", ["x", "copy"])
def test_while_its_twin_is_in_flight_a_failure_says_nothing(clock, bad) -> None:
    flight = flight_with(clock, [20, 20, 20])
    flight.add("x", batch_of(2))
    flight.add_copy("copy", "x", None)
    good = ({"x", "copy"} - {bad}).pop()
    assert not flight.failed(bad)
    assert flight.references() == [good]
    assert flight.batch(good).copies == 1
    assert flight.failed(good)
    assert len(flight) == 0


def test_late_ones_leave_the_window_but_not_without_end(clock) -> None:
    flight = flight_with(clock, [20, 20, 20])
    sent = 0
    for n_in_flight in (3, 5, 5):  # two workers, one batch that waits, and two late ones
        while flight.has_room(2):
            flight.add(sent, batch_of(2))
            sent += 1
        assert len(flight) == n_in_flight
        clock.now += 1000
        flight.look_for_late()
    # There is no room left though both workers may be idle, as on a silent node: so copies begin.
    for copied in (0, 1):
        assert flight.to_copy(2)[0] == copied
        flight.add_copy(f"{copied} again", copied, None)
    assert flight.to_copy(2) is None
    for number in range(3):
        flight.answered(number, "a")
    assert len(flight) == 2


def test_what_was_dispatched_too_long_ago_is_overdue(clock) -> None:
    flight: Flight = Flight(0, clock=clock)
    flight.add("x", batch_of(1))
    assert flight.overdue(10, 2) == []
    clock.now += 5
    flight.add("y", batch_of(1))
    assert flight.overdue(10, 2) == []
    clock.now += 6
    assert flight.overdue(10, 2) == ["x"]
    clock.now += 5
    assert flight.overdue(10, 2) == ["x", "y"]


def test_what_waits_for_others_is_not_overdue_though_workers_leave(clock) -> None:
    flight: Flight = Flight(0, clock=clock)
    for name in "abcde":
        flight.add(name, batch_of(1))
    for name in "abcd":  # dispatched while there were more workers than the one that is left
        assert flight.overdue(10, 1) == []
        clock.now += 9
        assert flight.overdue(10, 1) == []
        flight.answered(name, "a")
    assert flight.overdue(10, 1) == []  # in flight for 36 s, but it was its turn only now
    clock.now += 11
    assert flight.overdue(10, 1) == ["e"]


def test_the_time_of_what_has_not_begun_counts_from_now_on(clock) -> None:
    flight: Flight = Flight(0, clock=clock)
    flight.add("x", batch_of(1))
    assert flight.overdue(10, 1) == []
    clock.now += 11
    assert flight.overdue(10, 1) == ["x"]
    flight.waits("x")
    clock.now += 10
    assert flight.overdue(10, 1) == []
    clock.now += 1
    assert flight.overdue(10, 1) == ["x"]


def test_without_workers_no_time_counts(clock) -> None:
    flight: Flight = Flight(0, clock=clock)
    flight.add("x", batch_of(1))
    assert flight.overdue(10, 1) == []
    clock.now += 9
    assert flight.overdue(10, 0) == []
    clock.now += 1000
    assert flight.overdue(10, 1) == []  # from now on again
    clock.now += 11
    assert flight.overdue(10, 1) == ["x"]


@pytest.mark.parametrize("end", ["answered", "failed"])
def test_a_late_one_that_has_come_to_an_end_leaves_no_room_behind(clock, end) -> None:
    flight = flight_with(clock, [20, 20, 20])
    flight.add("late", batch_of(2))
    clock.now += 1000
    assert flight.look_for_late() == 1
    if end == "answered":
        flight.answered("late", "a")
    else:
        flight.failed("late")
    for name in "xy":  # one worker, and one that waits
        assert flight.has_room(1)
        flight.add(name, batch_of(2))
    assert not flight.has_room(1)
