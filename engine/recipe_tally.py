"""Counts what the recipes of a run have come to."""

from __future__ import annotations

from collections.abc import Sequence

from engine.plain import plain
from engine.recipe_table import RecipeRow
from populations.manager import Birth, Recipe
from strategies.bandit import RecipeBandit, rewards
from strategies.recipes import Outcome, RecipeDraw


class RecipeTally:
    """Births, improvements and rewards by recipe.

    Sums are taken in the order of the births, so that a resumed run counts to the same bytes.

    Args:
        n: Number of recipes.
    """

    def __init__(self, n: int) -> None:
        self._births = [0] * n
        self._ok = [0] * n
        self._improvements = [_Mean() for _ in range(n)]
        self._rewards = [_Mean() for _ in range(n)]

    def add(self, births: Sequence[Birth], outcomes: Sequence[Outcome]) -> None:
        """Count a generation.

        Args:
            births: All its children, in their order.
            outcomes: Those of them that get a reward.
        """
        for birth in births:
            self._births[birth.recipe] += 1
            self._ok[birth.recipe] += birth.status == "ok"
            if birth.improvement is not None:
                self._improvements[birth.recipe].add(birth.improvement)
        gained = rewards([outcome.improvement for outcome in outcomes])
        for outcome, reward in zip(outcomes, gained.tolist(), strict=True):
            self._rewards[outcome.recipe].add(reward)

    def row(
        self, number: int, recipe: Recipe, weight: float, draw: RecipeDraw, share: float
    ) -> RecipeRow:
        """Return the line of one recipe.

        Args:
            number: Its number.
            recipe: What it is made of.
            weight: Its weight.
            draw: How recipes are drawn.
            share: How likely this one is.
        """
        bandit = draw if isinstance(draw, RecipeBandit) else None
        improvements = self._improvements[number]
        return RecipeRow(
            recipe=number,
            operator=recipe.operator.name,
            operator_params=plain(recipe.operator.params),
            align=recipe.align,
            finetune=recipe.preset,
            rescale=recipe.rescale,
            weight=weight,
            births=self._births[number],
            ok=self._ok[number],
            mean_improvement=improvements.mean,
            best_improvement=improvements.best,
            mean_reward=self._rewards[number].mean,
            alpha=None if bandit is None else float(bandit.alpha[number]),
            beta=None if bandit is None else float(bandit.beta[number]),
            expected_reward=None if bandit is None else float(bandit.expected[number]),
            share=share,
        )


class _Mean:
    """A mean, and the highest value, of numbers that come one by one."""

    def __init__(self) -> None:
        self._n = 0
        self._sum = 0.0
        self.best: float | None = None

    def add(self, value: float) -> None:
        self._n += 1
        self._sum += value
        self.best = value if self.best is None else max(self.best, value)

    @property
    def mean(self) -> float | None:
        return self._sum / self._n if self._n else None
