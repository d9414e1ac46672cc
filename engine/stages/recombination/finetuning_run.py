"""The fine-tuning stage as a whole: cross two parents, fine-tune the child, write both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import StageError
from engine.stages.imitation.config import DEFAULT_SEED
from engine.stages.kept_states import check_no_rows_are_lost
from engine.stages.networks import TEACHER_DROPOUT, Network
from engine.stages.quantization.int8_file import check_int8_file
from engine.stages.quantization.onnx_graph import require_onnx
from engine.stages.quantization.static import OnnxNetwork, StaticModel, quantize_static
from engine.stages.recombination.crossover import cross
from engine.stages.recombination.finetuning import (
    REFERENCES,
    Child,
    FineTuned,
    compare_with_references,
    fine_tune,
)
from engine.stages.recombination.finetuning_config import FineTuningConfig
from engine.stages.roles import Role, save_role, sidecar
from engine.stages.state_sets import StateSet, save_state_set
from engine.stages.states import evaluation_states
from engine.stages.validation.fidelity import compare
from engine.stages.validation.role_checks import check_roles, non_finite_tensor
from populations.plans import Align
from populations.regular_files import sha256_of
from populations.storage import write_atomically

RAW, TUNED, INT8 = "child.pt", "child_finetuned.pt", "child_finetuned_int8.pt"
STATIC = "child_finetuned_int8.onnx"
CALIBRATION_STATES = 640
"""States that set the ranges of int8 activations; AgentFarm's 10 batches of 64."""


@dataclass(frozen=True)
class Crossover:
    """How a child is made of its parents; as in :mod:`engine.stages.recombination.crossover`."""

    mode: str = "weighted"
    alpha: float = 0.5
    seed: int = DEFAULT_SEED
    align: Align = "none"


@dataclass(frozen=True, eq=False)
class Family:
    """The networks that a child comes from.

    Attributes:
        parent_a: The first parent.
        parent_b: The second parent, of the same architecture.
        references: Whom the child imitates, one or two networks; by default parent A.
        shares: Share of each in the loss, not negative.
        environment: What the child plays, None where that is not known.
    """

    parent_a: Role
    parent_b: Role
    references: tuple[Role, ...] = ()
    shares: tuple[float, ...] = (1.0,)
    environment: str | None = None

    @property
    def imitated(self) -> tuple[Role, ...]:
        """The references, with the default filled in."""
        return self.references or (self.parent_a,)

    @property
    def sources(self) -> dict[str, Role]:
        """All networks by the names that they have in sidecars."""
        named = dict(zip(REFERENCES, self.imitated, strict=False))
        return {"parent_a": self.parent_a, "parent_b": self.parent_b, **named}

    @property
    def dropout(self) -> float:
        """Share of hidden units dropped while the child trains: that of parent A."""
        architecture = self.parent_a.sidecar.get("architecture", {})
        return float(architecture.get("dropout", TEACHER_DROPOUT))


@dataclass(frozen=True)
class FineTunedChild:
    """What the stage made.

    Attributes:
        tuned: The child before and after.
        metrics: What its sidecar says of it.
        files: What was written, by ``child``, ``finetuned`` and, where exported, ``int8`` and
            ``static``.
    """

    tuned: FineTuned
    metrics: dict[str, Any]
    files: dict[str, Path] = field(default_factory=dict)


def finetune_child(
    directory: Path,
    family: Family,
    crossover: Crossover,
    config: FineTuningConfig,
    states: StateSet,
    raw_name: str = RAW,
    tell: Callable[[str], None] = lambda _: None,
) -> FineTunedChild:
    """Cross two parents, fine-tune their child, and write it before and after.

    Args:
        directory: Gets the raw child, ``child_finetuned.pt``, their sidecars, and ``states.npz``.
            Where the config asks for it, also ``child_finetuned_int8.pt``, and for ``ptq_static``
            ``child_finetuned_int8.onnx``, whose activations are int8, too.
        family: Where the child comes from.
        crossover: How it is crossed.
        config: How it learns.
        states: What it trains on, and what it is judged on.
        raw_name: File name of the raw child.
        tell: Is told, in single lines, how things go.

    Raises:
        StageError: The parents or references do not fit each other, hold NaN, or would be
            overwritten; a package for ``ptq_static`` is missing; or a file cannot be written.
    """
    _check(directory, family, raw_name, states)
    if config.quantization_applied == "ptq_static":
        require_onnx()
    parents = (family.parent_a, family.parent_b)
    names = (f"parent A ({parents[0].path})", f"parent B ({parents[1].path})")
    weights = cross(
        parents[0].network,
        parents[1].network,
        **asdict(crossover),
        states=states.train,
        names=names,
    )
    raw = Network(parents[0].network.spec, weights)
    tell(f"crossed {names[0]} with {names[1]}")
    references = tuple(role.network for role in family.imitated)
    child = Child(raw, references, config, family.shares, family.dropout)
    [tuned] = fine_tune([child], states.train)
    directory.mkdir(parents=True, exist_ok=True)
    save_state_set(directory, states)
    return _write(directory, family, crossover, states, tuned, raw_name)


def _check(directory: Path, family: Family, raw_name: str, states: StateSet) -> None:
    """Refuse networks that cannot be used, and a directory that must not be written to."""
    roles = {f"{role.name} ({role.path})": role for role in family.sources.values()}
    check_roles({name: role.network for name, role in roles.items()}, states.train[:1])
    written = {(directory / name).resolve() for name in (raw_name, TUNED, INT8)}
    for name, role in roles.items():
        tensor = non_finite_tensor(role.network)
        if tensor is not None:
            raise StageError(f"{name}: {tensor} holds NaN or infinity; train it again")
        if role.path is None:
            continue
        if role.path.resolve() in written:
            raise StageError(f"{name} would be overwritten; choose another --output-dir")
    check_no_rows_are_lost(directory, states, roles.values())


def _write(
    directory: Path,
    family: Family,
    crossover: Crossover,
    states: StateSet,
    tuned: FineTuned,
    raw_name: str,
) -> FineTunedChild:
    spec, dropout = tuned.network.spec, tuned.child.dropout
    config = tuned.child.config
    sources = {name: role.source(directory) for name, role in family.sources.items()}
    common: dict[str, Any] = {
        "environment": family.environment,
        "crossover": asdict(crossover),
        "allow_unsafe_unpickle": any(role.unsafe for role in family.sources.values()),
    }
    parents = {name: sources[name] for name in ("parent_a", "parent_b")}
    paths = {"child": directory / raw_name, "finetuned": directory / TUNED}
    about = sidecar("child", spec, dropout, sources=parents, seed=crossover.seed, **common)
    save_role(paths["child"], tuned.child.start, about)
    common |= {
        "states": states.record(),
        "seed": config.resolved_seed,
        "shares": list(family.shares),
        "config": tuned.config_record,
    }
    sources["child"] = _source(paths["child"], directory)
    about = sidecar("child", spec, dropout, sources=sources, **common)
    static = None
    if config.quantization_applied == "ptq_static":
        static = quantize_static(tuned.genome, states.train[:CALIBRATION_STATES])
    heldout = _heldout(directory, tuned, about, static)
    about["metrics"] = {**tuned.metrics(), "heldout": heldout}
    save_role(paths["finetuned"], tuned.network, about)
    if config.exports_int8:
        paths["int8"] = directory / INT8
        sources = {**sources, "float": _source(paths["finetuned"], directory)}
        save_role(paths["int8"], tuned.genome, {**about, "sources": sources})
        check_int8_file(paths["int8"], tuned.genome)
    if static is not None:
        paths["static"] = directory / STATIC
        write_atomically(paths["static"], static.content)
    return FineTunedChild(tuned, about["metrics"], paths)


def _source(path: Path, directory: Path) -> dict[str, str | None]:
    return {"path": path.relative_to(directory).as_posix(), "sha256": sha256_of(path)}


def _heldout(
    directory: Path, tuned: FineTuned, about: dict[str, Any], static: StaticModel | None
) -> dict[str, Any]:
    """Return how the child does on states that neither it nor its ancestors were trained on."""
    role = Role("child", directory / TUNED, tuned.network, sidecar=about)
    try:
        judged_on = evaluation_states([role], None, tuned.network.spec.n_inputs, None)
    except StageError as error:
        return {"states": None, "reason": str(error)}
    states = judged_on.states
    comparisons = compare_with_references(tuned, states)
    if static is not None:
        values = OnnxNetwork(tuned.network.spec, static.content).q_values(states)
        for name, reference in zip(REFERENCES, tuned.child.references, strict=False):
            comparisons[name]["static"] = compare(reference.q_values(states), values)
    return {"states": judged_on.record(), **comparisons}
