"""The files of the CartPole parents: networks, int8 networks, sidecars, visited states."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import StageError
from engine.stages.cartpole.parent_settings import ENVIRONMENT, ParentSettings
from engine.stages.cartpole.parent_training import (
    RECENT,
    REFIT_STATES,
    Tell,
    TrainedParent,
    trained_parents,
    training_config,
)
from engine.stages.roles import load_role, save_role, sidecar
from engine.stages.state_sets import states_sha256
from populations.storage import write_atomically

DROPOUT = 0.0
"""Temporal differences already chase a moving target; noise on it would not help."""
OF_THE_PAIR = {"labels", "seed_a", "seed_b", "log_every"}
"""Settings that are no settings of a single parent."""


def train_parents(settings: ParentSettings, output_dir: Path, tell: Tell) -> list[TrainedParent]:
    """Train parents and write them.

    For each label ``X`` the folder gets ``parent_X.pt`` and ``parent_X_int8.pt`` with a sidecar
    each, and ``replay_states_X.npy``. Equal settings and seeds write equal bytes, whichever of the
    parents are trained.

    Args:
        settings: Which parents, and how.
        output_dir: The folder, which is made if need be.
        tell: Called with lines of progress.

    Returns:
        The parents, A first.

    Raises:
        StageError: The training of one diverged, or a file cannot be written.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)  # before time is spent on training
    except OSError as error:
        raise StageError(
            f"{output_dir}: expected a folder to write to: {error.strerror}"
        ) from error
    parents = trained_parents(settings, tell)
    for parent in parents:
        save_parent(parent, settings, output_dir)
    return parents


def save_parent(parent: TrainedParent, settings: ParentSettings, output_dir: Path) -> None:
    """Write the files of one parent; see :func:`train_parents`.

    Raises:
        StageError: A file cannot be written.
    """
    replay = output_dir / f"replay_states_{parent.label}.npy"
    content = io.BytesIO()
    np.save(content, parent.replay_states)
    try:
        write_atomically(replay, content.getvalue())
    except OSError as error:
        raise StageError(f"{replay}: cannot be written: {error.strerror}") from error
    path = output_dir / f"{parent.name}.pt"
    shared = {
        "label": parent.label,
        "environment": ENVIRONMENT,
        "seed": parent.seed,
        "config": _config(settings),
    }
    spec = parent.network.spec
    trained = {**shared, **_training_record(parent, settings)}
    save_role(path, parent.network, sidecar("parent", spec, DROPOUT, **trained))
    rounded = {
        **shared,
        "sources": {"float": load_role(parent.name, path).source(output_dir)},
        "quantization": {
            "scheme": "int8 weights with a float32 scale per row; other tensors float32",
            "output_layer": "fitted to the float Q-values",
            "n_states": min(REFIT_STATES, len(parent.replay_states)),
        },
        "metrics": {
            "greedy_return": parent.held_out(int8=True),
            "float_greedy_return": parent.held_out(),
            "agreement_with_float": parent.int8_agreement,
        },
    }
    int8_path = output_dir / f"{parent.name}_int8.pt"
    save_role(int8_path, parent.genome, sidecar("parent", spec, DROPOUT, **rounded))


def _config(settings: ParentSettings) -> dict[str, Any]:
    """Return the settings of a single parent, those of the PQN trainer among them."""
    own = {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in OF_THE_PAIR
    }
    training = training_config(settings)
    fixed = ("lanes", "rollout", "epochs", "minibatches", "trace_decay", "reward_scale")
    return {
        **own,
        "algorithm": "PQN",
        **{name: getattr(training, name) for name in (*fixed, "max_grad_norm", "checkpoints")},
    }


def _training_record(parent: TrainedParent, settings: ParentSettings) -> dict[str, Any]:
    """Return what the sidecar of a parent tells of its training; names as in AgentFarm."""
    states = parent.replay_states
    return {
        "episodes_trained": len(parent.episode_returns),
        "final_epsilon": parent.final_epsilon,
        f"mean_reward_last_{RECENT}_episodes": parent.recent_return(),
        "max_replay_states_cap": settings.max_replay_states,
        "replay_states": {
            "file": f"replay_states_{parent.label}.npy",
            "n_states": len(states),
            "sha256": states_sha256(states),
        },
        "metrics": {
            "steps": parent.n_steps,
            "checkpoint_step": parent.checkpoint_step,
            "checkpoint_return": parent.checkpoint_return,
            "greedy_return": parent.held_out(),
        },
        "episode_rewards": parent.episode_returns,
    }
