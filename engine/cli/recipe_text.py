"""The table of recipes as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click
from rich.console import Console

from engine.cli.facts import counts, numbers
from engine.cli.format import KEEP_ALWAYS, TextColumn, print_columns
from engine.formatting import decimals_for, rounded
from engine.layout import RECIPES
from engine.recipe_table import RecipeRow

LINES = 20
DRAWN = {"mix": "drawn by weight", "grid": "all in turn", "bandit": "drawn by a bandit"}


def print_recipes(console: Console, draw: str, recipes: Sequence[RecipeRow]) -> None:
    """Print what each recipe has come to: what a bandit draws most often first, else the best.

    A mix with one recipe per operator is left out: the table of operators tells the same.

    Args:
        console: Where to print.
        draw: ``mix``, ``grid`` or ``bandit``.
        recipes: The recipes.
    """
    one_each = len({recipe.operator for recipe in recipes}) == len(recipes)
    if not recipes or (draw == "mix" and one_each):
        return
    ranked = sorted(recipes, key=_by_chance if draw == "bandit" else _by_gain)
    click.echo()
    click.echo(f"{len(recipes)} recipes, {DRAWN[draw]}")
    print_columns(console, _columns(draw, ranked[:LINES], recipes))
    if len(recipes) > LINES:
        click.echo(f"{LINES} of {len(recipes)} recipes; {RECIPES} has all", err=True)


def _reward(recipe: RecipeRow) -> float | None:
    """Return the reward that a bandit expects, or else the mean one."""
    return recipe.mean_reward if recipe.expected_reward is None else recipe.expected_reward


def _by_chance(recipe: RecipeRow) -> tuple[float, float]:
    """Sort by how likely a recipe is drawn, which some of those never drawn share."""
    return -recipe.share, -(_reward(recipe) or 0.0)


def _by_gain(recipe: RecipeRow) -> tuple[bool, float]:
    """Sort by mean improvement; recipes without any come last."""
    gain = recipe.mean_improvement
    return gain is None, -(gain or 0.0)


def _columns(
    draw: str, shown: Sequence[RecipeRow], recipes: Sequence[RecipeRow]
) -> list[TextColumn]:
    gains = [
        value
        for recipe in shown
        for value in (recipe.mean_improvement, recipe.best_improvement)
        if value is not None
    ]
    decimals = decimals_for(gains)
    chances = TextColumn("chance", [f"{r.share:.0%}" for r in shown], is_number=True, keep=90)
    return [
        counts("#", [recipe.recipe for recipe in shown]),
        TextColumn("operator", [recipe.operator for recipe in shown], keep=KEEP_ALWAYS),
        *_varying("params", _params, shown, recipes, least=12),
        *_varying("align", lambda recipe: recipe.align, shown, recipes),
        *_varying("finetune", lambda recipe: recipe.finetune, shown, recipes),
        *_varying("rescale", lambda recipe: "yes" if recipe.rescale else "no", shown, recipes),
        counts("births", [recipe.births for recipe in shown], keep=60),
        counts("ok", [recipe.ok for recipe in shown], keep=40),
        numbers("vs parent", [r.mean_improvement for r in shown], decimals, sign="+"),
        numbers("best gain", [r.best_improvement for r in shown], decimals, sign="+", keep=50),
        numbers("reward", [_reward(recipe) for recipe in shown], 2, keep=80),
        *([] if draw == "grid" else [chances]),  # in which all are equal
    ]


def _varying(
    header: str,
    tell: Callable[[RecipeRow], str],
    shown: Sequence[RecipeRow],
    recipes: Sequence[RecipeRow],
    least: int | None = None,
) -> list[TextColumn]:
    """Return a column of what recipes of one operator differ in, or none where they do not."""
    by_operator: dict[str, set[str]] = {}
    for recipe in recipes:
        by_operator.setdefault(recipe.operator, set()).add(tell(recipe))
    if all(len(values) == 1 for values in by_operator.values()):
        return []
    return [TextColumn(header, [tell(r) for r in shown], keep=KEEP_ALWAYS, least=least)]


def _params(recipe: RecipeRow) -> str:
    params = rounded(recipe.operator_params)
    return " ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )
