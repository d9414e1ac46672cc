"""Operators at work: what they raise, and what they return, before anybody relies on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConceptionError
from populations.errors import GenomeError
from populations.network import NetworkSpec, Weights

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
        raise ConceptionError(str(error)) from error  # names the operator itself
    except (Exception, SystemExit) as error:
        if any(word in str(error) for word in WRITES):
            raise ConceptionError(
                f"{culprit} writes into what it was given, which is read-only: {error}; "
                "copy what you want to change"
            ) from error
        raise ConceptionError(f"{culprit}: {type(error).__name__}: {error}") from error


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
