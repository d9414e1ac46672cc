"""Mean held-out returns of networks, by their content: what played once never plays again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.breeding import Context
from engine.playing.evaluation import evaluate
from engine.playing.policies import EnsemblePolicy, StackedPolicy
from populations.genome import Genome
from populations.tensor_file import write_atomically

BATCH = 32
"""Networks that play side by side; changes no figure, only time and memory."""


class Scores:
    """Plays networks, and keeps in a file what they returned.

    A genome's id is a hash of its tensors, so a file stays true whatever becomes of the operators:
    a child that comes out otherwise has another id.

    Args:
        context: Task and held-out episodes.
        folder: Folder of the job.
    """

    def __init__(self, context: Context, folder: Path) -> None:
        self._context = context
        self._seeds = context.seeds("holdout", 0)
        self._file = folder / f"returns-{len(self._seeds)}.csv"
        self._means: dict[str, float] = {}
        if self._file.is_file():
            lines = self._file.read_text().splitlines()
            self._means = {name: float(mean) for name, mean in (line.split(",") for line in lines)}

    def __getitem__(self, name: str) -> float:
        """Return the mean return of what has played."""
        return self._means[name]

    def play(self, genomes: Mapping[str, Genome]) -> None:
        """Let all genomes play that have not done so."""
        missing = [name for name in genomes if name not in self._means]
        for start in range(0, len(missing), BATCH):
            names = missing[start : start + BATCH]
            weights = [genomes[name].to_weights() for name in names]
            policy = StackedPolicy(self._context.spec, weights)
            played = evaluate(self._context.environment, policy, self._seeds)
            self._keep(dict(zip(names, played.returns.mean(axis=1).tolist(), strict=True)))

    def play_together(self, name: str, policy: EnsemblePolicy) -> float:
        """Return the mean return of an ensemble, which is called ``name`` in the file."""
        if name not in self._means:
            played = evaluate(self._context.environment, policy, self._seeds)
            self._keep({name: float(played.returns.mean())})
        return self._means[name]

    def _keep(self, means: Mapping[str, float]) -> None:
        self._means.update(means)
        text = "".join(f"{name},{mean!r}\n" for name, mean in self._means.items())
        write_atomically(self._file, text.encode())
