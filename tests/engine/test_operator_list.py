from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from engine.operator_list import facts_of, find_operators, list_operators
from strategies import crossovers, mutations, plugins, selections
from strategies.crossover import UnitCrossover
from strategies.crossover.random import Order
from strategies.errors import PluginError, UnknownOperatorError
from strategies.operator import CrossoverOperator, Family

FILE = '''
from strategies import CrossoverOperator, Mutation

class Mine(CrossoverOperator):
    """Do as I say."""
    name = "mine"

    def cross(self, parents, rng): ...

class Change(Mutation):
    name = "weighted"

    def mutate(self, child, rng): ...
'''


class Rich(CrossoverOperator):
    """Do much.

    Source: nowhere.

    Args:
        size: How much.
        parts: Of what.
    """

    name = "rich"
    needs = ("grams", "states")
    same_widths = False

    def __init__(
        self,
        size: int,
        parts: tuple[float, ...] = (0.5, 0.5),
        kind: Any = np.float32,
        n_parents: int = 4,
        **more: Any,
    ) -> None:
        self.n_parents = n_parents

    def cross(self, parents: Family, rng: np.random.Generator) -> Any: ...


@pytest.fixture(autouse=True)
def _undo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start with the built-in operators, and keep what a test loads from the other tests."""
    for registry in (crossovers, mutations, selections):
        classes = {n: c for n, c in registry._classes.items() if c.__module__.startswith("strateg")}
        monkeypatch.setattr(registry, "_classes", classes)
        monkeypatch.setattr(registry, "_entry_points", {})
    monkeypatch.setattr(plugins, "_loaded", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("cultivar_plugin_"):
            del sys.modules[name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ops.py"
    path.write_text(FILE)
    return path


def test_every_registered_operator_is_listed_and_says_what_it_does() -> None:
    found, problems = list_operators()
    assert problems == ()
    names = [(one.kind, one.name) for one in found]
    assert names == [
        (registry.kind, name)
        for registry in (crossovers, mutations, selections)
        for name in registry.available()
    ]
    for one in found:
        assert one.summary.endswith("."), one.name
        assert one.origin == "built in", one.name
        assert all(parameter.meaning for parameter in one.parameters), one.name
        assert one.source or one.name in ("clone", "fresh"), one.name


def test_one_kind_is_listed_alone() -> None:
    found, _ = list_operators("selection")
    assert [one.name for one in found] == list(selections.available())


def test_the_facts_of_a_class_are_read_from_it() -> None:
    one = facts_of(crossovers, Rich)
    assert (one.kind, one.name, one.summary, one.source) == (
        "crossover",
        "rich",
        "Do much.",
        "nowhere.",
    )
    assert (one.n_parents, one.any_number, one.needs) == (4, True, ("grams", "states"))
    assert one.same_widths is False
    assert one.target == f"{__name__}:Rich"
    assert one.origin == f"module {__name__}"
    assert one.file == __file__
    texts = [parameter.text for parameter in one.parameters]
    assert texts[0] == "size"
    assert texts[1:] == ["parts=[0.5, 0.5]", "kind=numpy.float32", "n_parents=4"]
    assert [parameter.meaning for parameter in one.parameters] == ["How much.", "Of what.", "", ""]
    assert one.parameters[0].type == "int"


STEP, TABLE, RULE = np.float32(0.5), np.array([1.0, math.nan]), object()


class Odd(Rich):
    """Be odd, but within what is allowed."""

    name = "odd"
    n_parents = property(lambda self: 2)  # type: ignore[assignment]
    same_widths = property(lambda self: True)  # type: ignore[assignment]

    def __init__(
        self,
        top: float = math.inf,
        step: Any = STEP,
        table: Any = TABLE,
        rule: Any = RULE,
        mode: Literal["fast", "slow"] = "fast",
        order: Order = "network",
        hidden: Gone = None,  # type: ignore[name-defined]  # noqa: F821  # of no module
    ) -> None: ...


def test_odd_defaults_become_plain_values_without_addresses() -> None:
    one = facts_of(crossovers, Odd)
    assert [each.default for each in one.parameters] == [
        "inf",
        0.5,
        [1.0, "nan"],
        "builtins.object",
        "fast",
        "network",
        None,
    ]
    text = json.dumps(dataclasses.asdict(one), allow_nan=False)
    assert " at 0x" not in text
    assert (one.n_parents, one.same_widths) == ("varies", None)


class Choosy(Rich):
    """Choose.

    Args:
        order: In which order.
    """

    name = "choosy"

    def __init__(
        self, order: Order = "network", mode: Literal[1, 2] = 1, size: int = 1
    ) -> None: ...


def test_a_parameter_with_choices_shows_them_under_whatever_name() -> None:
    types = [each.type for each in facts_of(crossovers, Choosy).parameters]
    assert types == ["network | alphabetical", "1 | 2", "int"]


def test_an_annotation_that_cannot_be_looked_up_is_shown_as_it_is_written() -> None:
    types = [each.type for each in facts_of(crossovers, Odd).parameters]
    assert types[-3:] == ["Literal['fast', 'slow']", "Order", "Gone"]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"needs": None}, "needs must be a tuple of names, not None"),
        ({"needs": "states"}, "needs must be a tuple of names, not 'states'"),
        ({"__doc__": 5}, "int"),
        ({"__signature__": 5}, "signature"),
    ],
)
def test_one_odd_class_is_told_and_does_not_hide_the_others(
    attributes: dict[str, Any], message: str
) -> None:
    built_in = len(crossovers.available())
    crossovers.register(type("Strange", (Rich,), {"name": "strange", **attributes}))
    found, problems = list_operators("crossover")
    assert len(found) == built_in
    (problem,) = problems
    assert problem.startswith("cannot read the crossover 'strange' of ")
    assert message in problem
    assert "\n" not in problem
    with pytest.raises(PluginError, match="cannot read the crossover 'strange'"):
        facts_of(crossovers, crossovers.get("strange"))


@pytest.mark.parametrize("n_parents", ["2", 2.0, None])
def test_a_number_of_parents_that_is_none_is_told_to_vary(n_parents: Any) -> None:
    cls = type("Counts", (CrossoverOperator,), {"name": "counts", "n_parents": n_parents})
    assert facts_of(crossovers, cls).n_parents == "varies"


def test_facts_that_only_crossovers_have_are_left_out_elsewhere() -> None:
    one = facts_of(mutations, mutations.get("gaussian"))
    assert (one.n_parents, one.same_widths, one.idempotent, one.step_size) == (
        None,
        None,
        None,
        "scale",
    )


def test_an_operator_of_a_file_is_told_by_its_path(file: Path) -> None:
    plugins.load_plugin_file(file)
    one = facts_of(crossovers, crossovers.get("mine"))
    assert one.origin == one.file == str(file)
    assert one.target == f"{file}:Mine"


def test_an_installed_operator_is_told_by_its_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crossovers, "_distributions", {"rich": "riches 2.1"})
    assert facts_of(crossovers, Rich).origin == "riches 2.1"


def test_one_broken_plugin_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("gone", "no_such_module:X", "cultivar.mutation")
    monkeypatch.setattr(mutations, "_entry_points", {"gone": point})
    found, problems = list_operators("mutation")
    assert [one.name for one in found] == [n for n in mutations.available() if n != "gone"]
    (problem,) = problems
    assert "cannot import the mutation no_such_module:X" in problem


def found_by(target: str, kind: str | None = None) -> list[tuple[str, str]]:
    return [(registry.kind, cls.__name__) for registry, cls in find_operators(target, kind)]


def test_an_operator_is_found_by_every_way_to_name_it(file: Path) -> None:
    assert found_by("unit") == [("crossover", "UnitCrossover")]
    assert found_by("strategies.crossover.unit:UnitCrossover") == [("crossover", "UnitCrossover")]
    assert find_operators("strategies.crossover:UnitCrossover")[0][1] is UnitCrossover
    assert found_by(f"{file}:Mine") == [("crossover", "Mine")]
    assert found_by(f"{file}:mine") == [("crossover", "Mine")]
    assert found_by(str(file)) == [("crossover", "Mine"), ("mutation", "Change")]
    assert found_by(str(file), "mutation") == [("mutation", "Change")]
    assert "mine" not in crossovers.available()


def test_a_name_of_several_kinds_finds_all_of_them(file: Path) -> None:
    plugins.load_plugin_file(file)
    assert found_by("weighted") == [("crossover", "WeightedCrossover"), ("mutation", "Change")]
    assert found_by("weighted", "mutation") == [("mutation", "Change")]


@pytest.mark.parametrize(
    ("target", "kind", "error", "message"),
    [
        ("weigthed", None, UnknownOperatorError, "no operator named .* Did you mean 'weighted'"),
        ("unit", "mutation", UnknownOperatorError, "no mutation named 'unit'. Available: gauss"),
        ("{file}:Nine", None, PluginError, "no operator 'Nine'. Did you mean 'Mine'. It defines"),
        ("{file}:Mine", "selection", PluginError, "is no selection, but a crossover"),
        ("missing.py:X", None, PluginError, "expected a plug-in file"),
        ("missing.py", None, PluginError, "expected a plug-in file"),
        ("no_such_module:X", None, PluginError, "cannot import the operator no_such_module:X"),
        ("math:pi", None, PluginError, "math:pi is no operator: it derives from none of Cross"),
        ("pathlib:Path", None, PluginError, "is no operator"),
        ("", None, UnknownOperatorError, "no operator named ''"),
    ],
)
def test_what_is_not_found_is_explained(
    file: Path, target: str, kind: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        find_operators(target.format(file=file), kind)
