"""The networks of the documented pipeline: a teacher, and a student of half its width."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from populations.network import NetworkSpec, Weights
from strategies.forward import q_values

# Shares of hidden units that are dropped while a network trains; those of AgentFarm.
TEACHER_DROPOUT = 0.1
STUDENT_DROPOUT = 0.05
SMALLEST_WIDTH = 16


@dataclass(frozen=True)
class Network:
    """A float32 network.

    Attributes:
        spec: Its architecture.
        weights: Its tensors by name.
    """

    spec: NetworkSpec
    weights: Weights

    def q_values(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return Q-values ``(N, n_actions)`` of states ``(N, n_inputs)``."""
        return q_values(self.spec, self.weights, states)

    @property
    def n_parameters(self) -> int:
        """Number of weights, biases and normalization parameters."""
        return self.spec.n_parameters


def teacher_spec(n_inputs: int, n_actions: int, hidden: int) -> NetworkSpec:
    """Return the pipeline's network: twice Linear, LayerNorm, ReLU, Dropout; then Linear.

    Raises:
        GenomeShapeError: A size is below one.
    """
    return NetworkSpec((n_inputs,), (hidden, hidden), n_actions, norm="layer", dropout_slots=True)


def student_spec(teacher: NetworkSpec) -> NetworkSpec:
    """Return the student of a teacher: every hidden width halved, but at least 16."""
    hidden = tuple(max(SMALLEST_WIDTH, width // 2) for width in teacher.hidden)
    return replace(teacher, hidden=hidden)


def initial_weights(spec: NetworkSpec, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return random weights: Xavier uniform (Glorot & Bengio 2010, eq. 16), biases zero.

    The numbers are those that AgentFarm's networks start from after ``torch.manual_seed(seed)``:
    building a Linear draws torch's default weights first, which are then drawn again.
    """
    weights: dict[str, NDArray[np.float32]] = {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        linears = [nn.Linear(block.n_in, block.n_out) for block in spec.blocks]
        for block, linear in zip(spec.blocks, linears, strict=True):
            nn.init.xavier_uniform_(linear.weight)
            weights[block.weight] = linear.weight.numpy().copy()
            weights[block.bias] = np.zeros(block.n_out, np.float32)
            if block.norm is not None:
                weights[f"{block.norm}.weight"] = np.ones(block.n_out, np.float32)
                weights[f"{block.norm}.bias"] = np.zeros(block.n_out, np.float32)
    return weights
