"""Checks of the tensors that a crossover or a mutation gives, and of how it came to them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec
from strategies.declaration import Fault
from strategies.errors import NeedError
from strategies.testing.observe import Call, arrays_in, equal, observe, same
from strategies.testing.report import NotAsked, error_fault
from strategies.testing.state import State
from strategies.user_code import raised

COPY = (
    "make new arrays of what you change, and copies of dictionaries such as spec.shapes; parents, "
    "facts and states are shared with others"
)
NO_STATE = (
    "keep nothing between calls that depends on rng or on the parents, neither on the operator nor "
    "on its class or module: each worker makes other children before this one"
)


class Case(Protocol):
    """What an operator is called with."""

    @property
    def where(self) -> str:
        """What is given, for messages."""
        ...

    @property
    def spec(self) -> NetworkSpec:
        """Architecture that the child has to have."""
        ...

    @property
    def given(self) -> Mapping[str, Any]:
        """All arrays that are given, in nested mappings and sequences."""
        ...

    def make(self, operator: Any) -> Any:
        """Return what the operator makes of this, with the same random stream every time."""
        ...

    def writable(self) -> Self:
        """Return the same case in arrays that can be written to."""
        ...


class Trial(NamedTuple):
    """A case, and what an operator did with it."""

    case: Case
    call: Call

    @property
    def where(self) -> str:
        """What was given, for messages."""
        return self.case.where

    @property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """The arrays of the right name that came back; their shapes and types may be wrong."""
        result = self.call.result if isinstance(self.call.result, Mapping) else {}
        found = {name: result.get(name) for name in self.case.spec.shapes}
        return {name: each for name, each in found.items() if isinstance(each, np.ndarray)}


class Trials:
    """All children that one operator is asked for, made when a check first looks at them.

    Args:
        operator: The operator.
        state: What it held before it was called for the first time.
        cases: Gives what it is called with; raises :class:`NotAsked` where it cannot be called.
    """

    def __init__(self, operator: Any, state: State, cases: Callable[[], Iterable[Case]]) -> None:
        self.operator = operator
        self.state = state
        self._cases = cases

    @functools.cached_property
    def all(self) -> list[Trial]:
        """One trial of every case."""
        operator = self.state.restored()  # as it was before other checks
        return [self.trial(case, operator) for case in self._cases()]

    @functools.cached_property
    def again(self) -> list[Trial]:
        """Another trial of every case.

        They are made in reverse order, so that what an operator remembers is something else.
        """
        backwards = [self.trial(case, self.operator) for case, _ in reversed(self.all)]
        return backwards[::-1]

    @functools.cached_property
    def alone(self) -> list[Trial]:
        """Another trial of every case, each as if it were the first one."""
        return [self.trial(case, self.state.restored()) for case, _ in self.all]

    @property
    def children(self) -> list[Trial]:
        """The trials that gave anything."""
        return self._some([trial for trial in self.all if trial.call.error is None])

    @property
    def pairs(self) -> list[tuple[Trial, Trial]]:
        """The trials that gave something twice."""
        pairs = zip(self.all, self.again, strict=True)
        return self._some([(a, b) for a, b in pairs if a.call.error is b.call.error is None])

    def trial(self, case: Case, operator: Any) -> Trial:
        """Call an operator, which may be a copy of the one that is checked."""
        return Trial(case, observe(lambda: case.make(operator), case.where))

    def _some(self, found: list[Any]) -> list[Any]:
        if not found:
            raise NotAsked("it gives nothing that could be checked")
        return found


def error_faults(trials: Trials) -> Iterator[Fault]:
    """Find errors of the operator's own; what it must not read or write is another check."""
    for trial in trials.all:
        error = trial.call.error
        if error is not None and not isinstance(error, NeedError) and not trial.call.wrote:
            mend = "every architecture and every finite weight has to work; mend that line"
            yield error_fault(error, trials.operator, mend, trial.where)


def need_faults(trials: Trials) -> Iterator[Fault]:
    """Find facts that are read without being declared."""
    for trial in trials.all:
        if isinstance(trial.call.error, NeedError):
            told, _, mend = str(trial.call.error).partition("; ")
            what = f"reads what it does not declare: {told}"
            yield Fault(what, mend or "declare it in the class attribute 'needs'", trial.where)


def tensor_faults(trials: Trials) -> Iterator[Fault]:
    """Find tensors that are missing, too many, or of another shape."""
    for trial in trials.children:
        child, shapes = trial.call.result, trial.case.spec.shapes
        if not isinstance(child, Mapping):
            mend = "return a dictionary of arrays by tensor name"
            yield Fault(f"returns a {type(child).__name__}", mend, trial.where)
        elif set(child) != set(shapes):
            what = f"returns the tensors {sorted(map(str, child))} instead of {sorted(shapes)}"
            yield Fault(what, "loop over spec.shapes", trial.where)
        else:
            for name, shape in shapes.items():
                if not isinstance(child[name], np.ndarray):
                    what = f"returns {name} as a {type(child[name]).__name__}"
                    yield Fault(what, "return NumPy arrays", trial.where)
                    break
                if child[name].shape != shape:
                    what = f"returns {name} of shape {child[name].shape} instead of {shape}"
                    yield Fault(what, "keep the shapes of the first parent", trial.where)
                    break


def dtype_faults(trials: Trials) -> Iterator[Fault]:
    """Find tensors that are not float32."""
    for trial in trials.children:
        for name, tensor in trial.tensors.items():
            if tensor.dtype != np.float32:
                what = f"returns {name} as {tensor.dtype} instead of float32"
                yield Fault(what, "end with .astype(numpy.float32)", trial.where)
                break


def finite_faults(trials: Trials) -> Iterator[Fault]:
    """Find NaN and infinity."""
    for trial in trials.children:
        for name, tensor in trial.tensors.items():
            if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
                what = f"returns NaN or infinity in {name}"
                mend = "guard divisions by zero and logarithms, and compute in float64"
                yield Fault(what, mend, trial.where)
                break


def warning_faults(trials: Trials) -> Iterator[Fault]:
    """Find what would be warned of once per child in the log of a run."""
    for trial in trials.all:
        if trial.call.warning:
            mend = "guard the division, or compute it under numpy.errstate where that is meant"
            yield Fault(f"makes NumPy warn of '{trial.call.warning}'", mend, trial.where)


def new_array_faults(trials: Trials) -> Iterator[Fault]:
    """Find memory that a child shares with what was given, with another child, or with itself."""
    for trial, sibling in trials.pairs:
        fault = _shared(trial, sibling)
        if fault is not None:
            yield fault


def _shared(trial: Trial, sibling: Trial) -> Fault | None:
    where = trial.where
    mine, everything = list(trial.tensors.items()), list(_arrays(trial.case.given))
    for index, (name, tensor) in enumerate(mine):
        for path, given in everything:
            if np.shares_memory(tensor, given):
                mend = "return a copy of what is taken over unchanged"
                return Fault(f"returns {name} as memory of {path}", mend, where)
        for other, its in sibling.tensors.items():
            if np.shares_memory(tensor, its):
                mend = "make new arrays in every call, and keep none on the operator"
                what = f"returns {name} as memory of {other} of another child"
                return Fault(what, mend, where)
        for other, its in mine[:index]:
            if np.shares_memory(tensor, its):
                what = f"returns {name} as memory of {other}"
                return Fault(what, "give every tensor an array of its own", where)
    return None


def write_faults(trials: Trials) -> Iterator[Fault]:
    """Find writes into what was given, even where read-only arrays would stop them."""
    for trial in trials.all:
        if trial.call.wrote:
            what = f"writes into what it is given: it {raised(_error(trial), trials.operator)}"
            yield Fault(what, COPY, trial.where)
            continue
        loose, before = trial.case.writable(), trial.case.writable()
        trials.trial(loose, trials.operator)
        changed = _changed(before.given, loose.given)
        if changed:
            yield Fault(f"writes into {changed}", COPY, trial.where)


def _error(trial: Trial) -> BaseException:
    assert trial.call.error is not None, "it was stopped from writing"
    return trial.call.error


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return the path of the first array that was changed, added or removed, or nothing."""
    old, new = dict(_arrays(before)), dict(_arrays(after))
    for path in {**old, **new}:
        if path not in old or path not in new or not same(old[path], new[path]):
            return path
    return ""


def _arrays(given: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield what was given by path, ``parents[0]['network.0.weight']``."""
    for name, value in given.items():
        yield from arrays_in(value, name)


def repeat_faults(trials: Trials) -> Iterator[Fault]:
    """Find children that depend on more than the arguments."""
    for trial, again in trials.pairs:
        if not equal(trial.call.result, again.call.result):
            what = "gives another child for equal arguments and an equal rng"
            mend = (
                "draw all random numbers from rng, do not loop over sets, and keep no state "
                "between calls"
            )
            yield Fault(what, mend, trial.where)
    for trial, alone in zip(trials.all, trials.alone, strict=True):
        if (trial.call.error is None) != (alone.call.error is None) or not equal(
            trial.call.result, alone.call.result
        ):
            what = "gives another child where it has made others before"
            yield Fault(what, NO_STATE, trial.where)


def global_faults(trials: Trials) -> Iterator[Fault]:
    """Find uses of the random generators that all code shares."""
    for trial in trials.all:
        if trial.call.touched:
            what = f"uses the global generator of {trial.call.touched}"
            yield Fault(what, "draw all random numbers from rng", trial.where)


def pickle_faults(trials: Trials) -> Iterator[Fault]:
    """Find operators that a worker cannot get, or gets as another one."""
    if trials.state.pickle_fault is not None:
        yield trials.state.pickle_fault
        return
    for trial in trials.alone:
        copied = trials.trial(trial.case, trials.state.unpickled())
        if trial.call.error is None and not equal(trial.call.result, copied.call.result):
            mend = "keep everything it needs in attributes that are pickled"
            yield Fault("gives another child after pickling", mend, trial.where)


def twin_faults(twins: Trials) -> Iterator[Fault]:
    """Find children of equal parents that are unlike them, beyond rounding."""
    for trial in twins.children:
        parent = trial.case.given["parents"][0]
        for name, tensor in trial.tensors.items():
            if tensor.shape != parent[name].shape:
                break  # another check tells it
            if not np.allclose(tensor, parent[name], rtol=1e-5, atol=1e-6):
                what = f"makes something else of equal parents: {name} differs"
                mend = "give back the parent, or set 'idempotent = False' if this is meant"
                yield Fault(what, mend, trial.where)
                break
