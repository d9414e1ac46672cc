"""In which order the training states come, and which units are dropped."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.learning.course import Course
from engine.learning.fast_mlp import STATES_MULTIPLE

# Sets the stream of dropout apart from that of the order, which has the same key.
DROPOUT = 1
# Steps whose masks are drawn with one call.
MASKED_STEPS = 32


def padded_width(n_states: int) -> int:
    """Return ``n_states`` rounded up to a multiple of 32.

    A pass over any other number may round differently with another number of networks.
    """
    return -(-n_states // STATES_MULTIPLE) * STATES_MULTIPLE


def pad_states(states: NDArray[np.float32]) -> Tensor:
    """Return states as ``(n_inputs, B)``, with zeros behind them up to the padded width."""
    return pad_columns(np.ascontiguousarray(states.T))


def pad_columns(values: NDArray[np.float32]) -> Tensor:
    """Return values with zeros behind their last axis up to the padded width."""
    n_states = values.shape[-1]
    if n_states == padded_width(n_states):
        return torch.from_numpy(np.ascontiguousarray(values))
    padded = torch.zeros(*values.shape[:-1], padded_width(n_states))
    padded[..., :n_states] = torch.from_numpy(values)
    return padded


def epochs(course: Course) -> Iterator[Tensor]:
    """Yield the order of the states of one epoch after the other.

    An order is a whole number of batches of the padded width, each filled up with states that do
    not count. Unless the method keeps it, a short last batch is left out, and with fewer states
    than one batch an epoch is one batch drawn with replacement.
    """
    rng = _stream(course.order)
    n_states, size = len(course.train_states), course.batch_size
    width = padded_width(size)
    while True:
        if n_states < size and not course.method.keep_short_batch:
            order = rng.integers(n_states, size=size)
        else:
            order = rng.permutation(n_states)[: course.steps_per_epoch * size]
        if width == size and len(order) % size == 0:
            yield torch.from_numpy(order)
            continue
        rows = np.zeros((course.steps_per_epoch, width), order.dtype)
        for row, start in zip(rows, range(0, len(order), size), strict=True):
            batch = order[start : start + size]
            row[: len(batch)] = batch
        yield torch.from_numpy(rows.reshape(-1))


def batch_length(course: Course, batch: int) -> int:
    """Return how many states of a batch of an epoch count."""
    if not course.method.keep_short_batch:
        return course.batch_size
    return min(course.batch_size, len(course.train_states) - batch * course.batch_size)


def dropout_masks(course: Course, widths: tuple[int, ...]) -> Iterator[list[Tensor] | None]:
    """Yield what the units of each hidden layer are multiplied with at each step.

    A unit is dropped, separately for each state, with the method's probability; the others are
    scaled up so that the expectation stays (Srivastava et al. 2014, JMLR 15). All networks of a
    stack get the same masks, so that the outcome of one does not depend on the others.

    Yields:
        A float32 tensor ``(units, B)`` per hidden layer, or None where nothing is dropped.
    """
    rate = course.method.dropout
    rng = _stream((*course.order, DROPOUT))
    columns = padded_width(course.batch_size)
    while not rate:
        yield None
    while True:
        blocks = []
        for width in widths:
            kept = rng.random((MASKED_STEPS, width, columns), dtype=np.float32) >= rate
            blocks.append(torch.from_numpy(kept).float().div_(1 - rate))
        yield from ([block[step] for block in blocks] for step in range(MASKED_STEPS))


def _stream(key: tuple[int, ...]) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(key[0], spawn_key=key[1:]))
