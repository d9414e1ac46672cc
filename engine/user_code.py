"""Operators at work: what they raise, and what they return, before anybody relies on it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConceptionError
from populations.errors import GenomeError
from populations.network import NetworkSpec, Weights
from populations.plans import Mutator, Operator
from populations.reasons import shortened, told

Own = TypeVar("Own", Operator, Mutator)

# What NumPy and mappings say when somebody writes into what is read-only.
WRITES = ("read-only", "WRITEABLE", "mappingproxy")


@contextmanager
def blamed(culprit: str) -> Iterator[None]:
    """Turn whatever user code raises into a reason that names it.

    Operators are code of the user's own, which may raise anything; a child that fails must never
    end a run. This is the one place where that boundary is crossed.

    Raises:
        ConceptionError: Anything was raised.
    """
    try:
        yield
    except GenomeError as error:
        raise ConceptionError(shortened(str(error))) from error  # names the operator itself
    except (Exception, SystemExit) as error:
        said = told(error)
        if any(word in said for word in WRITES):
            raise ConceptionError(
                f"{culprit} writes into what it was given, which is read-only: "
                f"{said.partition(': ')[2]}; copy what you want to change"
            ) from error
        raise ConceptionError(f"{culprit}: {said}") from error


def copied(configured: Own) -> Own:
    """Return a copy of an operator or a mutation, for one child alone.

    What it does to itself then reaches neither other children nor the record, also where nothing is
    sent to a worker. It is not pickled: classes of a user's file have no module to be found in.

    Raises:
        ConceptionError: It cannot be copied.
    """
    try:
        return copy.deepcopy(configured)
    except (Exception, SystemExit) as error:
        raise ConceptionError(
            f"{configured.name} cannot be copied for its child: {told(error)}; keep nothing in its "
            "attributes that cannot be, such as an open file"
        ) from error


def checked(spec: NetworkSpec, weights: Weights, owner: str) -> dict[str, NDArray[np.float32]]:
    """Return a copy of what user code gave, if it is a network of the right architecture.

    Args:
        spec: The architecture.
        weights: What was returned; it may be anything.
        owner: Whose weights these are, such as ``child of unit``.

    Raises:
        GenomeError: A tensor is missing, unexpected, of another shape or dtype, or not finite.
    """
    spec.check(weights, f"the {owner}")
    return {name: np.array(weights[name]) for name in spec.shapes}
