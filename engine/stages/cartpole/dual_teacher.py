"""The canonical run: two teachers, two students, int8, one child, all of it on CartPole.

It only puts together what the other stages are made of. The stages are those of AgentFarm's script
``run_dual_teacher_cartpole``: parents, distillation, quantization, crossover, fine-tuning towards
both parents, validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.stages.cartpole.limits import ChildLimits, StudentLimits
from engine.stages.cartpole.pair_states import check_states_file, states_of_parents
from engine.stages.cartpole.parent_pair import PairChoice, Parent, find_parents
from engine.stages.cartpole.parent_settings import ENVIRONMENT, LABELS
from engine.stages.cartpole.tuning import CHILD, COPY, RANDOM, Tuned, Tuning, dual_metrics, tune
from engine.stages.distillation.students import Student, distill
from engine.stages.imitation.config import ImitationConfig
from engine.stages.networks import STUDENT_DROPOUT, Network, initial_weights
from engine.stages.quantization.ptq import PtqConfig, Quantized, quantize_role
from engine.stages.recombination.crossover import cross
from engine.stages.recombination.finetuning_config import FineTuningConfig
from engine.stages.recombination.finetuning_run import INT8 as CHILD_INT8
from engine.stages.recombination.finetuning_run import TUNED, Crossover, Family, finetune_child
from engine.stages.roles import Role, load_role
from engine.stages.state_sets import STATES_FILE, StateSet, choose
from engine.stages.stopwatch import Stopwatch
from engine.stages.validation.fidelity import compare

N_STAGES = 6
RAW = "child_crossover.pt"
REPORT = "pipeline_report.json"
ARTIFACTS = (
    "student_A.pt",
    "student_B.pt",
    "student_A_int8.pt",
    "student_B_int8.pt",
    RAW,
    TUNED,
    CHILD_INT8,
    STATES_FILE,
)
"""Names of the files that every run writes, besides reports."""

GOOD_INT8 = 0.9
"""Below this agreement with the float network, quantization-aware training may be worth it."""

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class DualTeacherSettings:
    """Everything that a run depends on.

    Attributes:
        parents: Which parents, and how they are trained.
        n_states: States to train on, where no file is given.
        states_seed: Puts them in order.
        states_file: States to take instead of those that the parents saw.
        distillation: How students learn.
        crossover: How the int8 students are crossed.
        finetuning: How the child learns.
        weight_a: Share of parent A in its loss.
        n_variants: Ways to fine-tune that are tried; see :mod:`engine.stages.cartpole.tuning`.
        selection_episodes: Episodes that choose between them.
        student_limits: What students must keep of their teachers.
        child_limits: What the child must keep of the parents.
        min_return_share: What the child must return, as a share of the better parent.
        episodes: Held-out episodes that every network plays.
        report_only: Whether limits that are missed leave ``passed`` true, as documented.
        flags: The command line, for the report.
    """

    parents: PairChoice = field(default_factory=PairChoice)
    n_states: int = 2000
    states_seed: int = 42
    states_file: Path | None = None
    distillation: ImitationConfig = field(
        default_factory=lambda: ImitationConfig(epochs=15, batch_size=64)
    )
    crossover: Crossover = field(default_factory=Crossover)
    finetuning: FineTuningConfig = field(
        default_factory=lambda: FineTuningConfig(
            learning_rate=5e-4, epochs=10, batch_size=64, seed=0, max_grad_norm=None
        )
    )
    weight_a: float = 0.5
    n_variants: int = 6
    selection_episodes: int = 64
    student_limits: StudentLimits = field(default_factory=StudentLimits)
    child_limits: ChildLimits = field(default_factory=ChildLimits)
    min_return_share: float = 0.99
    episodes: int = 100
    report_only: bool = False
    flags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class DualTeacherNetworks:
    """What a run made, before it is judged.

    Attributes:
        parents: By label.
        states: What everything was trained on, and what was held out.
        students: By label.
        quantized: The int8 students by label.
        raw: The child as crossover made it.
        child: The fine-tuned child.
        child_int8: The same in int8.
        tuned: How the child (``child``) and the controls were fine-tuned, by name.
        tuning: How fine-tuning was set.
    """

    parents: dict[str, Parent]
    states: StateSet
    students: dict[str, Student]
    quantized: dict[str, Quantized]
    raw: Role
    child: Role
    child_int8: Quantized
    tuned: dict[str, Tuned]
    tuning: Tuning

    @property
    def roles(self) -> dict[str, Role]:
        """The networks that have a file, by their names in the report."""
        named: dict[str, Role] = {}
        for label in LABELS:
            named[f"parent_{label}"] = self.parents[label].role
        for label in LABELS:
            named[f"student_{label}"] = self.students[label].role
            named[f"student_{label}_int8"] = self.quantized[label].role
        return named | {
            "child_crossover": self.raw,
            "child": self.child,
            "child_int8": self.child_int8.role,
        }

    @property
    def players(self) -> dict[str, Network]:
        """The networks whose returns are reported: all of those, and the controls."""
        controls = {name: self.tuned[name].outcome.network for name in (COPY, RANDOM)}
        return {name: role.network for name, role in self.roles.items()} | controls

    def finetuning_record(self) -> dict[str, Any]:
        """Return what the report tells of fine-tuning, under AgentFarm's names and some more."""
        tuned, heldout = self.tuned[CHILD], self.states.heldout
        metrics = tuned.outcome.metrics()
        return {
            "epochs": self.tuning.config.epochs,
            "temperature": self.tuning.config.temperature,
            "alpha_a": self.tuning.weight_a,
            "alpha_b": 1 - self.tuning.weight_a,
            "before": dual_metrics(tuned.outcome.child.start, self.tuning, heldout),
            "after": dual_metrics(tuned.outcome.network, self.tuning, heldout),
            "best_val_dual_loss": metrics["best_val_loss"],
            "training": metrics,
            "variant": asdict(tuned.variant),
            "variants": tuned.tried,
            "controls": {name: self.tuned[name].tried for name in (COPY, RANDOM)},
        }


def make_networks(
    directory: Path, settings: DualTeacherSettings, watch: Stopwatch, tell: Tell
) -> DualTeacherNetworks:
    """Carry out stages 1 to 5 and write every network.

    Args:
        directory: The folder of the run.
        settings: Everything that the run depends on.
        watch: Is told when a stage begins.
        tell: Is told, in single lines, how things go.

    Raises:
        StageError: A parent, the states or a file cannot be used.
        TeacherError: The file of a parent is missing, damaged, unsafe, or holds no network.
    """
    _begin(1, "parents", watch, tell)
    check_states_file(settings.states_file)
    parents = find_parents(directory, settings.parents, ARTIFACTS, tell)
    seed = settings.states_seed
    states = states_of_parents(parents, settings.n_states, seed, settings.states_file, tell)
    _begin(2, "distill", watch, tell)
    teachers = {label: parent.role for label, parent in parents.items()}
    students = distill(directory, teachers, states, settings.distillation, ENVIRONMENT)
    for label, student in students.items():
        tell(f"student {label}: acts as parent {label} in {_share(student.heldout)}")
    _begin(3, "quantize", watch, tell)
    ptq, n_heldout = PtqConfig(seed=seed), len(states.heldout)
    quantized = {
        label: quantize_role(student.role, directory, ptq, n_heldout)
        for label, student in students.items()
    }
    for label, made in quantized.items():
        _tell_quantized(f"student {label} as int8", made, tell)
    _begin(4, "crossover", watch, tell)
    a, b = (quantized[label].role for label in LABELS)
    names = (f"student A ({a.path})", f"student B ({b.path})")
    crossed = cross(
        a.network, b.network, **asdict(settings.crossover), states=states.train, names=names
    )
    raw = Network(a.network.spec, crossed)
    tell(_child_line("raw child", raw, teachers, states))
    _begin(5, "fine-tune towards both parents", watch, tell)
    tuning = Tuning(
        (teachers["A"].network, teachers["B"].network),
        settings.finetuning,
        settings.weight_a,
        settings.n_variants,
        settings.selection_episodes,
        settings.finetuning.resolved_seed,
        STUDENT_DROPOUT,
        choose(states.train, ptq.n_calibration, seed),
    )
    random = initial_weights(raw.spec, settings.finetuning.resolved_seed)
    starts = {CHILD: raw, COPY: a.network, RANDOM: Network(raw.spec, random)}
    tuned = tune(starts, tuning, states.train)
    kept = tuned[CHILD].outcome.child
    # Trained once more to be written as the fine-tuning stage writes it; the same bytes come out.
    finetune_child(
        directory,
        Family(a, b, (teachers["A"], teachers["B"]), kept.shares, ENVIRONMENT),
        settings.crossover,
        kept.config,
        states,
        RAW,
    )
    child = load_role("child_finetuned", directory / TUNED)
    variant, n_tried = tuned[CHILD].variant, len(tuned[CHILD].tried)
    tell(
        f"kept of {n_tried} variant{'s'[: n_tried > 1]}: temperature {variant.temperature:g}, "
        f"share of parent A {variant.weight_a:g}"
    )
    tell(_child_line("child", child.network, teachers, states))
    child_int8 = quantize_role(child, directory, ptq, n_heldout)
    _tell_quantized("child as int8", child_int8, tell)
    return DualTeacherNetworks(
        parents=parents,
        states=states,
        students=students,
        quantized=quantized,
        raw=load_role("child_crossover", directory / RAW),
        child=child,
        child_int8=child_int8,
        tuned=tuned,
        tuning=tuning,
    )


def _begin(number: int, name: str, watch: Stopwatch, tell: Tell) -> None:
    watch.begin(name)
    tell(f"stage {number} of {N_STAGES}: {name}")


def _share(comparison: Mapping[str, Any]) -> str:
    return f"{comparison['action_agreement']:.1%} of held-out states"


def _child_line(name: str, child: Network, teachers: Mapping[str, Role], states: StateSet) -> str:
    """Return in words how often a child does what each parent does."""
    values = child.q_values(states.heldout)
    shares = (
        f"{compare(teacher.network.q_values(states.heldout), values)['action_agreement']:.1%}"
        for teacher in teachers.values()
    )
    return f"{name}: acts as parents A and B in {' and '.join(shares)} of held-out states"


def _tell_quantized(name: str, made: Quantized, tell: Tell) -> None:
    comparison = made.report["comparison"]
    tell(f"{name}: acts as in float in {_share(comparison)}")
    if comparison["action_agreement"] < GOOD_INT8:
        tell(f"note: that is below {GOOD_INT8:.0%}; 'cultivar qat' may keep more")
