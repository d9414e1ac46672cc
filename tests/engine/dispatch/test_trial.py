"""The trial counts what was born and how long it took."""

from __future__ import annotations

import dataclasses

import pytest

from engine.config import DispatchConfig
from engine.dispatch.serial import SerialExecutor
from engine.dispatch.trial import BIRTHS, Trial, _context, _plan, try_out
from populations.plans import ChildPlan


def test_a_trial_counts_births_and_time() -> None:
    trial = try_out(SerialExecutor(DispatchConfig()), 0.2)
    assert trial.failures == ()
    assert trial.births > 0
    assert trial.births % BIRTHS == 0
    assert trial.n_workers == 1
    # This process computes nothing else, but clocks of processes tick coarsely.
    assert 0 < trial.efficiency < 1.5


def test_rates_are_those_of_the_formula() -> None:
    trial = Trial(births=60, failures=(), wall_s=4.0, cpu_s=6.0, n_workers=2)
    assert (trial.births_per_s, trial.efficiency) == (15.0, 0.75)


def test_failures_are_told_once_each(monkeypatch) -> None:
    class Broken(SerialExecutor):
        def run(self, context, batches, stop):
            for results in super().run(context, batches, stop):
                yield [
                    dataclasses.replace(result, status="failed", reason="no luck", genome=None)
                    for result in results
                ]

    trial = try_out(Broken(DispatchConfig()), 0.1)
    assert trial.failures == ("no luck",)
    assert trial.births == 0


def test_every_birth_succeeds_and_no_two_are_alike() -> None:
    plans: list[ChildPlan] = [_plan(index) for index in range(4)]
    results = _context().work(plans, {})
    assert [result.status for result in results] == ["ok"] * 4
    assert len({result.genome.id for result in results if result.genome}) == 4
    with pytest.raises(KeyError):
        _context().work([dataclasses.replace(plans[0], parents=("nobody",))], {})
