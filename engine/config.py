"""Every setting of a run: its default, its range, and what it means.

A preset in ``configs/`` holds only what differs from these defaults. Reading and writing files is
in ``engine/config_file.py``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from populations.genome import VectorDtype
from populations.network import Norm
from populations.plans import Align, Target


def _in_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower end {bounds[0]} must not exceed the upper end {bounds[1]}")
    return bounds


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(_in_order)]


class Section(BaseModel):
    """A part of the configuration: frozen, and without room for unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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


class ImitationConfig(Section):
    """Settings that every kind of training towards targets shares."""

    steps: CountOrZero = 100
    """Gradient steps."""
    learning_rate: Range = (1e-3, 1e-2)
    """Adam learning rate, drawn log-uniformly per network from this range."""
    temperature: Range = (0.5, 2.0)
    """Softmax temperature, drawn log-uniformly per network, in units of the targets."""
    hard_weight: Share = 0.0
    """Share of the cross-entropy on the target's best action; the rest is the KL divergence."""


class DistillationConfig(ImitationConfig):
    """How students are distilled from teachers: generation 0."""

    steps: CountOrZero = 500
    """Gradient steps."""
    students: Count = 32
    """Number of students; student i learns from teacher i modulo the number of teachers."""
    ancestor: Literal["shared", "independent"] = "shared"
    """Start students from one pre-distilled network, or each from its own random weights."""
    ancestor_steps: CountOrZero = 300
    """Gradient steps of the shared ancestor, towards the mean of the teachers."""


class FineTuneConfig(ImitationConfig):
    """How children are trained after crossover."""

    target: Target = "teachers"
    """Whose values are imitated."""
    teacher_weights: Literal["inherit", "uniform", "random"] = "inherit"
    """Weights of the teachers in the target: from the fitter parent with noise, equal, or drawn."""
    teacher_noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    """Standard deviation of the log-normal noise on inherited teacher weights."""
    repair: bool = True
    """Refit the output layer in closed form before training."""


class LearningConfig(Section):
    """The stacked training loop that distillation and fine-tuning share."""

    batch_size: Annotated[int, Field(ge=32, multiple_of=32)] = 64
    """States per gradient step, the same ones for all networks of a generation."""
    int8_in_loop: bool = True
    """Train through the int8 codec with straight-through gradients."""
    validation_every: Count = 50
    """Gradient steps between two looks at the validation loss."""
    ridge: Positive = 1e-3
    """Ridge penalty of the output layer's refit, relative to the mean square of the features."""
    targets: Literal["advantages", "raw"] = "advantages"
    """Imitate advantages in units of each teacher's median action gap, or raw Q-values."""


class RecipeConfig(Section):
    """One way to make a child; recipes are drawn in proportion to their weights."""

    operator: str
    """Name of a crossover operator, or ``module:Class``."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the operator."""
    align: Align = "auto"
    """Alignment before crossover; ``auto`` aligns by activations unless the parents are kin."""
    weight: Positive = 1.0
    """How often it is drawn, relative to the other recipes."""


class SelectionConfig(Section):
    """How parents are chosen."""

    name: str = "tournament"
    """Name of a selection: ``truncation``, ``tournament`` or ``rank``."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the selection."""


class MutationConfig(Section):
    """Noise on every child after crossover."""

    name: str = "gaussian"
    """Name of a mutation."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the mutation."""


DEFAULT_RECIPES = tuple(
    RecipeConfig(operator=name) for name in ("weighted", "unit", "layer", "random")
)


class EvolutionConfig(Section):
    """The loop: (mu + lambda) selection with re-evaluated elites."""

    generations: CountOrZero = 10
    """Generations after the students; 0 stops at generation 0."""
    population: Annotated[int, Field(ge=2)] = 16
    """Number of parents (mu)."""
    children: Count = 64
    """Births per generation (lambda)."""
    elites: CountOrZero = 8
    """Best genomes that stay unchanged and are scored again on each generation's episodes."""
    batch_size: Count = 16
    """Children per task; part of the configuration, so that bytes never depend on the cluster."""
    controls: CountOrZero = 2
    """Births per generation of each control (clone + fine-tune, random + fine-tune)."""
    recipes: Annotated[tuple[RecipeConfig, ...], Field(min_length=1)] = DEFAULT_RECIPES
    """Ways to make a child."""
    selection: SelectionConfig = SelectionConfig()
    """How parents are chosen."""
    mutation: MutationConfig | None = MutationConfig()
    """Noise on every child, or null."""

    @model_validator(mode="after")
    def _elites_fit(self) -> Self:
        if self.elites > self.population:
            raise ValueError(
                f"evolution.elites ({self.elites}) must not exceed "
                f"evolution.population ({self.population})"
            )
        return self


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
    """``local`` starts a private Ray, ``auto`` joins the one running here, or ``host:port``."""
    workers: CountOrZero | None = None
    """Ray workers of a local start; 0 works in this process without Ray; null takes all cores."""
    task_timeout_s: Positive = 600.0
    """Seconds after which a task gives up on its batch, counted inside the worker."""
    attempts: Count = 2
    """Times that a single child may crash its worker or run out of time before it has failed."""
    loss_attempts: Count = 5
    """Times that a child's node may be lost before the child counts as lost."""


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
    evolution: EvolutionConfig = EvolutionConfig()
    """The loop."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Episodes."""
    dispatch: DispatchConfig = DispatchConfig()
    """Workers."""
    plugins: tuple[str, ...] = ()
    """Paths of Python files with operators of the user's own."""

    def identity(self) -> dict[str, Any]:
        """Return what the outcome depends on: everything but the name and the dispatch."""
        return self.model_dump(mode="json", exclude={"name", "dispatch"})
