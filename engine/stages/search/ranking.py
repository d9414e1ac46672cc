"""The manifest and the leaderboard of a search: one row per child, and one per parent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.stages.networks import Network
from engine.stages.search.child import ChildResult
from engine.stages.search.files import CHILD, CONFIG, INT8_CHILD, PARENTS, REPORT
from engine.stages.search.scores import PrimaryMetric, Score, agreement_score
from engine.stages.search.space import Trial
from engine.stages.validation.fidelity import compare
from engine.stages.validation.role_checks import all_q_values

MANIFEST_COLUMNS = (
    "child_id",
    "crossover_mode",
    "crossover_alpha",
    "crossover_seed",
    "finetune_regime",
    "finetune_epochs",
    "finetune_lr",
    "finetune_quantization_applied",
    "child_pt_path",
    "eval_report_path",
    "run_config_path",
    "primary_metric",
    "child_vs_parent_a_agreement",
    "child_vs_parent_b_agreement",
    "oracle_agreement",
    "kl_divergence_a",
    "kl_divergence_b",
    "mse_a",
    "mse_b",
    "cosine_a",
    "cosine_b",
    "degenerate",
    # from here on not in AgentFarm
    "status",
    "reason",
    "scored_format",
    "primary_metric_se",
    "child_vs_parent_a_agreement_se",
    "child_vs_parent_b_agreement_se",
    "oracle_agreement_se",
    "min_agreement_gain",
    "return_mean",
    "return_se",
    "float_primary_metric",
    "float_child_pt_path",
)
LEADERBOARD_COLUMNS = ("rank", *MANIFEST_COLUMNS, "is_parent_baseline")


@dataclass(frozen=True, eq=False)
class Entry:
    """One candidate.

    Attributes:
        row: Its row in the manifest.
        score: Its primary metric; None where there is no child, or no number.
        is_parent: Whether it is a parent, not a child.
        returns: Its returns, of the same episodes as those of all others; None where nothing is
            played.
    """

    row: dict[str, Any]
    score: Score | None
    is_parent: bool = False
    returns: Score | None = None

    @property
    def child_id(self) -> str:
        """Its name."""
        return str(self.row["child_id"])


@dataclass(frozen=True, eq=False)
class Judge:
    """Turns results into rows, all of them on the same states and episodes.

    Attributes:
        parents: Parent A and parent B.
        parent_formats: What each of them is in its file: ``float32`` or ``int8``.
        states: What all are judged on, ``(M, n_inputs)``.
        metric: The primary metric.
        degenerate_threshold: Children with a lower one are marked; 0 marks none.
        parent_returns: Returns of the parents' episodes, ``(2, E)``; None where nothing is played.
    """

    parents: tuple[Network, Network]
    parent_formats: tuple[str, str]
    states: NDArray[np.float32]
    metric: PrimaryMetric
    degenerate_threshold: float = 0.0
    parent_returns: NDArray[np.float64] | None = None
    _values: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Compute the parents' Q-values once."""
        self._values.update(
            all_q_values(dict(zip(PARENTS, self.parents, strict=True)), self.states)
        )

    @property
    def parents_agree(self) -> float:
        """Share of the states in which the parents take the same action."""
        a, b = (self._values[name].argmax(axis=1) for name in PARENTS)
        return float((a == b).mean())

    def entry(self, trial: Trial, result: ChildResult) -> Entry:
        """Return the entry of a child."""
        row: dict[str, Any] = dict.fromkeys(MANIFEST_COLUMNS)
        row |= {
            "child_id": trial.child_id,
            "crossover_mode": trial.recipe.mode,
            "crossover_alpha": trial.recipe.alpha,
            "crossover_seed": trial.recipe.seed,
            "finetune_regime": trial.regime.name,
            "finetune_epochs": trial.regime.epochs,
            "finetune_lr": trial.regime.lr,
            "finetune_quantization_applied": trial.regime.quantization_applied,
            "degenerate": False,
            "status": result.status,
            "reason": result.reason,
        }
        if result.network is None:
            return Entry(row, None)
        folder, genome = trial.child_id, result.genome
        judged = result.network if genome is None else Network(genome.spec, genome.to_weights())
        returns = result.report["returns"]
        row |= {
            "child_pt_path": f"{folder}/{CHILD if genome is None else INT8_CHILD}",
            "eval_report_path": f"{folder}/{REPORT}",
            "run_config_path": f"{folder}/{CONFIG}",
            "scored_format": "float32" if genome is None else "int8",
            "float_child_pt_path": f"{folder}/{CHILD}",
        }
        played = np.array(returns["values"]) if returns.get("values") else None
        score = self._fill(row, judged, played)
        if genome is not None and self.metric != "return":
            row["float_primary_metric"] = self._score(self._actions(result.network), None).value
        if score is None or not math.isfinite(score.value):
            row |= {"status": "failed", "reason": result.report.get("reason") or "no number"}
            return Entry(row, None)
        row["degenerate"] = score.value < self.degenerate_threshold
        return Entry(row, score, returns=None if played is None else Score(played))

    def parent_entries(self) -> list[Entry]:
        """Return an entry for each parent, as if it were a child."""
        entries = []
        for number, (name, parent) in enumerate(zip(PARENTS, self.parents, strict=True)):
            row: dict[str, Any] = dict.fromkeys(MANIFEST_COLUMNS)
            row |= {"child_id": name, "degenerate": False, "status": "ok", "reason": ""}
            row["scored_format"] = self.parent_formats[number]
            played = None if self.parent_returns is None else self.parent_returns[number]
            returns = None if played is None else Score(played)
            entries.append(Entry(row, self._fill(row, parent, played), True, returns))
        return entries

    def _fill(
        self, row: dict[str, Any], network: Network, returns: NDArray[np.float64] | None
    ) -> Score | None:
        """Put all metrics into a row, and return the primary one."""
        values = all_q_values({"child": network}, self.states)["child"]
        for letter, parent in zip("ab", PARENTS, strict=True):
            metrics = compare(self._values[parent], values)
            agreement = metrics["action_agreement"]
            row |= {
                f"child_vs_{parent}_agreement": agreement,
                f"child_vs_{parent}_agreement_se": _share_error(agreement, len(values)),
                f"kl_divergence_{letter}": metrics["kl_divergence"],
                f"mse_{letter}": metrics["mse"],
                f"cosine_{letter}": metrics["mean_cosine_similarity"],
            }
        if not np.isfinite(values).all():
            return None
        actions = values.argmax(axis=1)
        a, b = (self._values[name].argmax(axis=1) for name in PARENTS)
        oracle = float(((actions == a) | (actions == b)).mean())
        lower = min(row[f"child_vs_{name}_agreement"] for name in PARENTS)
        row |= {
            "oracle_agreement": oracle,
            "oracle_agreement_se": _share_error(oracle, len(values)),
            "min_agreement_gain": lower - self.parents_agree,
        }
        if returns is not None:
            played = Score(returns)
            row |= {"return_mean": played.value, "return_se": played.standard_error}
        score = self._score(actions, returns)
        row |= {"primary_metric": score.value, "primary_metric_se": score.standard_error}
        return score

    def _actions(self, network: Network) -> NDArray[np.intp]:
        actions: NDArray[np.intp] = all_q_values({"": network}, self.states)[""].argmax(axis=1)
        return actions

    def _score(self, actions: NDArray[np.intp], returns: NDArray[np.float64] | None) -> Score:
        if self.metric == "return":
            assert returns is not None, "a search for returns has an environment"
            return Score(returns)
        a, b = (self._values[name].argmax(axis=1) for name in PARENTS)
        return agreement_score(actions, a, b, is_gain=self.metric == "min_agreement_gain")


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries, best first, children and parents alike; equal ones by child id.

    What has no score comes last.
    """

    def place(entry: Entry) -> tuple[float, str]:
        return (math.inf if entry.score is None else -entry.score.value, entry.child_id)

    return sorted(entries, key=place)


def leaderboard(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the rows of a leaderboard, in order; without a score there is no rank."""
    return [
        {
            "rank": None if entry.score is None else rank,
            **entry.row,
            "is_parent_baseline": entry.is_parent,
        }
        for rank, entry in enumerate(ranked(entries), 1)
    ]


def _share_error(share: float, n: int) -> float:
    """Return the standard error of a share of ``n`` independent draws."""
    return math.sqrt(max(0.0, share * (1 - share)) / n)
