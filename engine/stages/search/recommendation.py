"""What a search comes to, in words; it recommends nothing that chance may have done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.stages.search.files import PARENTS
from engine.stages.search.ranking import Entry, ranked
from engine.stages.search.scores import MEANINGS, PrimaryMetric, Score

TOP = 3


def recommendation(
    entries: Sequence[Entry],
    metric: PrimaryMetric,
    parents_agree: float,
    held_out: bool | None,
    returns: Mapping[str, Any] | None = None,
) -> str:
    """Return the text of ``recommendation.txt``.

    Args:
        entries: Children, and parents where they were asked for.
        metric: The primary metric.
        parents_agree: Share of the states in which the parents agree.
        held_out: Whether the children were judged on states that nothing was trained on; None
            where that is not known.
        returns: Report of held-out episodes of the best child and its parents, where they played.
    """
    order = [entry for entry in ranked(entries) if entry.score is not None]
    children = [entry for entry in order if not entry.is_parent]
    n_children = sum(not entry.is_parent for entry in entries)
    n_degenerate = sum(bool(entry.row["degenerate"]) for entry in children)
    lines = [
        "Crossover search: recommendation",
        "",
        f"Children: {n_children}, of which {n_children - len(children)} failed "
        f"and {n_degenerate} are degenerate",
        f"Primary metric: {metric} = {MEANINGS[metric]}, with its standard error",
        f"Judged on {_STATES[held_out]}",
        f"Agreement of the parents with each other: {parents_agree:.4f}",
        "",
    ]
    if not children:
        return "\n".join([*lines, "No child was made; the leaderboard says why.", ""])
    lines += [f"Best {min(TOP, len(children))} children:", *map(_line, children[:TOP]), ""]
    for title, column in (
        ("crossover mode", "crossover_mode"),
        ("fine-tune regime", "finetune_regime"),
    ):
        lines += [f"Mean by {title}:", *_by(children, column), ""]
    best = children[0]
    row = best.row
    lines += [
        "Recommended child:",
        f"  {best.child_id}: crossover {row['crossover_mode']} "
        f"(alpha {row['crossover_alpha']:g}, seed {row['crossover_seed']}), "
        f"fine-tune {row['finetune_regime']} "
        f"({row['finetune_epochs']} epochs, learning rate {row['finetune_lr']:g})",
        f"  file: {row['child_pt_path']} ({row['scored_format']})",
        f"  agreement with A {row['child_vs_parent_a_agreement']:.4f}, "
        f"with B {row['child_vs_parent_b_agreement']:.4f}, "
        f"with either {row['oracle_agreement']:.4f}",
        "",
        *_noise(children, [entry for entry in order if entry.is_parent]),
        *_best_by_return(children, metric),
    ]
    if returns is not None:
        lines += ["", *_returns(returns, best.child_id)]
    return "\n".join([*lines, ""])


_STATES = {
    True: "held-out states, on which nothing was trained",
    False: "states that were trained on: scores are too high for other states",
    None: "states of which some may have been trained on: a parent has no record of its states",
}


def _line(entry: Entry) -> str:
    assert entry.score is not None, "only children with a score are listed"
    row = entry.row
    returns = "" if entry.returns is None else f"  return {entry.returns.value:.1f}"
    return (
        f"  {entry.child_id:<36} {_number(entry.score)}  "
        f"A {row['child_vs_parent_a_agreement']:.4f}  B {row['child_vs_parent_b_agreement']:.4f}"
        f"{returns}"
    )


def _number(score: Score) -> str:
    return f"{score.value:.4f} +- {score.standard_error:.4f}"


def _by(children: Sequence[Entry], column: str) -> list[str]:
    """Return a line per group of children, best first, and whether the first may be chance."""
    groups: dict[str, list[Score]] = {}
    for entry in children:
        assert entry.score is not None, "only children with a score are compared"
        groups.setdefault(entry.row[column], []).append(entry.score)
    means = {
        name: Score(np.mean([score.samples for score in scores], axis=0))
        for name, scores in groups.items()
    }
    order = sorted(means, key=lambda name: (-means[name].value, name))
    lines = [f"  {name:<12} {_number(means[name])}" for name in order]
    first = means[order[0]]
    equal = [name for name in order[1:] if first.is_within_noise_of(means[name])]
    if equal:
        lines.append(f"  {order[0]} and {', '.join(equal)} differ by no more than chance may do")
    elif len(order) > 1:
        lines.append(f"  {order[0]} is better than the others by more than chance would do")
    return lines


def _noise(children: Sequence[Entry], parents: Sequence[Entry]) -> list[str]:
    """Return how sure the choice of the best child is."""
    best = children[0]
    assert best.score is not None, "the best child has a score"
    equal = [e for e in children[1:] if e.score and best.score.is_within_noise_of(e.score)]
    lines = []
    if equal:
        lines.append(
            f"Within noise of it (paired difference below 1.96 standard errors) {_count(equal)}, "
            + (
                "all others: this search does not tell them apart."
                if len(equal) == len(children) - 1
                else "any of which would do:"
            )
        )
        if len(equal) < len(children) - 1:
            lines += map(_line, equal)
    elif len(children) > 1:
        lines.append("It is better than every other child by more than noise.")
    for parent in parents:
        assert parent.score is not None, "parents have a score"
        if best.score.is_within_noise_of(parent.score):
            verdict = "no better than"
        elif best.score.value > parent.score.value:
            verdict = "better, by more than noise, than"
        else:
            verdict = "worse than"
        lines.append(f"It is {verdict} {parent.child_id} alone ({_number(parent.score)}).")
    if len(children) > 1:
        lines.append(
            f"The best of {len(children)} looks better than it is; judge it again on other states."
        )
    return lines


def _count(children: Sequence[Entry]) -> str:
    return "is 1 child" if len(children) == 1 else f"are {len(children)} children"


def _best_by_return(children: Sequence[Entry], metric: PrimaryMetric) -> list[str]:
    """Return whether another child plays better, where children are ranked by agreement."""
    recommended = children[0].returns
    if metric == "return" or recommended is None:
        return []
    played = [(rank, e, e.returns) for rank, e in enumerate(children, 1) if e.returns is not None]
    rank, best, returns = max(played, key=lambda item: item[2].value)
    episodes = f"the {len(returns.samples)} episodes that all children played"
    if returns.value <= recommended.value:
        return [f"By return, too, it is the best: {recommended.value:.1f} over {episodes}."]
    noise = "within" if returns.is_within_noise_of(recommended) else "beyond"
    return [
        f"It does not play best: over {episodes} it returns {recommended.value:.1f}, and "
        f"{best.child_id}, number {rank} of the children,",
        f"{returns.value:.1f} +- {returns.standard_error:.1f}, a difference {noise} noise; "
        "--primary-metric return ranks by returns.",
    ]


def _returns(returns: Mapping[str, Any], best: str) -> list[str]:
    """Return the held-out returns of the best child, its parents and their ensemble."""
    lines = [f"Returns over {returns['episodes']} other episodes of {returns['environment']}:"]
    for name in (best, *PARENTS, "ensemble"):
        role = returns["roles"].get(name)
        if role is not None and role["mean"] is not None:
            low, high = role["ci95"]
            lines.append(f"  {name:<36} {role['mean']:.1f} (95 % interval {low:.1f} to {high:.1f})")
    return lines
