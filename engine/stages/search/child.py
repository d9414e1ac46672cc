"""One child of a search: crossed, fine-tuned, judged. A plain function that any worker can run.

Nothing that comes out for a child depends on its batch, on the worker, or on the other children.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.stages.networks import Network
from engine.stages.recombination.crossover import cross
from engine.stages.recombination.finetuning import Child, fine_tune
from engine.stages.recombination.finetuning_config import FineTuningConfig
from engine.stages.search.play import episode_returns
from engine.stages.search.scores import standard_error
from engine.stages.search.space import Regime, Trial
from engine.stages.state_sets import StateSet
from engine.stages.validation.child import validate_child
from engine.stages.validation.thresholds import RecombinationThresholds
from engine.stages.validation.timing import LatencySettings
from populations.genome import Genome

Reference = Literal["parent_a", "both"]
# Reports of a search have the median alone, for which AgentFarm takes 20.
LATENCY = LatencySettings(warmup=3, repeats=10)
K_VALUES = (1, 2, 3)
THRESHOLDS = RecombinationThresholds(report_only=True)


@dataclass(frozen=True)
class Judging:
    """How children are judged.

    Attributes:
        thresholds: Limits of the evaluation report; they are recorded and end nothing.
        include_parent_baseline: Whether reports compare the parents with each other, too.
        environment: Gymnasium id of what children play, None for nothing.
        episodes: Episodes of each child.
        seed: What the episodes are drawn from.
    """

    thresholds: RecombinationThresholds = THRESHOLDS
    include_parent_baseline: bool = True
    environment: str | None = None
    episodes: int = 100
    seed: int = 42


DEFAULT_JUDGING = Judging()


@dataclass(frozen=True)
class ChildResult:
    """What became of one child.

    Attributes:
        index: Number of its trial.
        status: ``ok``; ``failed``, where the fault is its own; or ``lost``, where it is the
            cluster's.
        reason: Why it is not ``ok``.
        network: The child.
        genome: What was exported as int8 and judged, for a regime with quantization.
        metrics: Metrics of its fine-tuning.
        report: Its evaluation.
        node: Where it was made.
        attempts: How often it was dispatched.
    """

    index: int
    status: Literal["ok", "failed", "lost"] = "ok"
    reason: str = ""
    network: Network | None = None
    genome: Genome | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    node: str = ""
    attempts: int = 1


@dataclass(frozen=True)
class ChildPlan:
    """A trial as executors want it.

    Attributes:
        trial: The trial.
        needs: Nothing: the parents are part of the context.
        phase: The only one there is.
    """

    trial: Trial
    needs: tuple[str, ...] = ()
    phase: str = "trials"

    def abandoned(
        self, status: Literal["failed", "lost"], reason: str, attempts: int
    ) -> ChildResult:
        """Return a result that says why there is no child."""
        return ChildResult(self.trial.index, status, reason, attempts=attempts)


@dataclass(frozen=True, eq=False)
class SearchContext:
    """What all children of a search share; sent to every worker once.

    Attributes:
        parent_a: The first parent.
        parent_b: The second parent, of the same architecture.
        states: What children are fine-tuned on.
        judged_on: What they are judged on, float32 ``(M, n_inputs)``.
        reference: Whom they imitate: ``parent_a``, or ``both`` to equal shares.
        dropout: Share of hidden units dropped while they train.
        judging: How they are judged.
    """

    parent_a: Network
    parent_b: Network
    states: StateSet
    judged_on: NDArray[np.float32]
    reference: Reference = "parent_a"
    dropout: float = 0.0
    judging: Judging = DEFAULT_JUDGING

    def work(self, plans: Sequence[ChildPlan], genomes: Mapping[str, Genome]) -> list[ChildResult]:
        """Make and judge a batch of children.

        Raises:
            StageError: A child cannot be crossed or trained.
        """
        starts = [
            Network(
                self.parent_a.spec,
                cross(
                    self.parent_a,
                    self.parent_b,
                    plan.trial.recipe.mode,
                    plan.trial.recipe.alpha,
                    plan.trial.recipe.seed,
                ),
            )
            for plan in plans
        ]
        children = self._fine_tune(plans, starts)
        returns = None
        if self.judging.environment is not None:
            returns = episode_returns(
                [child.judged for child in children],
                self.judging.environment,
                self.judging.episodes,
                self.judging.seed,
            )
        return [
            ChildResult(
                plan.trial.index,
                network=child.network,
                genome=child.genome,
                metrics=child.metrics,
                report=self._report(child, None if returns is None else returns[row]),
            )
            for row, (plan, child) in enumerate(zip(plans, children, strict=True))
        ]

    def _fine_tune(self, plans: Sequence[ChildPlan], starts: Sequence[Network]) -> list[_Made]:
        """Fine-tune a batch; children of one regime are trained side by side."""
        is_dual = self.reference == "both"
        references = (self.parent_a, self.parent_b) if is_dual else (self.parent_a,)
        shares = (1 / len(references),) * len(references)
        children = [
            Child(start, references, finetuning_config(plan.trial.regime), shares, self.dropout)
            for plan, start in zip(plans, starts, strict=True)
        ]
        return [
            _Made(
                tuned.network,
                tuned.metrics(),
                tuned.genome if plan.trial.regime.is_quantized else None,
            )
            for plan, tuned in zip(plans, fine_tune(children, self.states.train), strict=True)
        ]

    def _report(self, child: _Made, returns: NDArray[np.float64] | None) -> dict[str, Any]:
        report = self._validated(child.judged)
        if child.genome is not None:
            unrounded = self._validated(child.network)
            report["float_child"] = {
                name: unrounded[name] for name in ("comparisons", "summary", "passed")
            }
        report["returns"] = about_returns(self.judging, returns)
        return report

    def _validated(self, child: Network) -> dict[str, Any]:
        return validate_child(
            self.parent_a,
            self.parent_b,
            child,
            self.judged_on,
            thresholds=self.judging.thresholds,
            k_values=K_VALUES,
            latency=LATENCY,
            include_parent_baseline=self.judging.include_parent_baseline,
        )


@dataclass(frozen=True)
class _Made:
    """A child that was fine-tuned."""

    network: Network
    metrics: dict[str, Any]
    genome: Genome | None

    @property
    def judged(self) -> Network:
        """The network that is judged: what is exported."""
        if self.genome is None:
            return self.network
        return Network(self.genome.spec, self.genome.to_weights())


def about_returns(judging: Judging, returns: NDArray[np.float64] | None) -> dict[str, Any]:
    """Return what a report says of the episodes of one network, ``(episodes,)``."""
    if returns is None:
        return {"environment": None, "reason": "no environment is known; give --env to play one"}
    return {
        "environment": judging.environment,
        "episodes": len(returns),
        "seed": judging.seed,
        "mean": float(returns.mean()),
        "sem": standard_error(returns),
        "values": returns.tolist(),
    }


def finetuning_config(regime: Regime) -> FineTuningConfig:
    """Return the settings of a regime; what it does not say has its default.

    Raises:
        StageError: A setting is out of its range.
    """
    values = asdict(regime)
    del values["name"]
    return FineTuningConfig(learning_rate=values.pop("lr"), **values)
