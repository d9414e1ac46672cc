"""How a network of the pipeline learns to imitate: every setting with its range."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from engine.errors import StageError
from engine.learning.course import OptimizerName
from engine.learning.optimizers import OPTIMIZERS

Calibration = Literal["none", "value", "output"]
DEFAULT_SEED = 42


@dataclass(frozen=True)
class ImitationConfig:
    """How one network learns to imitate; defaults of AgentFarm's distillation.

    Attributes:
        temperature: Softmax temperature of the KL divergence, positive.
        temp_decay: Factor on it after each epoch, in ``(0, 1]``.
        alpha: Share of the KL divergence; the rest is the cross-entropy with the best action.
        learning_rate: Positive.
        epochs: Passes over the training states, at least 1.
        batch_size: States per step, at least 1; a last short batch is kept.
        max_grad_norm: Norm at which a gradient is clipped, or None.
        val_fraction: Share of the states that chooses the best epoch, in ``[0, 1)``; with 0 the
            training states do.
        seed: Seed of the split, the minibatches and the dropout; None is 42.
        loss_fn: ``kl``, or ``mse`` for the squared error of the values, which takes no notice of
            ``temperature`` and ``alpha``.
        optimizer: ``adam``, ``adamw``, ``sgd`` or ``rmsprop``.
        optimizer_kwargs: Its options by name.
        lr_schedule_patience: Epochs without a lower validation loss after which the learning rate
            is multiplied by ``lr_schedule_factor``; 0 for never.
        lr_schedule_factor: In ``(0, 1)``.
        early_stopping_patience: Epochs without a lower validation loss after which training ends;
            0 for never.
        normalise_q: Whether the advantages of each reference, divided by the median gap between
            its two best actions, are imitated instead of its values.
        calibration: What is refitted in closed form after training. ``value``: the mean over
            actions, which a KL divergence leaves arbitrary; preferences stay as they are.
            ``output``: the whole output layer where that lowers the validation loss, else as
            ``value``. ``none``: nothing.

    Raises:
        StageError: A setting is out of its range.
    """

    temperature: float = 3.0
    temp_decay: float = 1.0
    alpha: float = 1.0
    learning_rate: float = 1e-3
    epochs: int = 10
    batch_size: int = 32
    max_grad_norm: float | None = 1.0
    val_fraction: float = 0.1
    seed: int | None = None
    loss_fn: Literal["kl", "mse"] = "kl"
    optimizer: OptimizerName = "adam"
    optimizer_kwargs: dict[str, float] = field(default_factory=dict)
    lr_schedule_patience: int = 0
    lr_schedule_factor: float = 0.5
    early_stopping_patience: int = 0
    normalise_q: bool = False
    calibration: Calibration = "output"

    def __post_init__(self) -> None:
        """Check every range."""
        demands = {
            "temperature": (0 < self.temperature < math.inf, "a positive number"),
            "temp_decay": (0 < self.temp_decay <= 1, "above 0 and at most 1"),
            "alpha": (0 <= self.alpha <= 1, "from 0 to 1"),
            "learning_rate": (0 < self.learning_rate < math.inf, "a positive number"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "max_grad_norm": (
                self.max_grad_norm is None or 0 < self.max_grad_norm < math.inf,
                "a positive number, or left out",
            ),
            "val_fraction": (0 <= self.val_fraction < 1, "at least 0 and below 1"),
            "seed": (self.seed is None or 0 <= self.seed < 2**32, "from 0 to 4294967295"),
            "loss_fn": (self.loss_fn in ("kl", "mse"), "kl or mse"),
            "optimizer": (self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            "lr_schedule_patience": (self.lr_schedule_patience >= 0, "at least 0"),
            "lr_schedule_factor": (0 < self.lr_schedule_factor < 1, "between 0 and 1"),
            "early_stopping_patience": (self.early_stopping_patience >= 0, "at least 0"),
            "calibration": (
                self.calibration in get_args(Calibration),
                f"one of {', '.join(get_args(Calibration))}",
            ),
        }
        for name, (is_met, demand) in demands.items():
            if not is_met:
                raise StageError(f"{name} must be {demand}, not {getattr(self, name)!r}")
        known = OPTIMIZERS[self.optimizer][1]
        for option, value in self.optimizer_kwargs.items():
            if option not in known or isinstance(known[option], bool):
                names = ", ".join(
                    n for n, default in known.items() if not isinstance(default, bool)
                )
                raise StageError(
                    f"optimizer_kwargs of {self.optimizer} may be {names}, not {option!r}"
                )
            # Momentum, and the share of the mean square that is kept, are shares; decay is not.
            limit = math.inf if option == "weight_decay" else 1.0
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 <= value < limit:
                below = "" if limit == math.inf else " and below 1"
                raise StageError(
                    f"optimizer_kwargs: {option} must be a finite number of at least 0{below}, "
                    f"not {value!r}"
                )

    @property
    def resolved_seed(self) -> int:
        """The seed, 42 where none is given."""
        return DEFAULT_SEED if self.seed is None else self.seed
