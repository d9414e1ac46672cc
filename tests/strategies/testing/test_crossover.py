from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from populations.network import NetworkSpec
from strategies.crossover import CloneCrossover, WeightedCrossover
from strategies.errors import ConformanceError
from strategies.operator import CrossoverOperator, Family
from strategies.testing import SPECS, check_crossover_operator, examine_crossover
from strategies.testing.report import raise_failed


class Copy(CrossoverOperator):
    """A correct operator; the classes below break it in one way each."""

    name = "copy"
    n_parents = 2

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {name: tensor.copy() for name, tensor in parents[0].items()}


class Alias(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return parents[0]


class WritesTensor(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        parents[0][parents.spec.blocks[0].weight][:] = 0
        return super().cross(parents, rng)


class WritesMapping(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        first: Any = parents[0]
        first["extra"] = np.zeros(1)
        return super().cross(parents, rng)


class DropsTensor(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {k: v for k, v in super().cross(parents, rng).items() if k != "network.0.bias"}


class WrongShape(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {name: tensor.ravel() for name, tensor in super().cross(parents, rng).items()}


class Doubles(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {k: v.astype(np.float64) for k, v in super().cross(parents, rng).items()}


class NotFinite(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {k: np.full_like(v, np.nan) for k, v in super().cross(parents, rng).items()}


class NoMapping(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return list(super().cross(parents, rng).values())


class GlobalRandomness(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        first = np.random.random() < 0.5  # noqa: NPY002  # the fault to be found
        return {name: t.copy() for name, t in parents[0 if first else 1].items()}


class Counts(Copy):
    def __init__(self) -> None:
        self.calls = 0

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        self.calls += 1
        return {name: t.copy() for name, t in parents[self.calls % 2].items()}


class Reuses(Copy):
    def __init__(self) -> None:
        self.buffers: dict[str, Any] = {}

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        for name, tensor in parents[0].items():
            buffer = self.buffers.setdefault(f"{name}{tensor.shape}", np.empty_like(tensor))
            buffer[...] = tensor
        return {name: self.buffers[f"{name}{t.shape}"] for name, t in parents[0].items()}


Masks = dict[tuple[str, tuple[int, ...]], NDArray[np.bool_]]
MASKS: Masks = {}


class Masked(Copy):
    """Draws a mask for each tensor; those below keep the first one somewhere."""

    idempotent = False

    def masks(self) -> Masks:
        return {}

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        masks, child = self.masks(), {}
        for name, shape in parents.spec.shapes.items():
            mask = masks.setdefault((name, shape), rng.random(shape) < 0.5)
            child[name] = np.where(mask, parents[0][name], parents[1][name])
        return child


class MaskedByInstance(Masked):
    def __init__(self) -> None:
        self._masks: Masks = {}

    def masks(self) -> Masks:
        return self._masks


class MaskedByClass(Masked):
    kept: ClassVar[Masks] = {}

    def masks(self) -> Masks:
        return self.kept


class MaskedByNewAttribute(Masked):
    def masks(self) -> Masks:
        cls: Any = type(self)
        if not hasattr(cls, "made"):
            cls.made = {}
        return cls.made  # type: ignore[no-any-return]


class MaskedByModule(Masked):
    def masks(self) -> Masks:
        return all_masks()


def all_masks() -> Masks:
    return MASKS


class MaskedByDefault(Masked):
    def masks(self, kept: Masks = {}) -> Masks:  # noqa: B006  # the fault to be found
        return kept


class MaskedBySomethingElse(Masked):
    class Store:
        def __init__(self) -> None:
            self.lists = [(Masks(),)]

    def __init__(self) -> None:
        self.store = self.Store()

    def masks(self) -> Masks:
        return self.store.lists[0][0]


class Remembers(Copy):
    """Keeps what does not depend on the children before, which is fine."""

    known: ClassVar[dict[NetworkSpec, Any]] = {}

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        zeros = {n: np.zeros(s, np.float32) for n, s in parents.spec.shapes.items()}
        kept = self.known.setdefault(parents.spec, zeros)
        return {name: kept[name] + parents[0][name] for name in kept}


class Unpicklable(Copy):
    def __init__(self) -> None:
        self.function: Callable[[int], int] = lambda x: x


class Forgetful(Copy):
    def __init__(self) -> None:
        self.index = 1

    def __getstate__(self) -> dict[str, Any]:
        return {"index": 0}

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {name: t.copy() for name, t in parents[self.index].items()}


class Noisy(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {k: v + np.float32(rng.normal()) for k, v in super().cross(parents, rng).items()}


class HonestlyNoisy(Noisy):
    idempotent = False


class HidesArgument(Copy):
    def __init__(self, share: float = 0.5) -> None:
        self._share = share


class ChangesArgument(Copy):
    def __init__(self, share: float = 0.5) -> None:
        self.share = share / 2


class AnyArguments(Copy):
    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes


class AnyNamed(Copy):
    def __init__(self, **more: Any) -> None:
        self.more = more


class ByPosition(Copy):
    def __init__(self, share: float = 0.5, /) -> None:
        self.share = share


class HoldsItself(Copy):
    def __init__(self, parts: Any = None) -> None:
        self.parts: list[Any] = []
        self.parts.append(self.parts)


class KeepsArray(Copy):
    def __init__(self, levels: Any = (0.1, math.nan), rule: Any = math.inf) -> None:
        self.levels = np.array(levels)
        self.rule = {"top": [rule, math.nan]} if rule == math.inf else rule


class RenamesItself(Copy):
    def __init__(self) -> None:
        self.name = "weighted"  # type: ignore[misc]


class BadName(Copy):
    name = "Bad Name"


class BadCount(Copy):
    n_parents = -1


class BadFlag(Copy):
    same_widths: Any = "no"


class UnknownNeed(Copy):
    needs: Any = ("gram",)


class NoTuple(Copy):
    needs: Any = "states"


class Undeclared(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        assert len(parents.states) > 0
        return super().cross(parents, rng)


class UnlocksTensor(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        tensor = parents[1][parents.spec.blocks[0].bias]
        tensor.setflags(write=True)
        tensor[:] = 0
        return super().cross(parents, rng)


class WritesBase(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        base: Any = parents[1][parents.spec.blocks[0].bias].base
        base[0] = 0
        return super().cross(parents, rng)


class EmptiesShapes(Copy):
    """Works through the names as one would through a dictionary of one's own."""

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        names: Any = parents.spec.shapes
        child = {}
        while names:
            name, _ = names.popitem()
            child[name] = parents[0][name].copy()
        return child


class Wordless(Exception):  # noqa: N818  # raised by an operator
    def __str__(self) -> str:
        raise RuntimeError("no text")


class RaisesWordless(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        raise Wordless


class HidesWrites(Copy):
    """Writes where it can, and says nothing where it cannot."""

    needs = ("grams",)

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        with contextlib.suppress(ValueError):
            parents.grams[1][0][0, 0] = 0
        return super().cross(parents, rng)


class WritesStates(Copy):
    needs = ("states",)

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        parents.states[0] = 0
        return super().cross(parents, rng)


class OneArray(Copy):
    """Gives views of one array that lie on top of each other."""

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        flat = np.zeros(1000, np.float32)
        return {n: flat[: math.prod(s)].reshape(s) for n, s in parents.spec.shapes.items()}


class SeedsGlobally(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        random.seed(1)
        return super().cross(parents, rng)


class OwnGenerator(Noisy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return super().cross(parents, np.random.default_rng())


class DividesBySpread(Copy):
    """Fails on parents of equal fitness."""

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        assert 1 / (parents.fitness[0] - parents.fitness[1])
        return super().cross(parents, rng)


class Warns(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        np.float32(1) / np.float32(0)
        return super().cross(parents, rng)


class DividesByNorm(Copy):
    """Gives NaN where a parent has a tensor of zeros."""

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        with np.errstate(all="ignore"):
            return {n: t / np.abs(t).max() * np.abs(t).max() for n, t in parents[1].items()}


class AnyWidths(Copy):
    same_widths = False


class LastWidths(Copy):
    """Gives the last parent's tensors, whatever their shape."""

    same_widths = False

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {name: tensor.copy() for name, tensor in parents[-1].items()}


class AnyNumber(Copy):
    """Takes as many parents as it is told to, and looks at everything there is."""

    needs = ("ancestor", "states", "activations", "grams", "fisher")
    idempotent = False

    def __init__(self, n_parents: int = 3) -> None:
        self.n_parents = n_parents

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        assert len(parents) == self.n_parents == len(parents.grams) == len(parents.fisher)
        assert len(parents.grams[0]) == len(parents.activations[0]) + 1 == len(parents.spec.blocks)
        assert parents.states.shape[1] == parents.spec.n_inputs
        return {name: tensor.copy() for name, tensor in parents.ancestor.items()}


class TakesAncestor(Copy):
    needs = ("ancestor",)

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        return {name: tensor.copy() for name, tensor in parents.ancestor.items()}


class Orphan(Copy):
    n_parents = 0

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        assert len(parents) == 0
        return {n: np.zeros(s, np.float32) for n, s in parents.spec.shapes.items()}


class NeedyOrphan(Orphan):
    needs = ("states",)

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        assert len(parents.states) > 0
        return super().cross(parents, rng)


class Fails(Copy):
    """Raises for one of the architectures, and forgets a tensor for the others."""

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        if len(parents.spec.hidden) == 1:
            raise ValueError("out of luck")
        return {k: v for k, v in super().cross(parents, rng).items() if k != "network.0.bias"}


class Exits(Copy):
    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        raise SystemExit(3)


def failed_checks(operator: CrossoverOperator) -> list[str]:
    return [outcome.check for outcome in examine_crossover(operator) if outcome.failed]


@pytest.mark.parametrize(
    "operator",
    [
        Copy(),
        HonestlyNoisy(),
        CloneCrossover(),
        AnyWidths(),
        AnyNumber(),
        AnyNumber(4),
        AnyNumber(1),
        Orphan(),
        KeepsArray(),
        Masked(),
        Remembers(),
    ],
    ids=lambda operator: f"{type(operator).__name__}-{operator.n_parents}",
)
def test_correct_operators_pass(operator: CrossoverOperator) -> None:
    check_crossover_operator(operator)


class OtherArguments(Copy):
    def cross(self, first: Any, second: Any, rng: np.random.Generator) -> Any:  # type: ignore[override]
        return {name: tensor.copy() for name, tensor in first.items()}


@pytest.mark.parametrize(
    ("operator", "checks", "message"),
    [
        (Alias(), ["new arrays"], "returns network.0.weight as memory of parents.0..'network.0"),
        (WritesTensor(), ["read-only"], "writes into what it is given: .* make new arrays of what"),
        (WritesMapping(), ["read-only"], "writes into what it is given: it raises TypeError in"),
        (UnlocksTensor(), ["read-only"], "writes into what it is given: .* WRITEABLE"),
        (
            WritesBase(),
            ["read-only"],
            "writes into what it is given: it raises ValueError in line .*; make",
        ),
        (EmptiesShapes(), ["read-only"], "'popitem' .* copies of dictionaries such as spec.shapes"),
        (HidesWrites(), ["read-only"], r"writes into parents.grams\[1\]\[0\] \(given"),
        (WritesStates(), ["read-only"], "assignment destination is read-only"),
        (DropsTensor(), ["tensors"], "loop over spec.shapes"),
        (WrongShape(), ["tensors"], r"returns network.0.weight of shape \(8,\) instead of \(2, 4"),
        (Doubles(), ["dtype"], "as float64 instead of float32 .*; end with .astype"),
        (NotFinite(), ["finite", "equal parents"], "returns NaN or infinity in network.0.weight"),
        (DividesByNorm(), ["finite"], "infinity in network.0.weight .given 2 parents with dead"),
        (Warns(), ["warnings"], "makes NumPy warn of 'divide by zero"),
        (NoMapping(), ["tensors"], "returns a list .*; return a dictionary"),
        (GlobalRandomness(), ["global rng"], "the global generator of numpy.random .*; draw all"),
        (SeedsGlobally(), ["global rng"], "the global generator of random "),
        (OwnGenerator(), ["repeatable", "pickling", "equal parents"], "another child for equal"),
        (Counts(), ["repeatable"], "another child for equal .* keep no state"),
        (
            Reuses(),
            ["new arrays", "repeatable", "equal parents"],
            "memory of .* of another child .* make new arrays in every",
        ),
        *(
            (kind(), ["repeatable"], "where it has made others before .*; keep nothing between ca")
            for kind in (
                MaskedByInstance,
                MaskedByClass,
                MaskedByNewAttribute,
                MaskedByModule,
                MaskedByDefault,
                MaskedBySomethingElse,
            )
        ),
        (OneArray(), ["new arrays", "equal parents"], "as memory of .*an array of its own"),
        (Unpicklable(), ["pickling"], "cannot be pickled: .*; define the class at the top of a"),
        (Forgetful(), ["pickling"], "gives another child after pickling"),
        (Noisy(), ["equal parents"], "something else of equal parents: .*'idempotent = False'"),
        (TakesAncestor(), ["equal parents"], "something else of equal parents"),
        (HidesArgument(), ["params"], "must keep its argument 'share' in an attribute"),
        (
            ChangesArgument(),
            ["params"],
            "changes a parameter: built from share = 0.25 it has 0.125; keep e",
        ),
        (AnyArguments(), ["params"], r"takes \*sizes in its constructor, .*; give every argument"),
        (AnyNamed(), ["params"], r"takes \*\*more in its constructor, which nothing records; give"),
        (ByPosition(), ["params"], "the argument 'share' in its constructor by position only; tak"),
        (HoldsItself(), ["params"], "has the parameter 'parts', which holds itself; keep plain"),
        (RenamesItself(), ["name"], "calls itself 'weighted', unlike its class; do not set 'name'"),
        (BadName(), ["name"], "has the name 'Bad Name'; set a class attribute 'name' in snake_c"),
        (BadCount(), ["parents"], "has n_parents -1; set a class attribute 'n_parents'"),
        (BadFlag(), ["flags"], "has same_widths 'no'; set same_widths to True or False"),
        (UnknownNeed(), ["needs"], "needs 'gram'; did you mean 'grams'. there are ancestor, st"),
        (NoTuple(), ["needs"], r"needs 'states', which are no tuple; write needs = \('states',\)"),
        (Undeclared(), ["declared"], r"declare: parents.states .*; declare it: needs = \('states'"),
        (NeedyOrphan(), ["declared"], "parents.states was not asked for"),
        (DividesBySpread(), ["errors"], "raises ZeroDivisionError in line .*2 nearly equal"),
        (LastWidths(), ["widths"], r"of shape \(6, 4\) instead of \(5, 4\) .given 2 .*widths"),
        (Exits(), ["errors"], r"calls sys\.exit in line .*; raise an error instead"),
        (
            OtherArguments(),
            ["errors"],
            r"takes cross\(self, first, second, rng\); define cross\(self, parents, rng\)$",
        ),
        (RaisesWordless(), ["errors"], r"raises Wordless in line \d+ .given"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, CrossoverOperator) else "",
)
def test_each_fault_is_found_and_explained(
    operator: CrossoverOperator, checks: list[str], message: str
) -> None:
    outcomes = examine_crossover(operator)
    assert [outcome.check for outcome in outcomes if outcome.failed] == checks
    with pytest.raises(ConformanceError, match=f"(?s){message}"):
        raise_failed("crossover", operator, outcomes)


def test_one_failed_check_is_one_sentence_that_says_what_was_given() -> None:
    with pytest.raises(AssertionError) as caught:
        check_crossover_operator(Doubles())
    assert str(caught.value) == (
        "crossover 'copy' returns network.0.weight as float64 instead of float32 (given 2 "
        "unrelated parents, a network 4-2, seed 0, and 39 more such cases); end with "
        ".astype(numpy.float32)"
    )


def test_all_failed_checks_are_told_together() -> None:
    assert failed_checks(Fails()) == ["errors", "tensors"]
    with pytest.raises(ConformanceError) as caught:
        check_crossover_operator(Fails())
    first, *lines = str(caught.value).splitlines()
    assert first == "crossover 'copy' fails 2 checks"
    assert lines[0].startswith("  errors: it raises ValueError in line ")
    assert ": out of luck (given 2 unrelated parents, a network 4-5-3, seed 0, and " in lines[0]
    assert lines[1].startswith("  tensors: it returns the tensors ['network.0.weight'] instead of")


def test_a_class_is_refused_with_how_to_make_an_instance() -> None:
    with pytest.raises(TypeError, match=r"^pass an instance: Copy\(\)$"):
        check_crossover_operator(Copy)  # type: ignore[arg-type]


def test_every_outcome_says_what_was_asked() -> None:
    outcomes = examine_crossover(Copy())
    assert len({outcome.check for outcome in outcomes}) == len(outcomes) > 10
    assert all(outcome.asks for outcome in outcomes)
    skipped = {outcome.check: outcome.skipped for outcome in outcomes if outcome.skipped}
    assert skipped == {"widths": "it takes parents of one architecture: same_widths = True"}
    outcomes = examine_crossover(HonestlyNoisy())
    assert "it says idempotent = False" in [outcome.skipped for outcome in outcomes]


def test_what_cannot_be_called_is_skipped_and_said_so() -> None:
    outcomes = examine_crossover(BadCount())
    assert {o.check for o in outcomes if o.skipped} >= {"errors", "tensors", "repeatable"}
    assert "mend n_parents and needs first" in {outcome.skipped for outcome in outcomes}


def test_the_specs_to_check_with_can_be_chosen() -> None:
    check_crossover_operator(WeightedCrossover(), specs=[NetworkSpec((9,), (11,), 5)])
    with pytest.raises(ConformanceError, match="a network 9-11-5, seed 0"):
        check_crossover_operator(Alias(), specs=[NetworkSpec((9,), (11,), 5)])


def test_the_suite_leaves_global_randomness_as_it_was() -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    before_python = random.getstate()
    check_crossover_operator(Copy())
    assert failed_checks(GlobalRandomness())
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]  # noqa: NPY002
    assert random.getstate() == before_python


def test_the_default_specs_cover_norms_slots_and_depths() -> None:
    assert {len(spec.hidden) for spec in SPECS} == {0, 1, 2, 3}
    assert {spec.norm for spec in SPECS} == {"none", "layer"}
    assert {spec.dropout_slots for spec in SPECS} == {False, True}
