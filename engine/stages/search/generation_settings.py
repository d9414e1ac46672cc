"""How one generation of a search follows another."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from engine.errors import StageError
from engine.stages.search.output import Search
from strategies.mutation import GaussianMutation

Selection = Literal["best", "best_vs_original"]
FORMAT, SCHEMA_VERSION = "cultivar-multi-generation-search", 1


@dataclass(frozen=True)
class Generations:
    """How one generation follows another.

    Attributes:
        n_generations: How many there are, at least 1.
        selection: ``best``: the two best children become the parents. ``best_vs_original``: the
            best child and the original parent B.
        keep_top_k: The second best child must be among so many; None for all.
        score_against: Which parents' agreement selects: the ``current`` or the ``original`` ones.
        seed: Added, with the number of the generation, to every seed of the grid.
        mutation_std: Standard deviation of the noise on promoted children, relative to the weights
            around it; 0 for none.
        mutation_fraction: Share of the weights that get noise, in ``[0, 1]``.
        mutation_seed: Seed of the noise; None for ``seed``.

    Raises:
        StageError: A field is out of its range.
    """

    n_generations: int = 2
    selection: Selection = "best"
    keep_top_k: int | None = None
    score_against: Literal["current", "original"] = "current"
    seed: int = 0
    mutation_std: float = 0.0
    mutation_fraction: float = 1.0
    mutation_seed: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.n_generations < 1:
            raise StageError(f"--num-generations must be at least 1, not {self.n_generations}")
        if self.keep_top_k is not None and self.keep_top_k < 1:
            raise StageError(f"--keep-top-k must be at least 1, not {self.keep_top_k}")
        try:
            self.mutation()
        except ValueError as error:
            raise StageError(f"--mutation-std, --mutation-fraction: {error}") from error

    def mutation(self) -> GaussianMutation:
        """Return the mutation."""
        return GaussianMutation(self.mutation_std, self.mutation_fraction)

    def settings(self, search: Search) -> dict[str, Any]:
        """Return what the parents of each generation depend on, for the folder to keep.

        The settings of the first generation, in its own folder, have the rest.
        """
        how = asdict(self)
        n_generations = how.pop("n_generations")
        return {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "parents": {"parent_a": search.parent_a.sha256, "parent_b": search.parent_b.sha256},
            **how,
            "primary_metric": search.primary_metric,
            "children": [trial.child_id for trial in search.space.trials()],
            "generations": [f"gen_{number}" for number in range(n_generations)],
        }
