from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import pytest

from populations.network import NetworkSpec
from strategies.errors import ConformanceError
from strategies.mutation import GaussianMutation, Mutation, Newborn
from strategies.testing import check_mutation, examine_mutation
from strategies.testing.report import raise_failed


class Shift(Mutation):
    """A correct mutation; the classes below break it in one way each."""

    name = "shift"
    step_size = "scale"
    step_size_range = (0.0, 2.0)

    def __init__(self, scale: float = 0.5, share: float = 1.0) -> None:
        self.scale = scale
        self.share = share

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        return {name: t + np.float32(self.scale) for name, t in child.weights.items()}


class NoStep(Shift):
    step_size = None


class UsesStates(Shift):
    needs = ("states",)

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        assert child.states is not None
        assert child.states.shape[1] == child.spec.n_inputs
        return super().mutate(child, rng)


class Undeclared(UsesStates):
    needs = ()


class NeedsFisher(Shift):
    needs: Any = ("fisher",)


class Alias(Shift):
    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        return child.weights


class InPlace(Shift):
    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        for tensor in child.weights.values():
            tensor += 1
        return super().mutate(child, rng)


class WritesStates(UsesStates):
    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        assert child.states is not None
        child.states[0] = 0
        return super().mutate(child, rng)


class OneMatrix(Shift):
    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        name = child.spec.matrices[0]
        return {name: super().mutate(child, rng)[name]}


class Doubles(Shift):
    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        return {k: v.astype(np.float64) for k, v in super().mutate(child, rng).items()}


class DividesByRow(Shift):
    """Gives NaN for a row of zeros."""

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        mutant = super().mutate(child, rng)
        for name in child.spec.matrices:
            rows = child.weights[name]
            with np.errstate(all="ignore"):
                mutant[name] = rows / np.abs(rows).max(axis=1, keepdims=True)
        return mutant


class GlobalRandomness(Shift):
    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        np.random.standard_normal()  # noqa: NPY002  # the fault to be found
        return super().mutate(child, rng)


class Counts(NoStep):
    calls = 0

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        self.calls += 1
        return {k: v + np.float32(self.calls) for k, v in super().mutate(child, rng).items()}


class KeepsFirst(NoStep):
    """Adds to every child what it drew for the first one of its shape; kept on the class."""

    drawn: ClassVar[dict[Any, Any]] = {}

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        mutant = {}
        for name, tensor in child.weights.items():
            noise = rng.standard_normal(tensor.shape, np.float32)
            mutant[name] = tensor + self.drawn.setdefault((name, tensor.shape), noise)
        return mutant


class Raises(Shift):
    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        raise KeyError("network.8.weight")


class WrongStep(Shift):
    step_size = "size"


class DeafToStep(Shift):
    def with_step_size(self, value: float) -> Self:
        return type(self)()


class ChangesItself(Shift):
    def with_step_size(self, value: float) -> Self:
        self.scale = min(max(value, 0.0), 2.0)
        return self


class ForgetsShare(Shift):
    def with_step_size(self, value: float) -> Self:
        return type(self)(min(max(value, 0.0), 2.0), share=0.5)


class RefusesZero(Shift):
    def __init__(self, scale: float = 0.5) -> None:
        if scale <= 0:
            raise ValueError("scale must be above 0")
        super().__init__(scale)


class NoNumber(Shift):
    def __init__(self, scale: Any = None) -> None:
        self.scale = scale

    def mutate(self, child: Newborn, rng: np.random.Generator) -> Any:
        return {name: tensor.copy() for name, tensor in child.weights.items()}


@pytest.mark.parametrize("mutation", [Shift(), NoStep(), UsesStates(), GaussianMutation(0.2, 0.5)])
def test_correct_mutations_pass(mutation: Mutation) -> None:
    check_mutation(mutation)


@pytest.mark.parametrize(
    ("mutation", "checks", "message"),
    [
        (Undeclared(), ["errors", "declared"], r"is None unless .* set needs = \('states',\) in"),
        (NeedsFisher(), ["needs"], "needs 'fisher'; there are states"),
        (Alias(), ["new arrays"], r"network.0.weight as memory of child.weights\['network.0.we"),
        (InPlace(), ["read-only"], "writes into what it is given: .*; make new arrays"),
        (WritesStates(), ["read-only"], "writes into what it is given"),
        (OneMatrix(), ["tensors"], "loop over spec.shapes"),
        (Doubles(), ["dtype"], "as float64 instead of float32"),
        (DividesByRow(), ["finite"], "NaN or infinity in .* .given a child with dead units"),
        (GlobalRandomness(), ["global rng"], "uses the global generator of numpy.random"),
        (Counts(), ["repeatable"], "keep no state between calls"),
        (KeepsFirst(), ["repeatable"], "where it has made others before .* keep nothing between"),
        (Raises(), ["errors"], "raises KeyError in line .*: 'network.8.weight' "),
        (WrongStep(), ["step size"], "has the step size 'size', .* which are scale, share"),
        (DeafToStep(), ["step size"], "takes the step size 0.75 and has .* give it scale = 0.75"),
        (ChangesItself(), ["step size"], "is changed by with_step_size; return another"),
        (ForgetsShare(), ["step size"], "and leave the others as they are"),
        (RefusesZero(), ["step size"], "the step size 0: it raises ValueError in line .* above 0"),
        (NoNumber(), ["step size"], "has the step size scale = None; keep a number"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Mutation) else "",
)
def test_each_fault_is_found_and_explained(
    mutation: Mutation, checks: list[str], message: str
) -> None:
    outcomes = examine_mutation(mutation)
    assert [outcome.check for outcome in outcomes if outcome.failed] == checks
    with pytest.raises(ConformanceError, match=f"(?s)^mutation '.*{message}"):
        raise_failed("mutation", mutation, outcomes)


def test_a_mutation_without_step_size_is_not_asked_for_another() -> None:
    outcomes = {outcome.check: outcome for outcome in examine_mutation(NoStep())}
    assert outcomes["step size"].skipped == "it has no step size: step_size = None"


def test_the_specs_to_check_with_can_be_chosen() -> None:
    check_mutation(Shift(), specs=[NetworkSpec((9,), (11,), 5)])
    with pytest.raises(ConformanceError, match="a network 9-11-5, seed 0"):
        check_mutation(Alias(), specs=[NetworkSpec((9,), (11,), 5)])


def test_a_class_is_refused_with_how_to_make_an_instance() -> None:
    with pytest.raises(TypeError, match=r"^pass an instance: Shift\(\)$"):
        check_mutation(Shift)  # type: ignore[arg-type]
