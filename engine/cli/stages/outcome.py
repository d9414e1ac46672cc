"""What every validator prints: verdict, states, each checked value with its limit, returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.stages.reports.table import comparisons, is_known

KINDS = {True: "held-out ", False: "training ", None: ""}
SIDES = {"min": "at least", "max": "at most"}


def outcome(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    """Yield a report in lines.

    Args:
        name: What was judged, for example ``student A``.
        report: Of any of the validators, with its returns.
    """
    yield f"{name}: passed" if report["passed"] else f"{name}: did not pass: {report['reason']}"
    states = report["states"]
    yield f"  judged on {states['count']} {KINDS[states['held_out']]}states ({states['source']})"
    if states["note"]:
        yield f"  {states['note']}"
    for line in (*check_lines(report), *returns_lines(report["returns"])):
        yield f"  {line}"


def check_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of the checks of a report; a share of states has its interval."""
    found = comparisons(report)
    width = max(len(check["name"]) for check in report["checks"])
    for check in report["checks"]:
        label, _, metric = check["name"].rpartition(".")
        metrics = found[label] if label else next(iter(found.values()))
        value = f"{check['value']:.4f}" if is_known(check["value"]) else "-"
        low, high = metrics.get(f"{metric}_ci95", (None, None))
        interval = f"  95 % interval {low:.4f} to {high:.4f}" if is_known(low) else ""
        yield (
            f"{check['name']:<{width}}  {value:>9}  {SIDES[check['kind']]:>8} {check['limit']:<5g}"
            f"  {'passed' if check['passed'] else 'failed'}{interval}"
        )


def returns_lines(returns: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of mean returns with their intervals, or why there is none.

    Args:
        returns: What :func:`engine.stages.validation.returns.play_roles` returned.
    """
    if returns["environment"] is None:
        yield f"no episode was played: {returns['reason']}"
        return
    yield f"returns over {returns['episodes']} held-out episodes of {returns['environment']}"
    yield f"  {'network':<20}    mean  95 % interval"
    for name, played in returns["roles"].items():
        if played["mean"] is None:
            yield f"  {name:<20}       -  {played['reason']}"
        else:
            low, high = played["ci95"]
            yield f"  {name:<20}  {played['mean']:>6.1f}  {low:.1f} to {high:.1f}"
