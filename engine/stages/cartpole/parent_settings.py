"""How the CartPole parents are trained: every setting, its default and its range.

The flags are those of a DQN trainer with replay buffer and target network. Here the parents are
trained with PQN (:mod:`engine.learning.pqn`), which has neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.errors import StageError

ENVIRONMENT = "CartPole-v1"
N_INPUTS, N_ACTIONS = 4, 2
STEPS_PER_EPISODE = 500
"""Environment steps that the budget counts for one episode: the longest there is."""
LABELS = ("A", "B")


@dataclass(frozen=True)
class ParentSettings:
    """Settings of both parents.

    Raises:
        StageError: A setting is outside its range.
    """

    labels: tuple[str, ...] = LABELS
    """Which of the parents ``A`` and ``B`` to train."""
    seed_a: int = 42
    """Seed of parent A."""
    seed_b: int = 99
    """Seed of parent B."""
    hidden: int = 64
    """Units in each of the two hidden layers."""
    episodes: int = 200
    """Budget in episodes of 500 steps; shorter episodes make it more of them."""
    learning_rate: float = 1e-3
    """Learning rate of RAdam at the start; it falls linearly to zero."""
    gamma: float = 0.99
    """Discount."""
    epsilon_start: float = 1.0
    """Share of random actions at the start."""
    epsilon_min: float = 0.05
    """Share of random actions that it falls to."""
    epsilon_decay: float = 0.995
    """Factor on it per time step, in each of which all lanes of a parent play once."""
    batch_size: int = 64
    """Most states in a gradient step, of the 1,024 of a rollout."""
    log_every: int = 50
    """Episodes of the budget between two lines of progress."""
    device: str = "cpu"
    """Where to train; only cpu."""
    max_replay_states: int = 200_000
    """Latest visited states to write for each parent; a negative number for all."""
    eval_episodes: int = 100
    """Held-out episodes that the networks are judged on at the end."""

    def __post_init__(self) -> None:
        """Check all ranges."""
        if self.device != "cpu":
            raise StageError(
                f"--device: expected cpu, not {self.device!r}; networks this small train faster "
                "on a CPU"
            )
        if not self.labels or not set(self.labels) <= set(LABELS):
            raise StageError(f"--pair: expected A, B or both, not {', '.join(self.labels)!r}")
        for flag, number, low in (
            ("--seed-a", self.seed_a, 0),
            ("--seed-b", self.seed_b, 0),
            ("--hidden-size", self.hidden, 1),
            ("--episodes", self.episodes, 1),
            ("--batch-size", self.batch_size, 1),
            ("--log-every", self.log_every, 1),
            ("--eval-episodes", self.eval_episodes, 1),
        ):
            if number < low:
                raise StageError(f"{flag}: expected a whole number of at least {low}, not {number}")
        if self.max_replay_states == 0:
            raise StageError(
                "--max-replay-states: expected a positive number, or a negative one to keep all "
                "states, not 0"
            )
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise StageError(f"--lr: expected a positive number, not {self.learning_rate}")
        for flag, share in (
            ("--gamma", self.gamma),
            ("--epsilon-start", self.epsilon_start),
            ("--epsilon-min", self.epsilon_min),
            ("--epsilon-decay", self.epsilon_decay),
        ):
            if not 0 <= share <= 1:
                raise StageError(f"{flag}: expected a number from 0 to 1, not {share}")
        if self.epsilon_min > self.epsilon_start:
            raise StageError(
                f"--epsilon-min: expected at most --epsilon-start, which is {self.epsilon_start}, "
                f"not {self.epsilon_min}"
            )

    def seed_of(self, label: str) -> int:
        """Return the seed of parent ``A`` or ``B``."""
        return self.seed_a if label == "A" else self.seed_b

    def epsilon(self, time_step: int) -> float:
        """Return the share of random actions after some time steps."""
        fallen = self.epsilon_start * self.epsilon_decay**time_step
        return max(self.epsilon_min, fallen)
