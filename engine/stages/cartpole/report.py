"""The canonical run as a whole: its networks, their validation and returns, and its reports."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.stages.cartpole.child_report import child_report
from engine.stages.cartpole.dual_teacher import (
    REPORT,
    DualTeacherNetworks,
    DualTeacherSettings,
    Tell,
    make_networks,
)
from engine.stages.cartpole.findings import crossing, warnings
from engine.stages.cartpole.limits import StudentLimits
from engine.stages.cartpole.parent_settings import ENVIRONMENT, LABELS
from engine.stages.cartpole.run_config import config_record
from engine.stages.cartpole.tuning import scaled_kl
from engine.stages.distillation.pair_validation import Episodes, Evaluation, Pair, validate_pair
from engine.stages.recombination.family_validation import Found, write_validation
from engine.stages.reports.files import write_json
from engine.stages.roles import DISTRIBUTIONS
from engine.stages.stopwatch import Stopwatch
from engine.stages.validation.returns import play_roles
from engine.stages.validation.role_checks import all_q_values, unusable
from engine.stages.validation.verdicts import verdict_on
from engine.versions import versions

PARENTS = ("parent_A", "parent_B")


@dataclass(frozen=True, eq=False)
class DualTeacherRun:
    """What came out of a run.

    Attributes:
        report: What ``pipeline_report.json`` holds.
        path: Where it is.
    """

    report: dict[str, Any]
    path: Path

    @property
    def passed(self) -> bool:
        """Whether every limit is kept, or none was to decide."""
        return bool(self.report["passed"])

    @property
    def returns(self) -> dict[str, Any]:
        """Summary of the returns of every network, by its name."""
        return dict(self.report["returns"]["roles"])


def run_dual_teacher(directory: Path, settings: DualTeacherSettings, tell: Tell) -> DualTeacherRun:
    """Carry out the canonical run and write all of its files.

    Equal settings write equal bytes, but for the timing fields of reports (``*_ms``, ``*_s``,
    ``latency_ratio``, ``elapsed_seconds``, ``timestamp``).

    Args:
        directory: The folder of the run, which is made if need be.
        settings: Everything that it depends on.
        tell: Is told, in single lines, how things go.

    Raises:
        StageError: A parent, the states or a file cannot be used.
        TeacherError: The file of a parent is missing, damaged, unsafe, or holds no network.
    """
    watch = Stopwatch()
    made = make_networks(directory, settings, watch, tell)
    watch.begin("validate")
    tell("stage 6 of 6: validate and play")
    returns = play_roles(made.players, ENVIRONMENT, settings.episodes, ensemble=PARENTS)
    students = {label: _student_report(made, label, settings) for label in LABELS}
    found = Found(made.parents["A"].role, made.parents["B"].role, made.child)
    limits, seed = settings.child_limits, settings.states_seed
    child = child_report(found, made.states.heldout, seed, limits, returns)
    for label, report in students.items():
        write_json(directory / f"distillation_report_{label}.json", report)
    write_validation(directory, child)
    report = _pipeline_report(directory, made, settings, returns, students, child)
    report["timing"] = watch.record()
    write_json(directory / REPORT, report)
    return DualTeacherRun(report, directory / REPORT)


def _student_report(
    made: DualTeacherNetworks, label: str, settings: DualTeacherSettings
) -> dict[str, Any]:
    """Return the report of a student, with the limits of this run instead of the validator's."""
    teacher, student = made.parents[label].role, made.students[label].role
    evaluation = Evaluation(len(made.states.heldout), settings.states_seed)
    report = validate_pair(Pair(label, teacher, student), evaluation, Episodes(number=0))
    roles = {"teacher": teacher.network, "student": student.network}
    values = all_q_values(roles, made.states.heldout)
    temperature = settings.distillation.temperature
    divergence = scaled_kl(values["teacher"], values["student"], temperature)
    limits: StudentLimits = settings.student_limits
    checks = limits.checks({**report, "kl_at_distillation_temperature": divergence})
    verdict = verdict_on(checks, unusable(roles, values))
    del report["returns"], report["rollout"], report["batch_validation_passed"]
    return {
        **report,
        "parent_checkpoint": str(teacher.path),
        "student_checkpoint": str(student.path),
        "n_states": len(made.states.heldout),
        "cosine_similarity": report["mean_cosine_similarity"],
        "kl_at_distillation_temperature": divergence,
        "distillation_temperature": temperature,
        "thresholds": limits.to_dict(),
        **verdict,
    }


def _pipeline_report(
    directory: Path,
    made: DualTeacherNetworks,
    settings: DualTeacherSettings,
    returns: Mapping[str, Any],
    students: Mapping[str, Mapping[str, Any]],
    child: Mapping[str, Any],
) -> dict[str, Any]:
    distillation_passed = all(report["passed"] for report in students.values())
    recombination_passed = bool(child["passed"])
    share = _share(returns, "child")
    returns_passed = share is not None and share >= settings.min_return_share
    judged = [(f"student {label}", students[label]) for label in LABELS] + [("child", child)]
    failed = [f"{name}: {verdict['reason']}" for name, verdict in judged if not verdict["passed"]]
    if not returns_passed:
        failed.append(
            f"child: its share of the better parent's return is "
            f"{'unknown' if share is None else f'{share:.3f}'}, below {settings.min_return_share:g}"
        )
    checks_passed = not failed
    return {
        "pipeline": "dual_teacher_cartpole",
        "issue": "Dooders/AgentFarm#8",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(*DISTRIBUTIONS),
        "config": config_record(settings.flags, settings.parents, made.parents, made.roles),
        "artifacts": _artifacts(directory, made),
        "states": made.states.record(),
        "stages": {
            "parents": {label: parent.record() for label, parent in made.parents.items()},
            **{f"distillation_{label}": _distillation(made, label) for label in LABELS},
            **{f"quantization_{label}": made.quantized[label].report for label in LABELS},
            "quantization_child": made.child_int8.report,
            "finetune_dual_teacher": made.finetuning_record(),
            **{f"distillation_validation_{label}": students[label] for label in LABELS},
            "recombination_validation": {
                name: value for name, value in child.items() if name != "returns"
            },
        },
        "returns": returns,
        "crossing": crossing(returns),
        "warnings": warnings(made.players, made.states.heldout, returns),
        "child_return_share": share,
        "child_int8_return_share": _share(returns, "child_int8"),
        "distillation_passed": distillation_passed,
        "recombination_passed": recombination_passed,
        "returns_passed": returns_passed,
        "min_return_share": settings.min_return_share,
        "checks_passed": checks_passed,
        "reason": "; ".join(failed) or None,
        "passed": checks_passed or settings.report_only,
    }


def _artifacts(directory: Path, made: DualTeacherNetworks) -> dict[str, str]:
    """Return the paths of all files, from the working folder like all paths in reports."""
    paths = {name: role.path for name, role in made.roles.items() if role.path is not None}
    for label in LABELS:
        paths[f"distillation_report_{label}"] = directory / f"distillation_report_{label}.json"
        paths[f"quantization_report_{label}"] = directory / f"quantization_report_{label}.json"
    paths["quantization_report_child"] = directory / "quantization_report_finetuned.json"
    paths["recombination_validation"] = directory / "recombination_validation.json"
    return {name: str(path) for name, path in paths.items()}


def _distillation(made: DualTeacherNetworks, label: str) -> dict[str, Any]:
    student = made.students[label]
    return {
        "pair": label,
        "checkpoint": str(student.role.path),
        **student.outcome.metrics(),
        "heldout": student.heldout,
    }


def _share(returns: Mapping[str, Any], name: str) -> float | None:
    """Return the mean return of a network as a share of the better parent's."""
    means = {role: returns["roles"][role]["mean"] for role in (name, *PARENTS)}
    if any(mean is None for mean in means.values()):
        return None
    better = max(means[parent] for parent in PARENTS)
    return float(means[name] / better) if better > 0 else None
