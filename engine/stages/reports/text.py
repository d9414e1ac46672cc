"""The reports of the validators as Markdown, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.stages.reports.files import write_json, write_text
from engine.stages.reports.table import comparisons, csv_rows, csv_text, is_known

TRAINING_ROWS = (
    "**A network was trained on these rows. The figures say how well it remembers them, "
    "not how it does on states that it has not seen.**"
)
UNKNOWN_ROWS = "Whether a network was trained on some of these rows is not known."
HELD_OUT_ROWS = "No network was trained on these rows."


def write_reports(stem: Path, title: str, report: Mapping[str, Any]) -> None:
    """Write a report as ``<stem>.json``, ``<stem>.md`` and ``<stem>.csv``."""
    write_json(_beside(stem, ".json"), report)
    write_text(_beside(stem, ".md"), markdown(title, report))
    write_text(_beside(stem, ".csv"), csv_text(csv_rows(report)))


def write_csv(path: Path, reports: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows of several reports into one CSV file."""
    write_text(path, csv_text([row for report in reports for row in csv_rows(report)]))


def markdown(title: str, report: Mapping[str, Any]) -> str:
    """Return a report of any of the validators as Markdown.

    Verdict, checks with their limits, all metrics, returns with their intervals, files, states.
    """
    parts = [
        f"# {title}",
        _verdict(report),
        "## Checks",
        _checks(report["checks"]),
        "## Metrics",
        _metrics(report),
        "## Returns",
        *_returns(report.get("returns")),
        *_files(report),
        "## States",
        *_states(report.get("states", {})),
    ]
    return "\n\n".join(parts) + "\n"


def summary_markdown(title: str, reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one table with a row per report, by name, for example by pair."""
    rows = []
    for name, report in reports.items():
        first = next(iter(comparisons(report).values()))
        agreement = first["action_agreement"], first["action_agreement_ci95"]
        rows.append([name, *map(_text, agreement), _outcome(report), report["reason"] or ""])
    header = ["report", "action agreement", "95 % interval", "verdict", "reason"]
    return f"# {title}\n\n{_table(header, rows)}\n"


def _verdict(report: Mapping[str, Any]) -> str:
    if report["passed"]:
        return "**Passed**: all checks below."
    return f"**Did not pass**: {report['reason']}."


def _outcome(report: Mapping[str, Any]) -> str:
    return "passed" if report["passed"] else "**failed**"


def _checks(checks: Sequence[Mapping[str, Any]]) -> str:
    words = {"min": "at least", "max": "at most"}
    rows = [
        [
            check["name"],
            _text(check["value"]),
            f"{words[check['kind']]} {check['limit']:g}",
            _outcome(check),
        ]
        for check in checks
    ]
    return _table(["metric", "value", "limit", "verdict"], rows)


def _metrics(report: Mapping[str, Any]) -> str:
    """Return the table of all metrics, and that of the summary where there is one."""
    columns = {label: _shown(metrics, report) for label, metrics in comparisons(report).items()}
    names = list(next(iter(columns.values())))
    rows = [[name, *(_text(metrics[name]) for metrics in columns.values())] for name in names]
    rows = [row for row in rows if set(row[1:]) - {"-", ""}]  # what was not measured is left out
    table = _table(["metric", *columns], rows)
    if "summary" not in report:
        return table
    rows = [[name, _text(value)] for name, value in report["summary"].items()]
    return f"{table}\n\n{_table(['child and both parents', 'value'], rows)}"


def _shown(metrics: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics without those that say nothing.

    These are the settings of a throughput that was not measured, and top-k agreements with k of at
    least the number of actions, which are always 1.
    """
    throughput = report.get("throughput", {})
    hidden = set() if throughput.get("batch_size") else set(throughput)
    shown = {name: value for name, value in metrics.items() if name not in hidden}
    shown["top_k_agreements"] = {
        k: share for k, share in metrics["top_k_agreements"].items() if int(k) < report["n_actions"]
    }
    return shown


def _returns(returns: Mapping[str, Any] | None) -> list[str]:
    if returns is None:
        return ["No episode was played."]
    if returns["environment"] is None:
        return [f"No episode was played: {returns['reason']}."]
    rows = [
        [
            role,
            *(_text(played.get(name)) for name in ("mean", "ci95", "min", "max")),
            _text(played.get("full_length_share"))
            if is_known(played["mean"])
            else played["reason"],
        ]
        for role, played in returns["roles"].items()
    ]
    header = ["network", "mean return", "95 % interval", "least", "most", "share to the time limit"]
    about = (
        f"{returns['episodes']} episodes of {returns['environment']} each, the same for all (seed "
        f"{returns['seed']}), that no network was trained on. Interval: {returns['interval']}."
    )
    return [about, _table(header, rows)]


def _files(report: Mapping[str, Any]) -> list[str]:
    paths = report.get("checkpoints") or report.get("model_paths")
    if not paths:
        return []
    rows = [[role, f"`{path}`"] for role, path in paths.items()]
    return ["## Files", _table(["network", "file"], rows)]


def _states(states: Mapping[str, Any]) -> list[str]:
    rows = [
        [name, _text(value)]
        for name, value in states.items()
        if name != "n_states" and is_known(value)  # which is "count" under another name
    ]
    held_out = states.get("held_out")
    sentence = UNKNOWN_ROWS
    if held_out is not None:
        sentence = HELD_OUT_ROWS if held_out else TRAINING_ROWS
    return [sentence, _table(["states", "value"], rows)]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _text(value: Any) -> str:
    """Return a value as a cell: four digits of a number, an interval in brackets."""
    if not is_known(value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)


def _beside(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)
