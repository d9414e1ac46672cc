"""Every setting of a run: its default, its range, and what it means.

A preset in ``configs/`` holds only what differs from these defaults. Reading and writing files is
in ``engine/config_file.py``.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from engine.config_base import Count, CountOrZero, Positive, PositiveOrZero, Section, Share
from engine.config_evolution import (
    BanditConfig,
    EvolutionConfig,
    MutationConfig,
    RecipeConfig,
    SelectionConfig,
    each,
)
from engine.config_training import (
    DistillationConfig,
    FineTuneConfig,
    FineTunePreset,
    ImitationConfig,
    LearningConfig,
)
from populations.genome import VectorDtype
from populations.network import Norm
from strategies.registry import suggestion

__all__ = [
    # a run and its sections
    "RunConfig",
    "EnvironmentConfig",
    "TeachersConfig",
    "TeacherTrainingConfig",
    "StatesConfig",
    "NetworkConfig",
    "LearningConfig",
    "DistillationConfig",
    "FineTuneConfig",
    "EvolutionConfig",
    "EvaluationConfig",
    "DispatchConfig",
    # parts of sections
    "BanditConfig",
    "FineTunePreset",
    "ImitationConfig",
    "MutationConfig",
    "RecipeConfig",
    "SelectionConfig",
    "Section",
]

DEFAULT_PRESET = "default"
"""Name that stands for ``finetune`` itself where a recipe names a preset of it."""
NOT_IDENTITY = ("name", "dispatch")
"""Settings that the outcome of a run does not depend on."""


class EnvironmentConfig(Section):
    """The task that the networks play."""

    id: str = "CartPole-v1"
    """Gymnasium id of an environment with a Box observation and Discrete actions."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for ``gymnasium.make``."""
    lanes: Count = 32
    """Episodes that one genome plays side by side; a finished lane takes the next episode."""


class TeacherTrainingConfig(Section):
    """How teachers are trained when no files are given: PQN, all of them in one stacked network."""

    steps: Annotated[tuple[Count, ...], Field(min_length=1)] = (150_000, 16_000, 6_200, 3_100)
    """Environment steps of each teacher: one teacher per entry, a shorter one is a weaker one."""
    lanes: Count = 32
    """Environments that each teacher plays side by side."""
    rollout: Count = 32
    """Steps per lane between two updates."""
    epochs: Count = 3
    """Passes over a rollout."""
    minibatches: Count = 8
    """Gradient steps per pass."""
    learning_rate: Positive = 1e-3
    """Learning rate of RAdam at the start; it falls linearly to zero over the longest budget."""
    reward_scale: Positive = 0.1
    """Factor on rewards while learning, so that values are a few units; undone in the weights."""
    gamma: Share = 0.99
    """Discount of the teachers; fitness itself is never discounted."""
    trace_decay: Share = 0.9
    """Lambda of the lambda-returns."""
    epsilon_start: Share = 1.0
    """Exploration at the first step."""
    epsilon_end: Share = 0.05
    """Exploration once ``exploration_fraction`` of the longest budget is spent."""
    exploration_fraction: Share = 0.3
    """Share of the longest budget over which epsilon falls linearly."""
    max_grad_norm: Positive = 10.0
    """Gradient norm of one teacher at which its gradient is clipped."""
    checkpoints: Count = 8
    """Greedy evaluations per teacher; the best checkpoint within its budget is kept."""
    checkpoint_episodes: Count = 16
    """Episodes of such an evaluation, on seeds that nothing else uses."""


class TeachersConfig(Section):
    """The big float networks that knowledge comes from."""

    files: tuple[str, ...] = ()
    """Paths of trained Q-networks (.safetensors or .pt), all of one architecture; empty trains."""
    allow_unsafe_unpickle: bool = False
    """Let .pt files that need it run their code while they are loaded; only if you trust them."""
    hidden: tuple[Count, ...] = (128, 128)
    """Hidden widths of the teachers that are trained here."""
    norm: Norm = "layer"
    """Normalization of the teachers that are trained here."""
    training: TeacherTrainingConfig = TeacherTrainingConfig()
    """How they are trained."""


class StatesConfig(Section):
    """The observations on which students imitate teachers."""

    file: str | None = None
    """Path of a float32 ``(N, observation)`` .npy file; none samples episodes of the teachers."""
    size: Annotated[int, Field(ge=64)] = 4096
    """Number of states that are kept, the same from each teacher."""
    epsilon: Share = 0.1
    """Share of random actions while the teachers play for these states."""
    episodes: Count = 32
    """Episodes that each teacher plays for these states."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.125
    """Share of the states that is never trained on and picks the best checkpoint."""


class NetworkConfig(Section):
    """The architecture of the students, and so of every genome."""

    hidden: tuple[Count, ...] = (32, 32)
    """Hidden widths."""
    norm: Norm = "none"
    """Normalization behind each hidden layer."""
    vector_dtype: VectorDtype = "float32"
    """How biases and normalizations are kept in a genome."""


class EvaluationConfig(Section):
    """Episodes that fitness and the champion are measured on."""

    episodes: Count = 32
    """Episodes per genome and generation; all genomes of a generation play the same ones."""
    holdout_episodes: Count = 256
    """Held-out episodes that selection never sees; they crown the champion."""
    champion_candidates: Count = 8
    """Best genomes of the run that play the held-out episodes."""


class DispatchConfig(Section):
    """Where the work is done; changes nothing that comes out, but for what is given up here."""

    address: str = "local"
    """``local`` starts a private Ray; ``auto`` (one that runs here), ``host:port`` or
    ``ray://host:port`` (its server for clients) joins a cluster."""
    workers: CountOrZero | None = None
    """Ray workers of a local start; 0 works in this process without Ray; null takes all cores."""
    task_timeout_s: Positive = 600.0
    """Seconds after which a task gives up on its batch, counted inside the worker."""
    attempts: Count = 2
    """Times that a single child may crash its worker or run out of time before it has failed."""
    loss_attempts: Count = 5
    """Times that a child's node may be lost before the child counts as lost."""
    stall_timeout_s: Positive = 40.0
    """Seconds without any result after which a line says what is waited for, again and again."""
    speculation: PositiveOrZero = 3.0
    """A batch that takes so many times as long as usual is started a second time; 0: never."""
    allow_insecure_cluster: bool = False
    """Join a cluster that asks nobody for a token; only where nobody else can reach it."""
    mixed_cpus: bool = False
    """Join a cluster with several kinds of CPU, though the bytes then depend on who made what."""


class RunConfig(Section):
    """One run: everything that its outcome depends on, and where it is dispatched."""

    name: str = "run"
    """Name of the run, a column of the leaderboard; left at ``run``, that of its directory."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The one seed that all random streams derive from."""
    environment: EnvironmentConfig = EnvironmentConfig()
    """The task."""
    teachers: TeachersConfig = TeachersConfig()
    """The teachers."""
    states: StatesConfig = StatesConfig()
    """The states on which students imitate teachers."""
    network: NetworkConfig = NetworkConfig()
    """The students' architecture."""
    learning: LearningConfig = LearningConfig()
    """The training loop."""
    distillation: DistillationConfig = DistillationConfig()
    """Generation 0."""
    finetune: FineTuneConfig = FineTuneConfig()
    """Training of children."""
    finetune_presets: dict[str, FineTunePreset] = Field(default_factory=dict)
    """Other ways to train children, by name: any settings of ``finetune`` that are to differ."""
    evolution: EvolutionConfig = EvolutionConfig()
    """The loop."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Episodes."""
    dispatch: DispatchConfig = DispatchConfig()
    """Workers."""
    plugins: tuple[str, ...] = ()
    """Paths of Python files with operators of the user's own."""

    @model_validator(mode="after")
    def _presets_exist(self) -> Self:
        if DEFAULT_PRESET in self.finetune_presets:
            raise ValueError(
                f"finetune_presets.{DEFAULT_PRESET}: {DEFAULT_PRESET!r} is finetune itself; "
                "choose another name"
            )
        known = [DEFAULT_PRESET, *self.finetune_presets]
        for number, recipe in enumerate(self.evolution.recipes):
            for name in each(recipe.finetune):
                if name not in known:
                    raise ValueError(
                        f"evolution.recipes[{number}].finetune: no preset is named {name!r}."
                        f"{suggestion(name, known)} There are: {', '.join(known)}"
                    )
        return self

    def preset(self, name: str) -> FineTuneConfig:
        """Return how the children of a recipe are trained that names this preset."""
        if name == DEFAULT_PRESET:
            return self.finetune
        return self.finetune_presets[name].over(self.finetune)

    def identity(self) -> dict[str, Any]:
        """Return what the outcome depends on: everything but the name and the dispatch."""
        return self.model_dump(mode="json", exclude=set(NOT_IDENTITY))
