"""Settings of how networks are trained: students, children, and the loop they share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from engine.config_base import (
    Count,
    CountOrZero,
    Positive,
    PositiveOrZero,
    Range,
    Section,
    Share,
)
from populations.plans import Target


class ImitationConfig(Section):
    """Settings that every kind of training towards targets shares."""

    steps: CountOrZero = 100
    """Gradient steps."""
    learning_rate: Range = (1e-3, 1e-2)
    """Adam learning rate, drawn log-uniformly per network from this range."""
    temperature: Range = (0.5, 2.0)
    """Softmax temperature, drawn log-uniformly per network, in units of the targets."""
    hard_weight: Share = 0.0
    """Share of the cross-entropy on the target's best action; the rest is the KL divergence."""


class DistillationConfig(ImitationConfig):
    """How students are distilled from teachers: generation 0."""

    steps: CountOrZero = 500
    """Gradient steps."""
    students: Count = 32
    """Number of students; student i learns from teacher i modulo the number of teachers."""
    ancestor: Literal["shared", "independent"] = "shared"
    """Start students from one pre-distilled network, or each from its own random weights."""
    ancestor_steps: CountOrZero = 300
    """Gradient steps of the shared ancestor, towards the mean of the teachers."""


class FineTuneConfig(ImitationConfig):
    """How children are trained after crossover."""

    target: Target = "teachers"
    """Whose values are imitated."""
    teacher_weights: Literal["inherit", "uniform", "random"] = "inherit"
    """Weights of the teachers in the target: from the fitter parent with noise, equal, or drawn."""
    teacher_noise: PositiveOrZero = 0.3
    """Standard deviation of the log-normal noise on inherited teacher weights."""
    repair: bool = True
    """Refit the output layer in closed form before training."""
    inherit: tuple[Literal["learning_rate", "temperature"], ...] = ()
    """What is taken over from the fitter parent, within its range here, instead of drawn anew."""
    perturb: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.8, 1.25)
    """Factors of which one, each equally likely, multiplies an inherited number."""
    resample: Share = 0.25
    """Probability that a number that could be inherited is drawn anew all the same."""


class FineTunePreset(FineTuneConfig):
    """Settings of ``finetune`` under a name: those that are given here, all others as they are."""

    @model_serializer(mode="wrap")
    def _given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if name in self.model_fields_set}

    def over(self, settings: FineTuneConfig) -> FineTuneConfig:
        """Return ``settings`` with what is given here."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return settings.model_copy(update=given)


class LearningConfig(Section):
    """The stacked training loop that distillation and fine-tuning share."""

    batch_size: Annotated[int, Field(ge=32, multiple_of=32)] = 64
    """States per gradient step, the same ones for all networks of a generation."""
    int8_in_loop: bool = True
    """Train through the int8 codec with straight-through gradients."""
    validation_every: Count = 50
    """Gradient steps between two looks at the validation loss."""
    ridge: Positive = 1e-3
    """Ridge penalty of the output layer's refit, relative to the mean square of the features."""
    targets: Literal["advantages", "raw"] = "advantages"
    """Imitate advantages in units of each teacher's median action gap, or raw Q-values."""
