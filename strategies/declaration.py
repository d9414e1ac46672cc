"""What an operator of any kind says of itself, and what can be wrong with that.

The registry asks this before a run, the conformance suite among much else.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from strategies.equality import alike
from strategies.operator import NEEDS, CrossoverOperator
from strategies.user_code import raised, shown

NAME = re.compile(r"[a-z][a-z0-9_]*")
MUTATION_NEEDS = ("states",)
KEEP = "keep every constructor argument, as it was given, in an attribute of the same name"

_UNNAMED = {
    inspect.Parameter.VAR_POSITIONAL: (
        "takes *{} in its constructor, which no configuration can give",
        "give every argument a name of its own",
    ),
    inspect.Parameter.VAR_KEYWORD: (
        "takes **{} in its constructor, which nothing records",
        "give every argument a name of its own",
    ),
    inspect.Parameter.POSITIONAL_ONLY: (
        "takes the argument {!r} in its constructor by position only",
        "take out the '/': parameters are given by name",
    ),
}


class Fault(NamedTuple):
    """One way in which an operator breaks its contract.

    Attributes:
        problem: What it does, to be read behind its name.
        mend: What its author can do.
        where: What it was given, or empty where that does not matter.
    """

    problem: str
    mend: str
    where: str = ""


class Declared(Protocol):
    """What operators of all kinds have."""

    @property
    def params(self) -> dict[str, Any]:
        """Constructor arguments by name."""
        ...


def declaration_faults(operator: Any) -> Iterator[Fault]:
    """Find what is wrong with anything that an operator of any kind declares but its params."""
    yield from name_faults(operator)
    yield from call_faults(operator)
    if isinstance(operator, CrossoverOperator):
        yield from count_faults(operator)
        yield from needs_faults(operator, NEEDS)
        yield from flag_faults(operator)
    elif hasattr(operator, "mutate"):  # whose contract imports the registry, and that this file
        yield from needs_faults(operator, MUTATION_NEEDS)
        yield from step_name_faults(operator)  # its sizes matter only where they adapt themselves


def first_fault(faults: Iterator[Fault], operator: object) -> Fault | None:
    """Return the first fault that is found, an error of the operator's own included, or None."""
    try:
        return next(faults, None)
    except Exception as error:  # noqa: BLE001  # the operator is code of the user's own
        return Fault(raised(error, operator), "mend that line")


def name_faults(operator: Declared) -> Iterator[Fault]:
    """Find a name that cannot stand in a configuration, or is not that of the class."""
    name = getattr(operator, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield Fault(f"has the name {name!r}", "set a class attribute 'name' in snake_case")
    elif name != getattr(type(operator), "name", None):
        mend = "do not set 'name' in the constructor"
        yield Fault(f"calls itself {name!r}, unlike its class", mend)


def missing_methods(cls: type[Any]) -> str:
    """Return the methods that an incomplete class has to define, ``cross(self, parents, rng)``."""
    return ", ".join(_written(cls, method) for method in sorted(cls.__abstractmethods__))


def call_faults(operator: object) -> Iterator[Fault]:
    """Find methods of the contract that cannot be called as the contract says."""
    for base in type(operator).__mro__:
        if not base.__module__.startswith("strategies."):
            continue  # what the author's own classes ask of each other
        for method in sorted(getattr(base, "__abstractmethods__", ())):
            asked = inspect.signature(getattr(base, method))
            try:
                given = inspect.signature(getattr(operator, method))
            except (TypeError, ValueError):  # nothing that tells how to call it
                continue
            try:
                given.bind(*list(asked.parameters)[1:])
            except TypeError:
                yield Fault(
                    f"takes {_written(type(operator), method)}", f"define {_written(base, method)}"
                )


def _written(cls: type[Any], method: str) -> str:
    """Return a method as it is defined, without annotations."""
    try:
        parameters = inspect.signature(getattr(cls, method)).parameters.values()
    except (TypeError, ValueError):  # no function, as an abstract property
        return method
    plain = [each.replace(annotation=inspect.Parameter.empty) for each in parameters]
    return f"{method}{inspect.Signature(plain)}"


def constructor_faults(cls: type[Any]) -> Iterator[Fault]:
    """Find arguments of a constructor that have no name to give them by."""
    for each in inspect.signature(cls).parameters.values():
        if each.kind in _UNNAMED:
            problem, mend = _UNNAMED[each.kind]
            yield Fault(problem.format(each.name), mend)


def params_faults(operator: Declared) -> Iterator[Fault]:
    """Find arguments that are forgotten, or changed, between constructor and ``params``."""
    unnamed = list(constructor_faults(type(operator)))
    if unnamed:
        yield from unnamed
        return
    try:
        params = operator.params
        endless = [name for name, value in params.items() if _holds_itself(value)]
        rebuilt = type(operator)(**params).params
        changed = [name for name in {**params, **rebuilt} if not _kept(name, params, rebuilt)]
    except Exception as error:  # noqa: BLE001  # the operator is code of the user's own
        yield Fault(f"cannot be built again from its params: it {raised(error, operator)}", KEEP)
        return
    for name in endless:
        mend = "keep plain values: numbers, text, arrays, and lists and dictionaries of these"
        yield Fault(f"has the parameter {name!r}, which holds itself", mend)
    for name in changed:
        was, became = shown(params.get(name)), shown(rebuilt.get(name))
        yield Fault(f"changes a parameter: built from {name} = {was} it has {became}", KEEP)


def _holds_itself(value: Any) -> bool:
    try:
        json.dumps(value, default=lambda _: None, skipkeys=True)
    except (ValueError, RecursionError):
        return True
    return False


def _kept(name: str, params: dict[str, Any], rebuilt: dict[str, Any]) -> bool:
    if name not in params or name not in rebuilt:
        return False
    return _holds_itself(params[name]) or alike(params[name], rebuilt[name])


def needs_faults(operator: object, known: Sequence[str]) -> Iterator[Fault]:
    """Find needs that nobody can meet; of an instance, or of a class."""
    needs: Any = getattr(operator, "needs", None)
    if not isinstance(needs, tuple):
        mend = f"needs = ({needs!r},)" if isinstance(needs, str) else "needs = () for none"
        yield Fault(f"has the needs {shown(needs)}, which are no tuple", f"write {mend}")
        return
    for need in needs:
        if need not in known:
            close = difflib.get_close_matches(str(need), known, 1)
            guess = f"did you mean {close[0]!r}? " if close else ""
            yield Fault(f"needs {need!r}", f"{guess}there are {', '.join(known)}")


def count_faults(operator: CrossoverOperator) -> Iterator[Fault]:
    """Find what is no number of parents."""
    n_parents: Any = operator.n_parents
    if type(n_parents) is not int or n_parents < 0:
        mend = "set a class attribute 'n_parents' to a whole number of at least 0"
        yield Fault(f"has n_parents {shown(n_parents)}", mend)


def flag_faults(operator: CrossoverOperator) -> Iterator[Fault]:
    """Find flags that are neither True nor False."""
    for name in ("same_widths", "idempotent"):
        value = getattr(operator, name)
        if not isinstance(value, bool):
            yield Fault(f"has {name} {shown(value)}", f"set {name} to True or False")


def step_name_faults(mutation: Any) -> Iterator[Fault]:
    """Find a step size that is no argument."""
    name, params = mutation.step_size, mutation.params
    if name is not None and name not in params:
        mend = f"name one of its arguments, which are {', '.join(params) or 'none'}"
        yield Fault(f"has the step size {name!r}, which is none of its arguments", mend)


def step_faults(mutation: Any) -> Iterator[Fault]:
    """Find step sizes that are not what self-adaptation can change."""
    unnamed = list(step_name_faults(mutation))
    name: Any = mutation.step_size
    if name is None or unnamed:
        yield from unnamed
        return
    size, (low, high) = mutation.params[name], mutation.step_size_range
    if isinstance(size, bool) or not isinstance(size, int | float):
        yield Fault(f"has the step size {name} = {shown(size)}", "keep a number in it")
        return
    for asked in (size * 1.5, low, low - 1.0, high, high + 1.0, 1e3):
        if math.isfinite(asked):
            yield from _changed_step_faults(mutation, name, asked, min(max(asked, low), high))


def _changed_step_faults(
    mutation: Any, name: str, asked: float, expected: float
) -> Iterator[Fault]:
    params = mutation.params
    try:
        changed = mutation.with_step_size(asked).params
    except Exception as error:  # noqa: BLE001  # the mutation is code of the user's own
        mend = f"take every {name} in step_size_range, narrow that, or set step_size to None"
        yield Fault(f"refuses the step size {asked:g}: it {raised(error, mutation)}", mend)
        return
    if not alike(changed, {**params, name: expected}):
        what = f"takes the step size {asked:g} and has the params {shown(changed)}"
        yield Fault(what, f"give it {name} = {expected:g} and leave the others as they are")
    if not alike(mutation.params, params):
        yield Fault("is changed by with_step_size", "return another instance")
