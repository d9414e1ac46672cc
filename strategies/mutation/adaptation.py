"""Self-adaptation: step sizes that are inherited, changed at random, and selected with a child."""

from __future__ import annotations

import math
import sys

import numpy as np

from populations.plans import Mutator
from populations.reasons import told
from strategies.checks import number
from strategies.mutation.contract import Mutation

_NEAR = (0.99, 1.01)  # a size at an end of its range can change in one direction only


def check_adaptable(mutation: Mutation) -> None:
    """Refuse a mutation whose step size cannot adapt itself.

    Raises:
        ValueError: It has no step size; that is no argument of its constructor, or no number above
            0; or the mutation refuses it, or all sizes next to it.
    """
    name = mutation.step_size
    if name is None:
        raise ValueError(f"the mutation {mutation.name} has no step size to adapt")
    if name not in mutation.params:
        raise ValueError(
            f"the mutation {mutation.name} names {name!r} as its step size, which is no argument "
            "of its constructor"
        )
    size = number(f"the step size {name} of the mutation {mutation.name}", mutation.params[name])
    if size <= 0:
        raise ValueError(
            f"the step size {name} of the mutation {mutation.name} is {size:g}, and must be above "
            "0 to adapt: it is multiplied with random factors"
        )
    _resized(mutation, mutation.params[name])
    try:
        _resized(mutation, size * _NEAR[0])
    except ValueError:
        _resized(mutation, size * _NEAR[1])


def adapted(
    mutation: Mutation, parent: Mutator, deviation: float, rng: np.random.Generator
) -> Mutator:
    """Return how a child is mutated: as its parent was, but with another step size.

    It is the parent's times ``exp(deviation * z)`` with ``z ~ N(0, 1)``: the log-normal rule of
    Schwefel, as in Beyer & Schwefel 2002, "Evolution strategies - A comprehensive introduction",
    Natural Computing 1(1). Where the mutation refuses that size, the child has the parent's.

    Args:
        mutation: The configured mutation, which :func:`check_adaptable` has seen.
        parent: The mutation that the fitter parent was born with; the configured one where it was
            born with none, as students are.
        deviation: Standard deviation of the logarithm of the factor, at least 0.
        rng: Random stream; one number is taken from it.
    """
    assert mutation.step_size is not None, "it was checked"
    size = parent.params[mutation.step_size] * math.exp(deviation * rng.standard_normal())
    try:
        # A size of 0 could never grow again.
        return _resized(mutation, min(max(size, sys.float_info.min), sys.float_info.max))
    except ValueError:
        return parent


def _resized(mutation: Mutation, size: float) -> Mutation:
    """Return a mutation with another step size.

    Raises:
        ValueError: It refuses that size, with whatever error, or makes no number of it.
    """
    assert mutation.step_size is not None, "it was checked"
    try:
        other = mutation.with_step_size(size)
        number(mutation.step_size, other.params[mutation.step_size])
    except (Exception, SystemExit) as error:  # its constructor is code of the user's own
        raise ValueError(
            f"the mutation {mutation.name} refuses the step size {size:g}: {told(error)}"
        ) from error
    return other
