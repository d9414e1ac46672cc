"""When a run that waits says so, and what it says."""

from __future__ import annotations

from engine.dispatch.stall import StallWatch, Waiting, notice


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_notice_comes_after_the_timeout_and_again_after_each() -> None:
    clock, notes = Clock(), []
    watch = StallWatch(120, notes.append, clock)
    told = []
    for second in range(1, 601):
        clock.now = 1000.0 + second
        before = len(notes)
        watch.look([Waiting(1000.0)], 0, 2)
        told += [second] * (len(notes) - before)
    assert told == [120, 240, 360, 480, 600]
    assert [text.partition(": waiting")[0] for text in notes[:2]] == [
        "no result for 0:02:00",
        "no result for 0:04:00",
    ]


def test_a_result_starts_the_count_again() -> None:
    clock, notes = Clock(), []
    watch = StallWatch(120, notes.append, clock)
    for second in range(0, 1200, 100):
        clock.now = 1000.0 + second
        watch.progress()
        clock.now += 99
        watch.look([Waiting(1000.0)], 0, 2)
    assert notes == []


def test_a_notice_says_how_many_batches_where_and_since_when() -> None:
    waiting = [Waiting(900.0, "a/1"), Waiting(950.0, "b/2"), Waiting(960.0, "a/1"), Waiting(980.0)]
    assert notice(waiting, 7, 3, now=1020.0, silent_s=60) == (
        "no result for 0:01:00: waiting for 4 batches (2 on a/1, 1 on b/2, 1 on nodes that are not "
        "known), the longest for 0:02:00; 7 more not sent yet; workers: 3"
    )
    assert notice([Waiting(960.0)], 0, 2, now=1020.0, silent_s=60) == (
        "no result for 0:01:00: waiting for 1 batch on nodes that are not known, the longest for "
        "0:01:00; workers: 2"
    )


def test_of_many_nodes_the_fullest_are_named() -> None:
    waiting = [Waiting(0.0, f"n{node}") for node in range(6) for _ in range(node + 1)]
    assert "(6 on n5, 5 on n4, 4 on n3, 3 on n2, 3 on 2 other nodes)" in notice(
        waiting, 0, 8, now=1.0, silent_s=1
    )
