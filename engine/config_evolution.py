"""Settings of the loop: how parents are chosen, and what children are made with."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Discriminator, Field, Tag, model_validator

from engine.config_base import Count, CountOrZero, Section, Share
from populations.plans import Align

T = TypeVar("T", bound=str)

# In the path of a problem, tags stand behind the name of a setting that is one value or a list;
# messages leave out what is in angle brackets.
ONE, MANY = "<one>", "<many>"


def _one_or_many(value: Any) -> str:
    return MANY if isinstance(value, list | tuple) else ONE


Texts = Annotated[
    Annotated[str, Tag(ONE)] | Annotated[tuple[str, ...], Field(min_length=1), Tag(MANY)],
    Discriminator(_one_or_many),
]
Aligns = Annotated[
    Annotated[Align, Tag(ONE)] | Annotated[tuple[Align, ...], Field(min_length=1), Tag(MANY)],
    Discriminator(_one_or_many),
]


def each(value: T | tuple[T, ...]) -> tuple[T, ...]:
    """Return the values of a setting that is one value or a list."""
    return value if isinstance(value, tuple) else (value,)


class RecipeConfig(Section):
    """A way to make a child, or several: lists make a recipe of every combination."""

    operator: Texts
    """Name of a crossover operator, or ``module:Class``; or a list of them."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the operator; each operator of a list must accept them."""
    align: Aligns = "auto"
    """Alignment before crossover; ``auto`` aligns by activations unless parents are kin. One, or
    a list."""
    finetune: Texts = "default"
    """Name in ``finetune_presets``, or ``default`` for ``finetune`` itself; or a list of them."""
    rescale: bool = False
    """Give the child's hidden units the interpolated statistics of its parents' units, of which
    there must be two or more."""
    weight: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    """How often a mix draws it, relative to other recipes; combinations of lists share it evenly.
    A grid and a bandit pay no heed to it."""


class BanditConfig(Section):
    """Discounted Thompson sampling over the recipes, see ``strategies/bandit.py``."""

    discount: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Factor on all that is known of the recipes, once per generation; 1 forgets nothing."""
    explore: Share = 0.1
    """Probability that a child gets a recipe drawn evenly instead."""


class SelectionConfig(Section):
    """How parents are chosen."""

    name: str = "tournament"
    """Name of a selection: ``truncation``, ``tournament`` or ``rank``."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the selection."""


class MutationConfig(Section):
    """Noise on every child after crossover."""

    name: str = "gaussian"
    """Name of a mutation."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the mutation."""
    adapt: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Deviation of the log-normal factor on the step size that is inherited from the fitter parent;
    0 keeps the size of ``params`` for all. A size outside the mutation's range becomes the nearer
    end; one that the mutation refuses leaves the child with its parent's."""


DEFAULT_RECIPES = tuple(
    RecipeConfig(operator=name) for name in ("weighted", "unit", "layer", "random")
)


class EvolutionConfig(Section):
    """The loop: (mu + lambda) selection with re-evaluated elites."""

    generations: CountOrZero = 10
    """Generations after the students; 0 stops at generation 0."""
    population: Annotated[int, Field(ge=2)] = 16
    """Number of parents (mu)."""
    children: Count = 64
    """Births per generation (lambda)."""
    elites: CountOrZero = 8
    """Best genomes that stay unchanged and are scored again on each generation's episodes."""
    batch_size: Count = 16
    """Children per task; part of the configuration, so that bytes never depend on the cluster."""
    controls: CountOrZero = 2
    """Births per generation of each control (clone + fine-tune, random + fine-tune)."""
    draw: Literal["mix", "grid", "bandit"] = "mix"
    """Who gets which recipe: drawn by weight, all in turn, or more of those that improve more. A
    ``bandit`` measures a child against the fittest of its own parents, which is a higher bar for
    recipes with more parents, and a lower one for ``clone`` and ``fresh``."""
    recipes: Annotated[tuple[RecipeConfig, ...], Field(min_length=1)] = DEFAULT_RECIPES
    """Ways to make a child."""
    bandit: BanditConfig = BanditConfig()
    """How a bandit draws; without effect on a mix or a grid."""
    selection: SelectionConfig = SelectionConfig()
    """How parents are chosen."""
    mutation: MutationConfig | None = MutationConfig()
    """Noise on every child, or null."""

    @model_validator(mode="after")
    def _elites_fit(self) -> Self:
        if self.elites > self.population:
            raise ValueError(
                f"evolution.elites ({self.elites}) must not exceed "
                f"evolution.population ({self.population})"
            )
        return self
