"""When a run is started again, and when it is given up."""

from engine.exit_codes import TEMPORARY
from engine.supervision import LONGEST_DELAY_S, OUTAGE_S, RESTARTS, Patience

KILLED = -9


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_delays_double_up_to_a_minute_and_then_the_run_is_given_up() -> None:
    patience = Patience(100, True)
    delays = [patience.delay_s(KILLED, 100) for _ in range(RESTARTS + 1)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, None]
    assert LONGEST_DELAY_S == 60


def test_progress_resets_delay_and_count() -> None:
    patience = Patience(0, True)
    for n_bytes in range(1, 5):
        assert [patience.delay_s(KILLED, n_bytes) for _ in range(4)] == [1, 2, 4, 8]
    assert [patience.delay_s(1, 5) for _ in range(RESTARTS + 1)][-1] is None


def test_half_a_line_that_is_written_again_and_again_is_no_progress() -> None:
    patience = Patience(100, True)
    sizes = [150, 100] * RESTARTS
    delays = [patience.delay_s(KILLED, n_bytes) for n_bytes in sizes]
    assert delays.index(None) == RESTARTS  # the first time, nobody can tell


def test_a_cluster_may_be_away_for_a_day() -> None:
    clock = Clock()
    patience = Patience(100, True, clock)
    delays = []
    while (delay_s := patience.delay_s(TEMPORARY, 100)) is not None:
        delays.append(delay_s)
        clock.now += delay_s
    assert delays[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert OUTAGE_S < clock.now <= OUTAGE_S + LONGEST_DELAY_S


def test_an_outage_is_counted_from_its_own_beginning() -> None:
    clock = Clock()
    patience = Patience(100, True, clock)
    for n_bytes in (100, 200):
        assert patience.delay_s(TEMPORARY, n_bytes) is not None
        clock.now += OUTAGE_S
    assert patience.delay_s(1, 200) is not None  # there was a cluster for a moment
    clock.now += 1
    assert patience.delay_s(TEMPORARY, 200) is not None


def test_outages_do_not_use_up_the_restarts() -> None:
    patience = Patience(100, True)
    codes = [KILLED, *[TEMPORARY] * 50, *[KILLED] * RESTARTS]
    delays = [patience.delay_s(code, 100) for code in codes]
    assert delays.count(None) == 1
    assert delays[-1] is None


def test_a_ray_of_this_machine_that_does_not_start_is_no_outage() -> None:
    patience = Patience(100, False)
    delays = [patience.delay_s(TEMPORARY, 100) for _ in range(RESTARTS + 1)]
    assert delays.index(None) == RESTARTS
    assert not patience.is_away
