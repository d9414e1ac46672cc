"""The one training loop: K networks imitate K targets side by side.

Distillation, fine-tuning and quantization-aware training are all this loop with other settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.learning.fast_mlp import FastMLP
from engine.learning.flat import FakeQuantizer, FlatStack
from engine.learning.losses import ImitationLoss
from populations.network import NetworkSpec, Weights

# Adam (Kingma & Ba 2015, arXiv:1412.6980), algorithm 1, with its usual constants.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
# Rows change their largest weight slowly, so their scale is measured once in this many steps.
RESCALE_EVERY = 8
# Networks trained side by side. More would spill the activations out of a core's cache.
TILE = 32


@dataclass(frozen=True)
class Course:
    """What a stack is trained on, and for how long.

    Attributes:
        train_states: Float32 of shape ``(N, n_inputs)``.
        train_targets: Values to imitate, float32 of shape ``(K, n_actions, N)``.
        validation_states: Float32 of shape ``(M, n_inputs)``, M a multiple of 32.
        validation_targets: Float32 of shape ``(K, n_actions, M)``.
        steps: Gradient steps.
        batch_size: States per step, a multiple of 32.
        learning_rates: At the first step, shape ``(K,)``; they fall along a half cosine to zero.
        temperatures: Softmax temperatures, shape ``(K,)``.
        hard_weights: Shares of the cross-entropy, shape ``(K,)``.
        int8_in_loop: Whether networks are trained through the int8 codec.
        validation_every: Steps between two looks at the validation loss.
        order: Seed sequence of the minibatches, shared by all networks.
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


@dataclass(frozen=True)
class Trained:
    """What came out of the loop.

    Attributes:
        weights: Each network at its lowest validation loss, the start included.
        divergence: Its mean KL divergence on the validation states, in nats, shape ``(K,)``.
    """

    weights: list[dict[str, NDArray[np.float32]]]
    divergence: NDArray[np.float32]


def train(spec: NetworkSpec, weights: Sequence[Weights], course: Course) -> Trained:
    """Train networks of one spec side by side.

    The outcome of a network does not depend on its neighbors or on their number, bit for bit.

    Args:
        spec: Architecture of all networks.
        weights: Where each network starts, K of them.
        course: What they are trained on.
    """
    tiles = [slice(start, start + TILE) for start in range(0, len(weights), TILE)]
    parts = [_train_tile(spec, weights[tile], course.of_networks(tile)) for tile in tiles]
    return Trained(
        weights=[network for part in parts for network in part.weights],
        divergence=np.concatenate([part.divergence for part in parts]),
    )


def _train_tile(spec: NetworkSpec, weights: Sequence[Weights], course: Course) -> Trained:
    stack = FlatStack(spec, len(weights))
    parameters = stack.load(weights)
    rounded = stack.new() if course.int8_in_loop else parameters
    gradients = stack.new()
    quantizer = FakeQuantizer(stack)
    path = FastMLP(stack, rounded, gradients)
    optimizer = _Adam(parameters, gradients, stack.spread(torch.from_numpy(course.learning_rates)))
    loss = _loss(course, course.train_targets)
    best = _Best(stack, course, parameters)
    states = torch.from_numpy(course.train_states).t().contiguous()
    shuffled, shuffled_loss = states, loss
    epochs = _epochs(course)
    steps_per_epoch = max(1, len(course.train_states) // course.batch_size)
    for step in range(course.steps + 1):
        if course.int8_in_loop:
            looks = step % course.validation_every == 0 or step == course.steps
            if step % RESCALE_EVERY == 0 or looks:
                quantizer.rescale(parameters)
            quantizer.apply(parameters, rounded)
        if step % course.validation_every == 0 or step == course.steps:
            best.look(path, parameters)
        if step == course.steps:
            break
        start = step % steps_per_epoch * course.batch_size
        if start == 0:
            order = next(epochs)
            shuffled, shuffled_loss = states.index_select(1, order), loss.of_states(order)
        values = path.forward(shuffled[:, start : start + course.batch_size])
        path.backward(shuffled_loss.gradient(values, start))
        optimizer.step(0.5 * (1 + np.cos(np.pi * step / course.steps)))
    return Trained(stack.unload(best.parameters), best.divergence.numpy())


def _loss(course: Course, targets: NDArray[np.float32]) -> ImitationLoss:
    return ImitationLoss.towards(
        torch.from_numpy(targets),
        torch.from_numpy(course.temperatures),
        torch.from_numpy(course.hard_weights),
    )


def _epochs(course: Course) -> Iterator[Tensor]:
    """Yield the order of the states of one epoch after the other; a short last batch is left out.

    With fewer states than one batch, an epoch is one batch drawn with replacement.
    """
    rng = np.random.default_rng(np.random.SeedSequence(course.order[0], spawn_key=course.order[1:]))
    n_states = len(course.train_states)
    length = max(1, n_states // course.batch_size) * course.batch_size
    while True:
        if n_states < course.batch_size:
            yield torch.from_numpy(rng.integers(n_states, size=length))
        else:
            yield torch.from_numpy(rng.permutation(n_states)[:length])


class _Best:
    """The parameters of each network at its lowest validation loss.

    Where no loss is a number, they are those that the network started from.
    """

    def __init__(self, stack: FlatStack, course: Course, start: Tensor) -> None:
        self._stack = stack
        self._loss = _loss(course, course.validation_targets)
        self._states = torch.from_numpy(course.validation_states).t().contiguous()
        self._lowest = torch.full((stack.n_networks,), torch.inf)
        self.parameters = start.clone()
        self.divergence = torch.full((stack.n_networks,), torch.nan)

    def look(self, path: FastMLP, parameters: Tensor) -> None:
        """Keep the parameters of every network that is better than it was before."""
        values = path.forward(self._states)
        current = self._loss.value(values)
        is_better = current < self._lowest  # False for NaN: a network that diverges keeps its best
        self._lowest = torch.where(is_better, current, self._lowest)
        self.divergence = torch.where(is_better, self._loss.divergence(values), self.divergence)
        chosen = self._stack.spread(is_better.float()) > 0
        self.parameters = torch.where(chosen, parameters, self.parameters)


class _Adam:
    """Adam over a flat buffer with a learning rate per element."""

    def __init__(self, parameters: Tensor, gradients: Tensor, learning_rates: Tensor) -> None:
        self._parameters = parameters
        self._gradients = gradients
        self._learning_rates = learning_rates
        self._mean = torch.zeros_like(parameters)
        self._square = torch.zeros_like(parameters)
        self._update = torch.zeros_like(parameters)
        self._root = torch.zeros_like(parameters)
        self._n_steps = 0

    def step(self, decay: float) -> None:
        """Take one step with all learning rates multiplied by ``decay``."""
        self._n_steps += 1
        correction_1 = 1 - BETA_1**self._n_steps
        correction_2 = 1 - BETA_2**self._n_steps
        self._mean.lerp_(self._gradients, 1 - BETA_1)
        self._square.mul_(BETA_2).addcmul_(self._gradients, self._gradients, value=1 - BETA_2)
        torch.sqrt(self._square, out=self._root)
        self._root.mul_(correction_2**-0.5).add_(EPSILON)
        torch.mul(self._mean, self._learning_rates, out=self._update)
        self._parameters.addcdiv_(self._update, self._root, value=-decay / correction_1)
