"""What a crossover search tries: a grid of crossovers and fine-tunings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from engine.errors import StageError

MODES = ("random", "layer", "weighted")
NO_QUANTIZATION = "none"
CUSTOM = "custom"
SPACES = ("default", "minimal", "default-qat", "minimal-qat", CUSTOM)
# What a custom grid has where nothing else is asked for.
CUSTOM_ALPHAS = (0.3, 0.5, 0.7)
CUSTOM_SEEDS = (0, 1, 2)
CUSTOM_REGIMES = ("short", "long")


@dataclass(frozen=True)
class Recipe:
    """One way to cross two parents.

    Attributes:
        mode: ``random``, ``layer`` or ``weighted``.
        alpha: Share of parent A, in ``[0, 1]``; ``layer`` does not use it.
        seed: What ``random`` draws with; the other modes draw nothing.

    Raises:
        StageError: A field is out of its range.
    """

    mode: str
    alpha: float = 0.5
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.mode not in MODES:
            raise StageError(f"--crossover-modes: expected {', '.join(MODES)}, not {self.mode!r}")
        if not 0 <= self.alpha <= 1:
            raise StageError(f"--alpha-values must be in [0, 1], not {self.alpha}")
        if self.seed is not None and self.seed < 0:
            raise StageError(f"--crossover-seeds must be at least 0, not {self.seed}")


@dataclass(frozen=True)
class Regime:
    """One way to fine-tune a child; what is not here has the defaults of fine-tuning.

    Attributes:
        name: Its name in child ids.
        epochs: Passes over the states.
        lr: Learning rate.
        quantization_applied: ``none``, or what the child is trained for: ``ptq_dynamic``.
        batch_size: States per step.
        val_fraction: Share of the states that chooses the best epoch.
        loss_fn: ``kl`` or ``mse``.
        seed: Of the split, the minibatches and the dropout.
        optimizer: Name of the optimizer.
        optimizer_kwargs: Its options.
        early_stopping_patience: Epochs without a better one before training ends; 0 for never.
    """

    name: str
    epochs: int
    lr: float
    quantization_applied: str = NO_QUANTIZATION
    batch_size: int = 32
    val_fraction: float = 0.1
    loss_fn: str = "kl"
    seed: int = 42
    optimizer: str = "adam"
    optimizer_kwargs: dict[str, float] = field(default_factory=dict)
    early_stopping_patience: int = 0

    @property
    def is_quantized(self) -> bool:
        """Whether the child is trained through the int8 codec, and scored as int8."""
        return self.quantization_applied != NO_QUANTIZATION

    def to_dict(self) -> dict[str, Any]:
        """Return the regime as a run configuration keeps it."""
        values = asdict(self)
        return {"regime": values.pop("name"), **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Regime:
        """Rebuild a regime from :meth:`to_dict`; other keys are left alone."""
        names = {field.name for field in fields(cls)} & set(values)
        return cls(**{name: values[name] for name in names}, name=values["regime"])


REGIMES = {
    regime.name: regime
    for regime in (
        Regime("short", epochs=5, lr=1e-3),
        Regime("medium", epochs=10, lr=5e-4),
        Regime("long", epochs=20, lr=1e-4),
        Regime("lr_high", epochs=5, lr=5e-3),
        Regime("short_qat", epochs=5, lr=1e-4, quantization_applied="ptq_dynamic", batch_size=16),
    )
}
"""All regimes by name."""

_DEFAULT_RECIPES = (
    *(Recipe("random", seed=seed) for seed in (0, 1, 2)),
    Recipe("layer"),
    *(Recipe("weighted", alpha) for alpha in (0.3, 0.5, 0.7)),
)
_MINIMAL_RECIPES = (Recipe("random", seed=0), Recipe("layer"), Recipe("weighted"))
_GRIDS = {
    "default": (_DEFAULT_RECIPES, ("short", "long")),
    "minimal": (_MINIMAL_RECIPES, ("short", "medium", "long")),
    "default-qat": (_DEFAULT_RECIPES, ("short", "long", "short_qat")),
    "minimal-qat": (_MINIMAL_RECIPES, ("short", "short_qat", "long")),
}


@dataclass(frozen=True)
class Trial:
    """One child of a search.

    Attributes:
        index: Its number within the search, from 0.
        recipe: How it is crossed.
        regime: How it is fine-tuned.
    """

    index: int
    recipe: Recipe
    regime: Regime

    @property
    def child_id(self) -> str:
        """Its name within the search, such as ``000_random_a0p50_s0_short``."""
        alpha = f"{self.recipe.alpha:.2f}".replace(".", "p")
        return (
            f"{self.index:03d}_{self.recipe.mode}_a{alpha}_s{self.recipe.seed}_{self.regime.name}"
        )


@dataclass(frozen=True)
class SearchSpace:
    """Every recipe with every regime.

    Attributes:
        name: Name of the grid.
        recipes: Ways to cross.
        regimes: Ways to fine-tune.
        max_runs: Most children; those of the last recipes are left out. None for all.
    """

    name: str
    recipes: tuple[Recipe, ...]
    regimes: tuple[Regime, ...]
    max_runs: int | None = None

    def trials(self) -> list[Trial]:
        """Return the children in the documented order: all regimes of one recipe, then the next."""
        pairs = [(recipe, regime) for recipe in self.recipes for regime in self.regimes]
        chosen = pairs[: self.max_runs]
        return [Trial(index, *pair) for index, pair in enumerate(chosen)]

    def shifted(self, by: int) -> SearchSpace:
        """Return the same grid with ``by`` added to every seed, so that it draws anew."""
        recipes = tuple(
            recipe if recipe.seed is None else replace(recipe, seed=recipe.seed + by)
            for recipe in self.recipes
        )
        regimes = tuple(replace(regime, seed=regime.seed + by) for regime in self.regimes)
        return replace(self, recipes=recipes, regimes=regimes)


def search_space(
    name: str,
    max_runs: int | None = None,
    modes: Sequence[str] = (),
    alphas: Sequence[float] = (),
    seeds: Sequence[int] = (),
    regimes: Sequence[str] = (),
) -> SearchSpace:
    """Return a grid by name.

    Args:
        name: ``default``, ``minimal``, ``default-qat``, ``minimal-qat`` or ``custom``.
        max_runs: Most children, at least 1.
        modes: Modes of a custom grid; all of them where there are none.
        alphas: Its shares of parent A.
        seeds: Its seeds of ``random``.
        regimes: Names of its regimes.

    Raises:
        StageError: There is no such grid, mode or regime, a number is out of its range, or parts
            of a custom grid are given for another one.
    """
    if max_runs is not None and max_runs < 1:
        raise StageError(f"--max-runs must be at least 1, not {max_runs}")
    if name in _GRIDS:
        given = {
            "--crossover-modes": modes,
            "--alpha-values": alphas,
            "--crossover-seeds": seeds,
            "--finetune-regimes": regimes,
        }
        for flag, values in given.items():
            if values:
                raise StageError(f"{flag} is for --search-space custom, not for {name}")
        recipes, names = _GRIDS[name]
        return SearchSpace(name, recipes, tuple(REGIMES[regime] for regime in names), max_runs)
    if name != CUSTOM:
        raise StageError(f"--search-space: expected one of {', '.join(SPACES)}, not {name!r}")
    unknown = [regime for regime in regimes if regime not in REGIMES]
    if unknown:
        raise StageError(
            f"--finetune-regimes: expected some of {', '.join(REGIMES)}, not {unknown[0]!r}"
        )
    chosen = tuple(REGIMES[regime] for regime in regimes or CUSTOM_REGIMES)
    recipes = tuple(
        recipe
        for mode in modes or MODES
        for recipe in _recipes_of(mode, alphas or CUSTOM_ALPHAS, seeds or CUSTOM_SEEDS)
    )
    return SearchSpace(name, recipes, chosen, max_runs)


def _recipes_of(mode: str, alphas: Sequence[float], seeds: Sequence[int]) -> list[Recipe]:
    """Return the recipes of one mode, with just the settings that it uses."""
    if mode == "random":
        return [Recipe(mode, alpha, seed) for seed in seeds for alpha in alphas]
    if mode == "weighted":
        return [Recipe(mode, alpha) for alpha in alphas]
    return [Recipe(mode)]
