"""Operators at work: what they raise, and what they return, before anybody relies on it."""

from __future__ import annotations

import copy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConceptionError
from populations.errors import GenomeError, GenomeShapeError
from populations.network import NetworkSpec, Weights
from populations.plans import Mutator, Operator
from populations.reasons import shortened, told

Own = TypeVar("Own", Operator, Mutator)

# What NumPy and mappings say when somebody writes into what is read-only.
WRITES = ("read-only", "WRITEABLE", "mappingproxy")
# Packages whose lines say nothing to the author of an operator; besides them Python's own.
NOT_THE_AUTHORS = {"engine", "strategies", "populations", "numpy", "scipy", "torch"}


@contextmanager
def blamed(culprit: str) -> Iterator[None]:
    """Turn whatever user code raises into a reason that names it.

    Operators are code of the user's own, which may raise anything; a child that fails must never
    end a run. This is the one place where that boundary is crossed.

    Raises:
        ConceptionError: Anything was raised.
        MemoryError: There was not enough memory. That may be the machine's fault, so that it is
            for the executor to try the child again.
    """
    try:
        yield
    except GenomeError as error:
        raise ConceptionError(shortened(str(error))) from error  # names the operator itself
    except MemoryError as error:
        reason = told(error).partition(": ")[2] or "out of memory"
        raise MemoryError(f"{culprit}: {reason}{where_raised(error)}") from error
    except (Exception, SystemExit) as error:
        said, where = told(error), where_raised(error)
        if any(word in said for word in WRITES):
            raise ConceptionError(
                f"{culprit} writes into what it was given, which is read-only: "
                f"{said.partition(': ')[2]}; copy what you want to change{where}"
            ) from error
        raise ConceptionError(f"{culprit}: {said}{where}") from error


def where_raised(error: BaseException) -> str:
    """Return the last line of the author's that an error came through, `` (my_ops.py, line 12)``.

    Only the name of the file is told, since its folder differs between machines. It is that of the
    code, so that a module that was sent to a worker has it, too.

    Returns:
        Nothing where there is no such line, as for a built-in operator.
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package not in NOT_THE_AUTHORS and package not in sys.stdlib_module_names:
            return f" ({shortened(PurePath(frame.f_code.co_filename).name)}, line {line})"
    return ""


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
            f"attributes that cannot be, such as an open file{where_raised(error)}"
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
    returned: Any = weights
    if returned is None:
        raise GenomeShapeError(f"the {owner} is missing: it returned nothing, not a dictionary")
    spec.check(weights, f"the {owner}")
    return {name: np.array(weights[name]) for name in spec.shapes}
