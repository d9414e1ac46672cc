"""Optimizers over a flat buffer, with a learning rate per element.

They give the numbers of their namesakes in ``torch.optim``, which takes two seconds to import and
knows no learning rate per network of a stack. All update in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
ADAMW_WEIGHT_DECAY = 0.01
RMSPROP_DECAY = 0.99


class Optimizer(Protocol):
    """Takes steps against a gradient.

    Attributes:
        learning_rates: A learning rate per element; may be overwritten between steps.
    """

    learning_rates: Tensor

    def step(self, decay: float) -> None:
        """Take one step with all learning rates multiplied by ``decay``."""
        ...


class Adam:
    """Adam: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.

    Args:
        parameters: Buffer that is trained, in place.
        gradients: Buffer that holds the gradient at every step.
        learning_rates: Learning rate of each element.
        weight_decay: Added to the gradient, times the parameter.
        decoupled: Whether the decay shrinks the parameter itself instead, by the learning rate
            times ``weight_decay``: AdamW, Loshchilov & Hutter 2019, arXiv:1711.05101.
    """

    def __init__(
        self,
        parameters: Tensor,
        gradients: Tensor,
        learning_rates: Tensor,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        self.learning_rates = learning_rates
        self._parameters = parameters
        self._gradients = gradients
        self._weight_decay = weight_decay
        self._decoupled = decoupled
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
        if self._weight_decay and self._decoupled:
            shrink = self.learning_rates * (-decay * self._weight_decay)
            self._parameters.addcmul_(self._parameters, shrink)
        elif self._weight_decay:
            self._gradients.add_(self._parameters, alpha=self._weight_decay)
        self._mean.lerp_(self._gradients, 1 - BETA_1)
        self._square.mul_(BETA_2).addcmul_(self._gradients, self._gradients, value=1 - BETA_2)
        torch.sqrt(self._square, out=self._root)
        self._root.mul_(correction_2**-0.5).add_(EPSILON)
        torch.mul(self._mean, self.learning_rates, out=self._update)
        self._parameters.addcdiv_(self._update, self._root, value=-decay / correction_1)


class SGD:
    """Stochastic gradient descent with heavy-ball momentum (Polyak 1964).

    ``v = momentum * v + g``, then ``p = p - rate * v``.

    Args:
        parameters: Buffer that is trained, in place.
        gradients: Buffer that holds the gradient at every step.
        learning_rates: Learning rate of each element.
        momentum: In ``[0, 1)``.
        weight_decay: Added to the gradient, times the parameter.
    """

    def __init__(
        self,
        parameters: Tensor,
        gradients: Tensor,
        learning_rates: Tensor,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.learning_rates = learning_rates
        self._parameters = parameters
        self._gradients = gradients
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._velocity = torch.zeros_like(parameters)

    def step(self, decay: float) -> None:
        """Take one step with all learning rates multiplied by ``decay``."""
        if self._weight_decay:
            self._gradients.add_(self._parameters, alpha=self._weight_decay)
        self._velocity.mul_(self._momentum).add_(self._gradients)
        self._parameters.addcmul_(self._velocity, self.learning_rates, value=-decay)


class RMSprop:
    """RMSprop: Tieleman & Hinton 2012, lecture 6.5 of "Neural Networks for Machine Learning".

    Args:
        parameters: Buffer that is trained, in place.
        gradients: Buffer that holds the gradient at every step.
        learning_rates: Learning rate of each element.
        alpha: Share of the old mean square that is kept, in ``[0, 1)``.
        weight_decay: Added to the gradient, times the parameter.
    """

    def __init__(
        self,
        parameters: Tensor,
        gradients: Tensor,
        learning_rates: Tensor,
        alpha: float = RMSPROP_DECAY,
        weight_decay: float = 0.0,
    ) -> None:
        self.learning_rates = learning_rates
        self._parameters = parameters
        self._gradients = gradients
        self._alpha = alpha
        self._weight_decay = weight_decay
        self._square = torch.zeros_like(parameters)

    def step(self, decay: float) -> None:
        """Take one step with all learning rates multiplied by ``decay``."""
        if self._weight_decay:
            self._gradients.add_(self._parameters, alpha=self._weight_decay)
        self._square.mul_(self._alpha)
        self._square.addcmul_(self._gradients, self._gradients, value=1 - self._alpha)
        root = self._square.sqrt().add_(EPSILON)
        self._parameters.addcdiv_(self._gradients * self.learning_rates, root, value=-decay)


OPTIMIZERS: Mapping[str, tuple[Callable[..., Optimizer], Mapping[str, float | bool]]] = {
    "adam": (Adam, {"weight_decay": 0.0}),
    "adamw": (Adam, {"weight_decay": ADAMW_WEIGHT_DECAY, "decoupled": True}),
    "sgd": (SGD, {"momentum": 0.0, "weight_decay": 0.0}),
    "rmsprop": (RMSprop, {"alpha": RMSPROP_DECAY, "weight_decay": 0.0}),
}
"""By name: the class, and its options with their defaults."""


def make_optimizer(
    name: str,
    options: Mapping[str, float],
    parameters: Tensor,
    gradients: Tensor,
    learning_rates: Tensor,
) -> Optimizer:
    """Build an optimizer by name.

    Raises:
        KeyError: There is no such optimizer.
        TypeError: It has no such option.
    """
    build, defaults = OPTIMIZERS[name]
    return build(parameters, gradients, learning_rates, **{**defaults, **options})
