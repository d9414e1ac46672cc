"""The files of one child of a search, and whether they are still those that are asked for."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.errors import StageError, TeacherError
from engine.learning.checkpoints import load_genome_file, load_network
from engine.stages.networks import Network
from engine.stages.reports.files import plain, write_json
from engine.stages.roles import Role, save_role, sidecar
from engine.stages.search.child import ChildResult, Judging, Reference
from engine.stages.search.settings import (
    FORMAT,
    SCHEMA_VERSION,
    judging_settings,
    read_json,
    trial_settings,
    versions_for,
)
from engine.stages.search.space import Trial
from engine.stages.state_sets import STATES_FILE, SYNTHETIC, StateSet
from engine.stages.states import EvaluationStates
from populations.population import LARGEST_RETURN
from populations.regular_files import is_regular, sha256_of

CHILD, INT8_CHILD = "child.pt", "child_int8.pt"
REPORT, CONFIG = "eval_report.json", "run_config.json"
FILES = (CHILD, f"{CHILD}.json", REPORT, INT8_CHILD, f"{INT8_CHILD}.json")
PARENTS = ("parent_a", "parent_b")
"""Names of the parents in every file of a search."""


@dataclass(frozen=True, eq=False)
class ChildFiles:
    """Writes the children of a search, and finds those that were written before.

    Attributes:
        run_dir: Folder of the search; each child has one in it.
        parents: Parent A and parent B, both with a file.
        states: What children are fine-tuned on.
        judged_on: What they are judged on.
        reference: Whom they imitate.
        dropout: Share of hidden units dropped while they train.
        judging: How they are judged.
    """

    run_dir: Path
    parents: tuple[Role, Role]
    states: StateSet
    judged_on: EvaluationStates
    reference: Reference
    dropout: float
    judging: Judging

    @cached_property
    def _records(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is recorded of the states, hashed once."""
        return self.states.record(), self.judged_on.record()

    def config(self, trial: Trial) -> dict[str, Any]:
        """Return all that a child depends on, as JSON values; paths are relative to its folder."""
        directory = self.run_dir / trial.child_id
        config = plain(
            {
                "format": FORMAT,
                "schema_version": SCHEMA_VERSION,
                **trial_settings(trial, self.reference, self.dropout),
                "parents": {
                    name: role.source(directory)
                    for name, role in zip(PARENTS, self.parents, strict=True)
                },
                "states": self._records[0],
                "evaluation": {
                    "states": self._records[1],
                    **judging_settings(self.judging),
                },
                "versions": versions_for(self.judging),
            }
        )
        assert isinstance(config, dict)
        return config

    def save(self, trial: Trial, result: ChildResult) -> ChildResult:
        """Write a child, its run configuration last: a child without it counts as not made.

        Returns:
            The result, its report completed with paths and states.
        """
        assert result.network is not None, "only a child that there is can be saved"
        directory = self.run_dir / trial.child_id
        directory.mkdir(parents=True, exist_ok=True)
        (directory / CONFIG).unlink(missing_ok=True)
        config = self.config(trial)
        described = {
            "sources": config["parents"],
            "states": config["states"],
            "environment": self.judging.environment,
            "seed": trial.regime.seed,
            "config": {"crossover": config["crossover"], "finetune": config["finetune"]},
            "metrics": result.metrics,
        }
        description = sidecar("child", result.network.spec, self.dropout, **described)
        save_role(directory / CHILD, result.network, description)
        files = [CHILD, f"{CHILD}.json", REPORT]
        if result.genome is not None:
            save_role(directory / INT8_CHILD, result.genome, description)
            files += [INT8_CHILD, f"{INT8_CHILD}.json"]
        self._keep_states(directory)
        result.report["model_paths"] = {
            **{name: source["path"] for name, source in config["parents"].items()},
            "child": CHILD if result.genome is None else INT8_CHILD,
        }
        result.report["model_formats"] = {
            **{name: role.format for name, role in zip(PARENTS, self.parents, strict=True)},
            "child": "float32" if result.genome is None else "int8",
        }
        result.report["states"] = {**result.report["states"], **self._records[1]}
        write_json(directory / REPORT, result.report)
        digests = {name: sha256_of(directory / name) for name in files}
        write_json(
            directory / CONFIG, {**config, "finetune_metrics": result.metrics, "files": digests}
        )
        return result

    def saved(self, trial: Trial) -> ChildResult | None:
        """Return a child that was made before just as it would be now; None where there is none."""
        directory = self.run_dir / trial.child_id
        found = read_json(directory / CONFIG)
        if not found:
            return None
        expected = self.config(trial)
        if {name: found.get(name) for name in expected} != expected:
            return None
        digests = found.get("files")
        if not isinstance(digests, dict) or not {CHILD, REPORT} <= set(digests) <= set(FILES):
            return None
        for name, digest in digests.items():
            if not is_regular(directory / name) or sha256_of(directory / name) != digest:
                return None
        try:
            network = Network(*load_network(directory / CHILD))
            genome = load_genome_file(directory / INT8_CHILD) if trial.regime.is_quantized else None
        except TeacherError:
            return None
        report = read_json(directory / REPORT)
        if not _is_report(report, self.judging):
            return None
        return ChildResult(
            trial.index,
            network=network,
            genome=genome,
            metrics=found.get("finetune_metrics", {}),
            report=report,
        )

    def _keep_states(self, directory: Path) -> None:
        """Put the states beside the child, where validators look for them.

        Synthetic ones they draw again from their seed.
        """
        if self.states.source == SYNTHETIC:
            return
        target = directory / STATES_FILE
        target.unlink(missing_ok=True)
        try:
            os.link(self.run_dir / STATES_FILE, target)
        except OSError:  # the file system knows no hard links
            shutil.copyfile(self.run_dir / STATES_FILE, target)


def _is_report(report: dict[str, Any], judging: Judging) -> bool:
    """Tell whether a report has what rows are made of; anybody can change it and its hash."""
    returns = report.get("returns")
    if not isinstance(returns, dict) or not isinstance(report.get("reason"), str | None):
        return False
    values = returns.get("values")
    if judging.environment is None or values is None:
        return judging.environment is None and values is None
    return (
        isinstance(values, list)
        and len(values) == judging.episodes
        and all(type(v) in (int, float) and abs(v) <= LARGEST_RETURN for v in values)
    )


def read_config(path: Path) -> dict[str, Any]:
    """Read a ``run_config.json``.

    Raises:
        StageError: It is missing, damaged, or of something else.
    """
    config = read_json(path)
    if (config.get("format"), config.get("schema_version")) != (FORMAT, SCHEMA_VERSION):
        raise StageError(
            f"{path}: expected the run_config.json of a child of a crossover search, as this "
            "version writes it; it is missing, damaged, or of something else"
        )
    return config
