"""Named checks, what became of each, and how that is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from strategies.declaration import Fault, call_faults
from strategies.errors import ConformanceError
from strategies.user_code import raised


class NotAsked(Exception):  # noqa: N818  # no error: a check that says it does not apply
    """A check does not apply to this operator; the text says why."""


class Check(NamedTuple):
    """One thing that is asked of an operator.

    Attributes:
        name: A word or two.
        asks: What has to hold, to be read behind the operator's name.
        faults: Finds what is wrong when it is looped over, the simplest case first.
    """

    name: str
    asks: str
    faults: Iterator[Fault]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one check.

    Attributes:
        check: Name of the check.
        asks: What it asks.
        problem: What the operator does instead; empty where it does as it should.
        mend: How to mend that.
        skipped: Why the check does not apply; empty where it does.
    """

    check: str
    asks: str
    problem: str = ""
    mend: str = ""
    skipped: str = ""

    @property
    def failed(self) -> bool:
        """Whether the operator breaks what is asked."""
        return self.problem != ""


def run_checks(checks: Sequence[Check], operator: object) -> tuple[Outcome, ...]:
    """Run all checks, whatever the operator does.

    Args:
        checks: What to run, in the order of the report.
        operator: Whose code is run; an error that it raises is told with its line in that code.
    """
    return tuple(_outcome(check, operator) for check in checks)


def _outcome(check: Check, operator: object) -> Outcome:
    try:
        faults = list(check.faults)
    except NotAsked as reason:
        return Outcome(check.name, check.asks, skipped=str(reason))
    except Exception as error:  # noqa: BLE001  # the operator is code of the user's own
        faults = [Fault(raised(error, operator), "mend that line")]
    if not faults:
        return Outcome(check.name, check.asks)
    problem, mend, where = faults[0]
    if where:
        others = f", and {len(faults) - 1} more such cases" if len(faults) > 1 else ""
        problem = f"{problem} (given {where}{others})"
    return Outcome(check.name, check.asks, problem, mend)


def error_fault(error: BaseException, operator: object, mend: str, where: str) -> Fault:
    """Return what an operator raised, with what its author can do about it.

    Args:
        error: What was raised.
        operator: Whose code it was.
        mend: What to do unless the error tells better.
        where: What was given.
    """
    if isinstance(error, SystemExit):
        mend = "raise an error instead"
    elif isinstance(error, TypeError):
        for fault in call_faults(operator):  # no line of its code was reached
            return fault
    return Fault(raised(error, operator), mend, where)


def refuse_class(operator: object) -> None:
    """Raise where a class is given instead of an instance.

    Raises:
        TypeError: It is a class.
    """
    if isinstance(operator, type):
        raise TypeError(f"pass an instance: {operator.__name__}()")


def raise_failed(kind: str, operator: object, outcomes: Sequence[Outcome]) -> None:
    """Raise one error that names every check that failed; do nothing where all passed.

    Raises:
        ConformanceError: A check failed.
    """
    failed = [outcome for outcome in outcomes if outcome.failed]
    if not failed:
        return
    name = getattr(operator, "name", None)
    who = f"{kind} {name if isinstance(name, str) else type(operator).__name__!r}"
    if len(failed) == 1:
        raise ConformanceError(f"{who} {failed[0].problem}; {failed[0].mend}")
    lines = [f"\n  {each.check}: it {each.problem}; {each.mend}" for each in failed]
    raise ConformanceError(f"{who} fails {len(failed)} checks{''.join(lines)}")
