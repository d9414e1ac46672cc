"""How one network is trained: numbers drawn from the ranges of the settings, or inherited."""

from __future__ import annotations

from typing import Literal

import numpy as np

from engine.config import FineTuneConfig, ImitationConfig
from populations.plans import FineTune


def draw_finetune(
    settings: ImitationConfig, teacher_weights: tuple[float, ...], rng: np.random.Generator
) -> FineTune:
    """Return the training of a student or of the ancestor: log-uniform draws from the ranges."""
    return FineTune(
        target="teachers",
        steps=settings.steps,
        learning_rate=_log_uniform(settings.learning_rate, rng),
        temperature=_log_uniform(settings.temperature, rng),
        hard_weight=settings.hard_weight,
        teacher_weights=teacher_weights,
        repair=True,
    )


def draw_child_finetune(
    settings: FineTuneConfig, parent: FineTune, n_teachers: int, rng: np.random.Generator
) -> FineTune:
    """Return the training of a child, given that of its fitter parent.

    A number that is named in ``inherit`` is the parent's times one of the factors of ``perturb``,
    each equally likely, clipped to the range of the settings; with probability ``resample`` it is
    drawn anew from that range, as are all numbers that are not named.

    Source: Jaderberg et al. 2017, "Population Based Training of Neural Networks",
    arXiv:1711.09846, where a network keeps its weights and explores in the midst of its training;
    here a child does at its birth.
    """
    weights = draw_teacher_weights(settings, parent.teacher_weights, n_teachers, rng)
    return FineTune(
        target=settings.target,
        steps=settings.steps,
        learning_rate=_number(settings, "learning_rate", parent, rng),
        temperature=_number(settings, "temperature", parent, rng),
        hard_weight=settings.hard_weight,
        teacher_weights=weights,
        repair=settings.repair,
    )


def draw_teacher_weights(
    settings: FineTuneConfig,
    inherited: tuple[float, ...],
    n_teachers: int,
    rng: np.random.Generator,
) -> tuple[float, ...]:
    """Return the weights of the teachers in a child's target; they sum to one.

    ``inherit`` multiplies the fitter parent's weights, plus a hundredth so that no teacher is
    lost for good, by log-normal noise; ``random`` is uniform on the simplex.
    """
    if settings.teacher_weights == "uniform":
        weights = np.ones(n_teachers)
    elif settings.teacher_weights == "random":
        weights = rng.dirichlet(np.ones(n_teachers))
    else:
        noise = rng.normal(0, settings.teacher_noise, n_teachers)
        # A common factor cancels out; this one keeps large noise from overflowing.
        weights = (np.array(inherited) + 0.01) * np.exp(noise - noise.max())
    return tuple(float(weight) for weight in weights / weights.sum())


def _number(
    settings: FineTuneConfig,
    name: Literal["learning_rate", "temperature"],
    parent: FineTune,
    rng: np.random.Generator,
) -> float:
    bounds: tuple[float, float] = getattr(settings, name)
    if name not in settings.inherit or rng.random() < settings.resample:
        return _log_uniform(bounds, rng)
    factor = settings.perturb[int(rng.integers(len(settings.perturb)))]
    inherited: float = getattr(parent, name)
    return min(max(inherited * factor, bounds[0]), bounds[1])


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    low, high = bounds
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
