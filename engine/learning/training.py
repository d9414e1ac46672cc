"""The one training loop: K networks imitate K targets side by side.

Distillation, fine-tuning and quantization-aware training are all this loop with other settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from engine.learning.course import Course, Look, Trained
from engine.learning.fast_mlp import FastMLP
from engine.learning.flat import FakeQuantizer, FlatStack
from engine.learning.losses import ImitationLoss, Loss, SquaredLoss, one_hot_best
from engine.learning.minibatches import (
    batch_length,
    dropout_masks,
    epochs,
    pad_columns,
    pad_states,
    padded_width,
)
from engine.learning.optimizers import Optimizer, make_optimizer
from populations.network import NetworkSpec, Weights

# Rows change their largest weight slowly, so their scale is measured once in this many steps.
RESCALE_EVERY = 8
# Networks trained side by side. More would spill the activations out of a core's cache.
TILE = 32
# How much lower a loss must be to count for the plateau schedule; torch's default.
PLATEAU_THRESHOLD = 1e-4


def train(spec: NetworkSpec, weights: Sequence[Weights], course: Course) -> Trained:
    """Train networks of one spec side by side.

    The outcome of a network does not depend on its neighbors or on their number, bit for bit.

    Args:
        spec: Architecture of all networks.
        weights: Where each network starts, K of them.
        course: What they are trained on.

    Raises:
        KeyError: There is no optimizer of the given name.
        TypeError: The optimizer has no such option.
    """
    tiles = [slice(start, start + TILE) for start in range(0, len(weights), TILE)]
    parts = [_train_tile(spec, weights[tile], course.of_networks(tile)) for tile in tiles]
    return Trained(
        weights=[network for part in parts for network in part.weights],
        divergence=np.concatenate([part.divergence for part in parts]),
        loss=np.concatenate([part.loss for part in parts]),
        best_look=np.concatenate([part.best_look for part in parts]),
        history=[looks for part in parts for looks in part.history],
    )


def _train_tile(spec: NetworkSpec, weights: Sequence[Weights], course: Course) -> Trained:
    stack = FlatStack(spec, len(weights))
    parameters = stack.load(weights)
    rounded = stack.new() if course.int8_in_loop else parameters
    gradients = stack.new()
    quantizer = FakeQuantizer(stack)
    path = FastMLP(stack, rounded, gradients)
    method = course.method
    base_rates = torch.from_numpy(course.learning_rates)
    optimizer = make_optimizer(
        method.optimizer, method.optimizer_options, parameters, gradients, stack.spread(base_rates)
    )
    rates = _Rates(stack, course, base_rates, optimizer)
    best = _Best(stack, course, parameters)
    history = _History(course) if course.record else None
    states = pad_states(course.train_states)
    loss = _loss(course, "train")
    shuffled, shuffled_loss = states, loss
    orders = epochs(course)
    masks = dropout_masks(course, spec.hidden)
    width = padded_width(course.batch_size)
    for step in range(course.steps + 1):
        looks = step % course.validation_every == 0 or step == course.steps
        if course.int8_in_loop:
            if step % RESCALE_EVERY == 0 or looks:
                quantizer.rescale(parameters)
            quantizer.apply(parameters, rounded)
        if looks:
            values = path.forward(best.states)
            best.look(values, parameters)
            rates.look(best.current, step)
            if history is not None:
                history.look(step, values, best.current, rates)
        if step == course.steps or rates.all_stopped:
            break
        batch = step % course.steps_per_epoch
        if batch == 0:
            if method.temperature_decay != 1 and step > 0:
                loss = _loss(course, "train", step // course.steps_per_epoch)
            order = next(orders)
            shuffled, shuffled_loss = states.index_select(1, order), loss.of_states(order)
        start, n_states = batch * width, batch_length(course, batch)
        values = path.forward(shuffled[:, start : start + width], next(masks))
        if history is not None:
            history.step(shuffled_loss.parts(values, start, n_states))
        path.backward(shuffled_loss.gradient(values, start, n_states))
        if method.max_grad_norm is not None:
            stack.clip(gradients, method.max_grad_norm)
        optimizer.step(rates.decay(step))
    return Trained(
        weights=stack.unload(best.parameters),
        divergence=best.divergence.numpy(),
        loss=best.lowest.numpy(),
        best_look=best.number.numpy(),
        history=[] if history is None else history.until(rates.stopped_at),
    )


def _loss(course: Course, part: Literal["train", "validation"], epoch: int = 0) -> Loss:
    """Return the loss on one part of the states, in that epoch."""
    values = course.train_targets if part == "train" else course.validation_targets
    targets = pad_columns(values)
    if course.method.loss == "mse":
        return SquaredLoss(targets)
    temperatures = torch.from_numpy(course.temperatures)
    if epoch:
        temperatures = temperatures * course.method.temperature_decay**epoch
    return ImitationLoss.towards(targets, temperatures, torch.from_numpy(course.hard_weights))


class _Best:
    """The parameters of each network at its lowest validation loss.

    Where no loss is a number, they are those that the network started from.
    """

    def __init__(self, stack: FlatStack, course: Course, start: Tensor) -> None:
        self._stack = stack
        self._loss = _loss(course, "validation")
        self._n_states = len(course.validation_states)
        self._n_looks = 0
        self.states = pad_states(course.validation_states)
        self.current = torch.full((stack.n_networks,), torch.inf)
        self.lowest = self.current
        self.number = torch.zeros(stack.n_networks, dtype=torch.long)
        self.parameters = start.clone()
        self.divergence = torch.full((stack.n_networks,), torch.nan)

    def look(self, values: Tensor, parameters: Tensor) -> None:
        """Keep the parameters of every network that is better than it was before.

        Args:
            values: Q-values on the validation states, ``(K, n_actions, B)``.
            parameters: Buffer of the parameters that gave them.
        """
        self.current = self._loss.value(values, self._n_states)
        is_better = self.current < self.lowest  # False for NaN: one that diverges keeps its best
        self.lowest = torch.where(is_better, self.current, self.lowest)
        divergence = self._loss.divergence(values, self._n_states)
        self.divergence = torch.where(is_better, divergence, self.divergence)
        self.number = torch.where(is_better, self._n_looks, self.number)
        chosen = self._stack.spread(is_better.float()) > 0
        self.parameters = torch.where(chosen, parameters, self.parameters)
        self._n_looks += 1


class _Rates:
    """Learning rates per network: the schedule, the plateaus, and who has stopped."""

    def __init__(
        self, stack: FlatStack, course: Course, base: Tensor, optimizer: Optimizer
    ) -> None:
        self._stack = stack
        self._course = course
        self._optimizer = optimizer
        self._lowest = torch.full((stack.n_networks,), torch.inf)
        self._plateau_lowest = self._lowest
        self._waited = torch.zeros(stack.n_networks, dtype=torch.long)
        self._plateau_waited = torch.zeros(stack.n_networks, dtype=torch.long)
        self.current = base.clone()
        self.stopped_at = [course.steps] * stack.n_networks

    @property
    def all_stopped(self) -> bool:
        """Whether no network learns any more."""
        return self._course.method.early_stopping_patience > 0 and not bool(self.current.any())

    def decay(self, step: int) -> float:
        """Return the factor on all learning rates at a step."""
        if self._course.method.schedule == "constant":
            return 1.0
        return float(0.5 * (1 + np.cos(np.pi * step / self._course.steps)))

    def look(self, losses: Tensor, step: int) -> None:
        """Take note of the validation losses, ``(K,)``; the first ones are those of the start."""
        method = self._course.method
        before = self.current
        if method.plateau_patience:
            bound = self._plateau_lowest * (1 - PLATEAU_THRESHOLD)
            self._plateau_waited = torch.where(losses < bound, 0, self._plateau_waited + 1)
            self._plateau_lowest = torch.where(losses < bound, losses, self._plateau_lowest)
            is_due = self._plateau_waited > method.plateau_patience
            self.current = torch.where(is_due, self.current * method.plateau_factor, self.current)
            self._plateau_waited = torch.where(is_due, 0, self._plateau_waited)
        if method.early_stopping_patience:
            self._waited = torch.where(losses < self._lowest, 0, self._waited + 1)
            self._lowest = torch.minimum(losses.nan_to_num(torch.inf), self._lowest)
            ends = (self._waited >= method.early_stopping_patience) & (self.current > 0)
            for k in ends.nonzero().flatten().tolist():
                self.stopped_at[k] = step
            self.current = torch.where(ends, 0.0, self.current)
        if self.current is not before:
            self._optimizer.learning_rates.copy_(self._stack.spread(self.current))


class _History:
    """The looks of every network."""

    def __init__(self, course: Course) -> None:
        n_networks = len(course.learning_rates)
        targets = pad_columns(course.validation_targets)
        temperatures = torch.from_numpy(course.temperatures).view(-1, 1, 1)
        self._temperatures = temperatures
        self._wanted = torch.softmax(targets / temperatures, dim=1)
        self._best = one_hot_best(targets)
        self._n_states = len(course.validation_states)
        self._hard_weights = torch.from_numpy(course.hard_weights)
        self._sums = torch.zeros(2, n_networks)
        self._n_steps = 0
        self._looks: list[list[Look]] = [[] for _ in range(n_networks)]

    def step(self, parts: tuple[Tensor, Tensor]) -> None:
        """Take note of the soft and hard loss of a minibatch."""
        soft, hard = parts
        # A network without a hard part has none, whoever is trained beside it.
        self._sums += torch.stack((soft, torch.where(self._hard_weights > 0, hard, 0.0)))
        self._n_steps += 1

    def look(self, step: int, values: Tensor, losses: Tensor, rates: _Rates) -> None:
        """Take note of the Q-values on the validation states, ``(K, n_actions, B)``."""
        n = self._n_states
        hits = (one_hot_best(values) * self._best).sum(dim=1)[:, :n]
        distances = (torch.softmax(values / self._temperatures, dim=1) - self._wanted).abs()
        soft, hard = self._sums / self._n_steps if self._n_steps else self._sums * torch.nan
        columns = (
            losses,
            hits.mean(dim=1),
            1 - distances.mean(dim=1)[:, :n].mean(dim=1),
            torch.lerp(soft, hard, self._hard_weights),
            soft,
            hard,
            rates.current,
        )
        for looks, row in zip(self._looks, torch.stack(columns, dim=1).tolist(), strict=True):
            looks.append(Look(step, *row))
        self._sums = torch.zeros_like(self._sums)
        self._n_steps = 0

    def until(self, steps: Sequence[int]) -> list[list[Look]]:
        """Return the looks of each network up to a step."""
        return [
            [look for look in looks if look.step <= last]
            for looks, last in zip(self._looks, steps, strict=True)
        ]
