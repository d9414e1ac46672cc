"""What is known of a genome as text."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.text import Text

from engine.cli.facts import counts, numbers, print_facts, with_error
from engine.cli.format import KEEP_ALWAYS, TextColumn, print_columns
from engine.formatting import decimals_for, rounded
from engine.genome_report import GenomeReport
from populations.leaderboard import Row


def print_genome(console: Console, report: GenomeReport) -> None:
    """Print a genome: facts, fitness record, family tree."""
    print_facts(
        console,
        [
            ("genome", report.genome + (", the champion" if report.is_champion else "")),
            *((label, text) for label, text in _genome_facts(report) if text),
        ],
    )
    click.echo("\nfitness record")
    print_columns(console, _record_columns(report))
    click.echo("\nfamily tree")
    # Deep trees are cut on a terminal; in a file somebody may search.
    cut = console.is_terminal
    tree = Text(report.family_tree)
    console.print(tree, no_wrap=True, overflow="ellipsis" if cut else "ignore", crop=cut)


def _genome_facts(report: GenomeReport) -> list[tuple[str, str]]:
    born, best = report.birth, report.best
    holdout = (
        f"{with_error(report.fitness_holdout, report.fitness_holdout_sem)} "
        f"over {report.episodes_holdout or 0:,} episodes"
    )
    layers = "-".join(map(str, report.layers))
    return [
        ("born", f"{born.kind} {born.child} of generation {born.generation}"),
        ("parents", "  ".join(report.parents)),
        ("operator", f"{born.operator or ''} {_arguments(born.operator_params)}".strip()),
        ("align", f"{born.align or ''}{', units rescaled' if born.rescale else ''}"),
        ("mutation", _named(born.mutation)),
        ("fine-tuning", _finetune(born)),
        ("network", f"{layers}, norm {report.norm}, {report.parameters:,} parameters"),
        ("size", f"{report.size_bytes:,} bytes, int8 weights and {report.vector_dtype} biases"),
        (
            "fitness",
            f"{with_error(best.fitness, best.fitness_sem)} over {best.episodes or 0:,} episodes",
        ),
        ("held-out", holdout if report.episodes_holdout else ""),
        ("before tuning", _optional(born.fitness_before_finetune)),
        ("vs parent", _optional(born.delta_vs_better_parent, sign="+")),
        ("agreement", _agreements(report)),
        ("divergence", "" if born.kl is None else f"{born.kl:.4f} nats from its target"),
        ("children", _children(report)),
        ("file", ", ".join(report.files) or "in the journal only; --export writes it"),
    ]


def _agreements(report: GenomeReport) -> str:
    known = [(name, share) for name, share in report.agreements.items() if share is not None]
    return ", ".join(f"{name} {share:.1%}" for name, share in known)


def _children(report: GenomeReport) -> str:
    if not report.n_children:
        return "none"
    best = report.best_child
    return f"{report.n_children:,}" + ("" if best is None else f", the fittest is {best}")


def _finetune(born: Row) -> str:
    cell = born.finetune
    if cell is None:
        return ""
    if cell["target"] == "none":
        return "none"
    weights = " ".join(f"{weight:.2f}" for weight in cell["teacher_weights"])
    target = f"teachers ({weights})" if cell["target"] == "teachers" else cell["target"]
    preset = "" if born.preset in (None, "default") else f"{born.preset}: "
    return (
        f"{preset}towards {target}, {cell['steps']} steps, "
        f"learning rate {cell['learning_rate']:.2g}, "
        f"temperature {cell['temperature']:.2g}, hard weight {cell['hard_weight']:g}, "
        f"{'with' if cell['repair'] else 'without'} repair; "
        f"the version {'after' if cell['kept'] else 'before'} it was kept"
    )


def _record_columns(report: GenomeReport) -> list[TextColumn]:
    rows = report.rows
    values = [row.fitness for row in rows if row.fitness is not None]
    decimals = decimals_for(values)
    return [
        counts("generation", [row.generation for row in rows]),
        TextColumn("as", [_occasion(row) for row in rows], keep=KEEP_ALWAYS),
        counts("episodes", [row.episodes for row in rows]),
        numbers("fitness", [row.fitness for row in rows], decimals),
        numbers("±", [row.fitness_sem for row in rows], decimals, keep=60),
        numbers("lowest", [row.return_min for row in rows], decimals, keep=50),
        numbers("highest", [row.return_max for row in rows], decimals, keep=50),
        numbers("held-out", [row.fitness_holdout for row in rows], keep=90),
        TextColumn("at", [row.created_at or "-" for row in rows], keep=10),
    ]


def _occasion(row: Row) -> str:
    if row.child is not None:
        return f"{row.kind} {row.child}"
    return "elite" if row.fitness_holdout is None else "candidate"


def _named(values: Any) -> str:
    if values is None:
        return ""
    return (
        f"{values['name']} {_arguments({k: v for k, v in values.items() if k != 'name'})}".strip()
    )


def _arguments(values: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in rounded(values or {}).items())


def _optional(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.{decimals_for([value])}f}"
