"""Checks of what an operator of any kind says of itself, and of its way to the workers."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from strategies.registry import NAME
from strategies.testing.report import Fault, raised

KEEP = "keep every constructor argument, as it was given, in an attribute of the same name"


class Declared(Protocol):
    """What operators of all kinds have."""

    @property
    def params(self) -> dict[str, Any]:
        """Constructor arguments by name."""
        ...


def name_faults(operator: Declared) -> Iterator[Fault]:
    """Find a name that cannot stand in a configuration."""
    name = getattr(operator, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield Fault(f"has the name {name!r}", "set a class attribute 'name' in snake_case")


def params_faults(operator: Declared) -> Iterator[Fault]:
    """Find arguments that are forgotten, or changed, between constructor and ``params``."""
    try:
        params = operator.params
        rebuilt = type(operator)(**params).params
    except Exception as error:  # noqa: BLE001  # the operator is code of the user's own
        yield Fault(f"cannot be built again from its params: it {raised(error, operator)}", KEEP)
        return
    if rebuilt != params:
        yield Fault(f"built from the params {params} has the params {rebuilt}", KEEP)


def needs_faults(operator: Declared, known: Sequence[str]) -> Iterator[Fault]:
    """Find needs that nobody can meet."""
    needs: Any = getattr(operator, "needs", None)
    if not isinstance(needs, tuple):
        mend = f"needs = ({needs!r},)" if isinstance(needs, str) else "needs = ('states',)"
        yield Fault(f"has the needs {needs!r}, which are no tuple", f"write {mend}")
        return
    for need in needs:
        if need not in known:
            close = difflib.get_close_matches(str(need), known, 1)
            guess = f"did you mean {close[0]!r}? " if close else ""
            yield Fault(f"needs {need!r}", f"{guess}there are {', '.join(known)}")


def pickled(operator: Any) -> tuple[Any, Fault | None]:
    """Return what a worker gets of an operator, or the fault that it cannot get it."""
    try:
        return pickle.loads(pickle.dumps(operator)), None
    except Exception as error:  # noqa: BLE001  # the operator is code of the user's own
        return None, Fault(
            f"cannot be pickled: it {raised(error, operator)}",
            "define the class at the top of a module, and keep no functions or files on it",
        )
