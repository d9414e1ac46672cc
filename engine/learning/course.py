"""What a stack of networks is trained on, how, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

OptimizerName = Literal["adam", "adamw", "sgd", "rmsprop"]


@dataclass(frozen=True)
class Method:
    """How networks are trained, whatever they are trained on.

    The defaults are those of breeding; the stages of the documented pipeline choose others.

    Attributes:
        loss: ``kl`` for the imitation loss, ``mse`` for the squared error of the values.
        optimizer: Name of the optimizer.
        optimizer_options: Its options by name, such as ``momentum``.
        schedule: ``cosine`` lets learning rates fall along a half cosine to zero; ``constant``
            keeps them, but for ``plateau_patience``.
        plateau_patience: Looks without a lower validation loss after which the learning rate of a
            network is multiplied by ``plateau_factor``; 0 for never. With a threshold of 1e-4,
            relative, as ``torch.optim.lr_scheduler.ReduceLROnPlateau`` has it.
        plateau_factor: In ``(0, 1)``.
        early_stopping_patience: Looks without a lower validation loss after which a network is
            left as it is; 0 for never.
        max_grad_norm: Norm over all parameters of a network at which its gradient is clipped.
        dropout: Share of hidden units that are dropped at each step, the same for all networks.
        temperature_decay: Factor on the temperature after each epoch. The validation loss is
            always taken at the first temperature, or the epochs could not be compared.
        keep_short_batch: Whether an epoch ends with a batch of the states that are left over.
    """

    loss: Literal["kl", "mse"] = "kl"
    optimizer: OptimizerName = "adam"
    optimizer_options: Mapping[str, float] = field(default_factory=dict)
    schedule: Literal["cosine", "constant"] = "cosine"
    plateau_patience: int = 0
    plateau_factor: float = 0.5
    early_stopping_patience: int = 0
    max_grad_norm: float | None = None
    dropout: float = 0.0
    temperature_decay: float = 1.0
    keep_short_batch: bool = False


@dataclass(frozen=True)
class Course:
    """What a stack is trained on, and for how long.

    Attributes:
        train_states: Float32 of shape ``(N, n_inputs)``.
        train_targets: Values to imitate, float32 of shape ``(K, n_actions, N)``.
        validation_states: Float32 of shape ``(M, n_inputs)``.
        validation_targets: Float32 of shape ``(K, n_actions, M)``.
        steps: Gradient steps.
        batch_size: States per step.
        learning_rates: At the first step, shape ``(K,)``.
        temperatures: Softmax temperatures, shape ``(K,)``.
        hard_weights: Shares of the cross-entropy, shape ``(K,)``.
        int8_in_loop: Whether networks are trained through the int8 codec.
        validation_every: Steps between two looks at the validation loss.
        order: Seed sequence of minibatches and dropout, shared by all networks.
        method: How they are trained.
        record: Whether the outcome holds a history; it costs a few percent.
    """

    train_states: NDArray[np.float32]
    train_targets: NDArray[np.float32]
    validation_states: NDArray[np.float32]
    validation_targets: NDArray[np.float32]
    steps: int
    batch_size: int
    learning_rates: NDArray[np.float32]
    temperatures: NDArray[np.float32]
    hard_weights: NDArray[np.float32]
    int8_in_loop: bool
    validation_every: int
    order: tuple[int, ...]
    method: Method = Method()
    record: bool = False

    def of_networks(self, rows: slice) -> Course:
        """Return the course of some of the networks."""
        return replace(
            self,
            train_targets=self.train_targets[rows],
            validation_targets=self.validation_targets[rows],
            learning_rates=self.learning_rates[rows],
            temperatures=self.temperatures[rows],
            hard_weights=self.hard_weights[rows],
        )

    @property
    def steps_per_epoch(self) -> int:
        """Gradient steps of one pass over the training states, at least 1."""
        n_states = len(self.train_states)
        if self.method.keep_short_batch:
            return -(-n_states // self.batch_size)
        return max(1, n_states // self.batch_size)


@dataclass(frozen=True)
class Look:
    """One network at one look at the validation states.

    Attributes:
        step: Gradient steps taken until then.
        loss: Validation loss, at the first temperature.
        agreement: Share of validation states with the best action of the target.
        similarity: ``1 - mean |p - q|`` over states and actions, with ``p`` and ``q`` the softmax
            of target and network at the first temperature.
        train_loss: Mean loss of the minibatches since the last look; NaN at the start.
        train_soft: Its KL or squared part, not weighted.
        train_hard: Its cross-entropy, not weighted; 0 where there is none.
        learning_rate: Learning rate after the look, before any cosine.
    """

    step: int
    loss: float
    agreement: float
    similarity: float
    train_loss: float
    train_soft: float
    train_hard: float
    learning_rate: float


@dataclass(frozen=True)
class Trained:
    """What came out of the loop.

    Attributes:
        weights: Each network at its lowest validation loss, the start included.
        divergence: Its mean KL divergence on the validation states, in nats, shape ``(K,)``.
        loss: Its validation loss, shape ``(K,)``.
        best_look: Number of the look it is from, 0 for the start, shape ``(K,)``.
        history: The looks of each network, the start first, up to where it stopped early; empty
            where none was asked for.
    """

    weights: list[dict[str, NDArray[np.float32]]]
    divergence: NDArray[np.float32]
    loss: NDArray[np.float32]
    best_look: NDArray[np.intp]
    history: list[list[Look]]
