from __future__ import annotations

import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from populations.errors import CultivarError
from populations.network import Weights
from strategies import Mutation, Selection, crossovers, mutations, selections
from strategies.crossover import UnitCrossover
from strategies.errors import (
    OperatorNameError,
    OperatorParameterError,
    PluginError,
    UnknownOperatorError,
)
from strategies.operator import CrossoverOperator, Family
from strategies.registry import Registry

HEADER = """
from strategies.operator import CrossoverOperator

class {cls}(CrossoverOperator):
    name = "{name}"

    def cross(self, parents, rng):
        return parents[0]
"""


class First(CrossoverOperator):
    name = "first"

    def cross(self, parents: Family, rng: np.random.Generator) -> Weights:
        return parents[0]


class AlsoFirst(First):
    pass


class NeedsSize(First):
    name = "needs_size"

    def __init__(self, size: int, color: str = "red") -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self.size = size
        self.color = color


class Forgets(First):
    name = "forgets"

    def __init__(self, size: int = 1) -> None:
        pass


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry[CrossoverOperator]:
    """A registry with one class, which looks for plug-ins under a group of its own."""
    made: Registry[CrossoverOperator] = Registry("test_crossover", CrossoverOperator)
    made.register(First)
    return made


def install(
    folder: Path,
    distribution: str,
    entry_points: str,
    group: str = "cultivar.test_crossover",
    **modules: str,
) -> None:
    """Write what pip leaves behind for a distribution with entry points."""
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry_points}\n")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


def test_built_in_operators_are_registered_upon_import() -> None:
    assert {"clone", "fresh", "layer", "random", "unit", "weighted"} <= {*crossovers.available()}
    assert {"gaussian", "integer_steps", "safe"} <= {*mutations.available()}
    assert {"rank", "tournament", "truncation"} <= {*selections.available()}
    for registry in (crossovers, mutations, selections):
        assert list(registry.available()) == sorted(registry.available())


def test_create_returns_an_instance_with_the_given_params() -> None:
    operator = crossovers.create("unit", {"share": 0.2})
    assert isinstance(operator, UnitCrossover)
    assert operator.params == {"share": 0.2}


def test_an_unknown_name_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(
        UnknownOperatorError,
        match=r"^no crossover named 'weigthed'\. Did you mean 'weighted'\? "
        r"Available: clone, .*, unit, weighted\. An operator of your own .* --plugin FILE$",
    ):
        crossovers.create("weigthed")


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(UnknownOperatorError, match=r"^no mutation named 'xyz'\. Available: gauss"):
        mutations.create("xyz")


def test_errors_survive_pickling() -> None:
    with pytest.raises(CultivarError) as caught:
        selections.create("rang")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_taken_name_is_an_error_that_names_both_owners(
    registry: Registry[CrossoverOperator],
) -> None:
    with pytest.raises(
        OperatorNameError, match=r"name 'first' of \S+:AlsoFirst is taken by \S+:First;"
    ):
        registry.register(AlsoFirst)
    assert registry.get("first") is First


def test_registering_one_class_twice_is_no_error(registry: Registry[CrossoverOperator]) -> None:
    assert registry.register(First) is First


@pytest.mark.parametrize("name", ["", "Bad Name", "CamelCase", "1st", None])
def test_names_must_be_snake_case(registry: Registry[CrossoverOperator], name: object) -> None:
    badly_named = type("Bad", (First,), {"name": name})
    with pytest.raises(OperatorNameError, match="needs a class attribute 'name' in snake_case"):
        registry.register(badly_named)


def test_only_complete_classes_of_the_kind_are_registered(
    registry: Registry[CrossoverOperator],
) -> None:
    with pytest.raises(PluginError, match="derive it from CrossoverOperator"):
        registry.register(dict)
    with pytest.raises(
        PluginError, match=r":Half is not complete: define cross\(self, parents, rng\)$"
    ):
        registry.register(type("Half", (CrossoverOperator,), {"name": "half"}))


def test_an_unknown_parameter_is_named_with_the_allowed_ones() -> None:
    with pytest.raises(
        OperatorParameterError,
        match=r"^crossover 'layer' has no parameter 'shrae'\. Did you mean 'share'\? "
        r"Allowed parameters: .*share",
    ):
        crossovers.create("layer", {"shrae": 1})
    with pytest.raises(OperatorParameterError, match=r"Allowed parameters: none$"):
        crossovers.create("clone", {"share": 1})


def test_a_class_without_its_method_is_told_what_to_define(
    registry: Registry[CrossoverOperator],
) -> None:
    half: Any = type("Half", (CrossoverOperator,), {"name": "half"})
    with pytest.raises(
        PluginError, match=r"'half' is not complete: define cross\(self, parents, r"
    ):
        registry.construct(half, "half")


def test_an_invalid_value_is_reported_with_operator_and_parameter() -> None:
    with pytest.raises(
        OperatorParameterError,
        match=r"^crossover 'random': share must be a number in \[0, 1\], not 'half'\.",
    ):
        crossovers.create("random", {"share": "half"})


def test_a_missing_parameter_is_named(registry: Registry[CrossoverOperator]) -> None:
    registry.register(NeedsSize)
    with pytest.raises(
        OperatorParameterError,
        match=r"needs the parameter 'size': give it with --set size=\.\.\. .*or give it a default",
    ):
        registry.create("needs_size", {"color": "blue"})
    assert registry.create("needs_size", {"size": 2}).params == {"size": 2, "color": "red"}


def test_an_operator_that_forgets_its_arguments_is_refused(
    registry: Registry[CrossoverOperator],
) -> None:
    registry.register(Forgets)
    with pytest.raises(OperatorParameterError, match="Forgets must keep its argument 'size'"):
        registry.create("forgets")


class RaisesWhenRead(First):
    name = "raises_when_read"

    def __init__(self, size: int = 1) -> None:
        pass

    @property
    def size(self) -> int:
        raise RuntimeError("not there")


class KeepsList(First):
    name = "keeps_list"

    def __init__(self, parts: Any = None) -> None:
        self.parts: list[Any] = []
        self.parts.append(self.parts)


class Named(First):
    name = "named"

    def __init__(self, **more: Any) -> None:
        self.more = more


class Positional(First):
    name = "positional"

    def __init__(self, share: float, /) -> None:
        self.share = share


class Renamed(First):
    name = "renamed"

    def __init__(self) -> None:
        self.name = "first"  # type: ignore[misc]


def declaring(**attributes: Any) -> type[Any]:
    return type("Declares", (First,), {"name": "declares", **attributes})


@pytest.mark.parametrize(
    ("cls", "error", "message"),
    [
        (
            declaring(cross=lambda self, first, second, rng: first),
            PluginError,
            r"takes cross\(self, first, second, rng\); define cross\(self, parents, rng\)",
        ),
        (declaring(n_parents="2"), PluginError, "has n_parents '2'; set a class attribute"),
        (declaring(n_parents=None), PluginError, "has n_parents None; set"),
        (declaring(n_parents=2.0), PluginError, "has n_parents 2.0; set"),
        (declaring(n_parents=-1), PluginError, "has n_parents -1; set"),
        (declaring(n_parents=property(lambda _: 1 / 0)), PluginError, "raises ZeroDivisionError"),
        (declaring(needs=None), PluginError, "has the needs None, which are no tuple; write"),
        (declaring(needs="states"), PluginError, r"write needs = \('states',\)"),
        (declaring(needs=("grads",)), PluginError, "needs 'grads'; did you mean 'grams'"),
        (declaring(same_widths="no"), PluginError, "has same_widths 'no'; set same_widths to"),
        (declaring(idempotent=None), PluginError, "has idempotent None; set idempotent to"),
        (Renamed, PluginError, "calls itself 'first', unlike its class; do not set 'name'"),
        (RaisesWhenRead, OperatorParameterError, r"raises RuntimeError in line \d+: not there"),
        (KeepsList, OperatorParameterError, "the parameter 'parts', which holds itself; keep"),
        (Named, OperatorParameterError, r"takes \*\*more in its constructor, .*; give every"),
        (Positional, OperatorParameterError, "the argument 'share' in .* by position only; take"),
    ],
)
def test_a_wrong_declaration_of_a_crossover_is_one_sentence_before_any_run(
    registry: Registry[CrossoverOperator], cls: type[Any], error: type[Exception], message: str
) -> None:
    registry.register(cls)
    with pytest.raises(error, match=f"^test_crossover '{cls.name}' .*{message}") as caught:
        registry.create(cls.name)
    assert "\n" not in str(caught.value)


class Still(Mutation):
    name = "still"

    def __init__(self, scale: Any = 1.0) -> None:
        self.scale = scale

    def mutate(self, child: Any, rng: np.random.Generator) -> Weights:
        return dict(child.weights)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"needs": ("fisher",)}, "needs 'fisher'; there are states"),
        ({"step_size": "size"}, "step size 'size', which is none of its arguments; name one"),
    ],
)
def test_a_wrong_declaration_of_a_mutation_is_one_sentence_before_any_run(
    attributes: dict[str, Any], message: str
) -> None:
    registry: Registry[Mutation] = Registry("test_mutation", Mutation)
    registry.register(type("Moves", (Still,), {"name": "moves", **attributes}))
    with pytest.raises(PluginError, match=f"^test_mutation 'moves' .*{message}"):
        registry.create("moves")


def test_a_wrong_declaration_of_a_selection_is_one_sentence_before_any_run() -> None:
    class Halves(Selection):
        name = "halves"

        def __init__(self, share: float = 0.5) -> None:
            self.share = share / 2

        def draw(self, n_candidates: int, n_parents: int, rng: np.random.Generator) -> list[int]:
            return list(range(n_parents))

    registry: Registry[Selection] = Registry("test_selection", Selection)
    registry.register(Halves)
    with pytest.raises(OperatorParameterError, match=r"from share = 0\.25 it has 0\.125; keep"):
        registry.create("halves")


def test_parameters_may_hold_arrays_and_nan(registry: Registry[CrossoverOperator]) -> None:
    class Levels(First):
        name = "levels"

        def __init__(self, levels: Any = (1, 2), high: float = float("nan")) -> None:
            self.levels, self.high = np.array(levels), high

    registry.register(Levels)
    assert registry.create("levels", {"levels": [3, 4]}).params["levels"].tolist() == [3, 4]


def test_a_number_of_parents_may_follow_from_the_parameters(
    registry: Registry[CrossoverOperator],
) -> None:
    class Pairs(First):
        name = "pairs"

        def __init__(self, n_pairs: int = 1) -> None:
            self.n_pairs = n_pairs

        @property
        def n_parents(self) -> int:  # type: ignore[override]
            return 2 * self.n_pairs

    registry.register(Pairs)
    assert registry.create("pairs", {"n_pairs": 3}).n_parents == 6


def test_whatever_a_constructor_raises_is_told(registry: Registry[CrossoverOperator]) -> None:
    class Looks(First):
        name = "looks"

        def __init__(self, size: str = "small") -> None:
            self.size = {"large": 1}[size]

    registry.register(Looks)
    with pytest.raises(OperatorParameterError, match=r"'looks': KeyError: 'small'\. Allowed par"):
        registry.create("looks")


def test_a_class_can_be_constructed_without_being_registered(
    registry: Registry[CrossoverOperator],
) -> None:
    made = registry.construct(NeedsSize, "ops.py:NeedsSize", {"size": 3})
    assert made.params == {"size": 3, "color": "red"}
    assert registry.available() == ("first",)
    with pytest.raises(OperatorParameterError, match=r"'ops\.py:NeedsSize' has no parameter 's"):
        registry.construct(NeedsSize, "ops.py:NeedsSize", {"sice": 3})


def test_module_and_class_resolve_and_are_registered(
    registry: Registry[CrossoverOperator],
) -> None:
    operator = registry.create("strategies.crossover.unit:UnitCrossover", {"share": 0.1})
    assert isinstance(operator, UnitCrossover)
    assert registry.available() == ("first", "unit")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:X", r"named 'no_such_module'; install it, or .* --plugin FILE, or plug"),
        ("a/ops.py:X", r"a/ops\.py:X, which is in a file: use --plugin a/ops\.py .* 'name' in X"),
        ("strategies.crossover:Nothing", "has no attribute 'Nothing'"),
        ("strategies.crossover:", "cannot import the test_crossover strategies.crossover:"),
        (":X", "cannot import the test_crossover :X"),
        ("pathlib:Path", "derive it from CrossoverOperator"),
        ("math:pi", "derive it from CrossoverOperator"),
    ],
)
def test_a_module_or_class_that_does_not_fit_is_explained(
    registry: Registry[CrossoverOperator], name: str, message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        registry.create(name)


def test_installed_plugins_are_listed_and_loaded_when_used(
    registry: Registry[CrossoverOperator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        tmp_path, "plug", "lazy = lazy_ops:Lazy", lazy_ops=HEADER.format(cls="Lazy", name="lazy")
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.available() == ("first", "lazy")
    assert "lazy_ops" not in sys.modules
    assert registry.create("lazy").name == "lazy"
    assert registry.available() == ("first", "lazy")
    del sys.modules["lazy_ops"]


def test_an_installed_plugin_must_not_take_a_registered_name(
    registry: Registry[CrossoverOperator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "greedy", "first = other:Mine")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        OperatorNameError,
        match=r"'first' of other:Mine \(installed by greedy\) is taken by \S+:First;",
    ):
        registry.available()


def test_who_has_a_name_is_told_of_a_class_that_is_not_registered(
    registry: Registry[CrossoverOperator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "plug", "needs_size = elsewhere:Sized")
    monkeypatch.syspath_prepend(tmp_path)
    for cls, owner in (
        (AlsoFirst, ":First"),
        (NeedsSize, r"elsewhere:Sized \(installed by plug\)"),
    ):
        fault = registry.name_fault(cls)
        assert fault is not None
        assert re.search(f"which is taken by .*{owner}$", fault.problem)
    assert registry.name_fault(First) is None
    assert registry.name_fault(Forgets) is None
    assert registry.name_fault(declaring(name=["first"])) is None  # another check tells it


def test_two_installed_plugins_must_not_share_a_name(
    registry: Registry[CrossoverOperator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "plug_a", "twice = a:A")
    install(tmp_path, "plug_b", "twice = b:B")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OperatorNameError, match=r"'twice' of .*plug_.* is taken by .*plug_"):
        registry.get("first")


def test_a_class_must_not_take_the_name_of_an_installed_plugin(
    registry: Registry[CrossoverOperator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "plug", "needs_size = elsewhere:Sized")
    monkeypatch.syspath_prepend(tmp_path)
    assert "needs_size" in registry.available()
    with pytest.raises(OperatorNameError, match="is taken by elsewhere:Sized"):
        registry.register(NeedsSize)


def test_an_entry_point_and_its_class_must_agree_on_the_name(
    registry: Registry[CrossoverOperator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HEADER.format(cls="Odd", name="odd")
    install(tmp_path, "plug", "even = odd_ops:Odd", odd_ops=text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        OperatorNameError, match="declares the test_crossover 'even', but its class"
    ):
        registry.get("even")


def test_an_installed_plugin_that_cannot_be_imported_is_named(
    registry: Registry[CrossoverOperator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "plug", "gone = gone_ops:Gone")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"installed by plug\): No module named 'gone_ops'"):
        registry.get("gone")


def test_an_installed_plugin_that_fails_upon_import_is_named(
    registry: Registry[CrossoverOperator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "plug", "bad = bad_ops:Bad", bad_ops="1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"installed by plug\): ZeroDivisionError: division by z"):
        registry.get("bad")


def test_a_name_is_known_with_the_distribution_that_it_came_with(
    registry: Registry[CrossoverOperator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HEADER.format(cls="Known", name="known")
    install(tmp_path, "plug-in", "known = known_ops:Known", known_ops=text)
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.distribution("known") == "plug-in 1.0"
    registry.get("known")
    assert registry.distribution("known") == "plug-in 1.0"
    assert registry.distribution("first") is None


def test_what_a_module_registered_can_be_taken_out_again(
    registry: Registry[CrossoverOperator],
) -> None:
    registry.get("strategies.crossover.unit:UnitCrossover")
    registry.forget("strategies.crossover.unit")
    assert registry.available() == ("first",)


KINDS = {
    "crossover": (CrossoverOperator, "def cross(self, parents, rng): ..."),
    "mutation": (Mutation, "def mutate(self, child, rng): ..."),
    "selection": (Selection, "def draw(self, n_candidates, n_parents, rng): ..."),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_found_as_module_and_class_and_as_entry_point(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, method = KINDS[kind]
    text = (
        f"from strategies import {base.__name__}\n"
        f"class Mine({base.__name__}):\n"
        '    name = "mine"\n'
        "    def __init__(self, size=1): self.size = size\n"
        f"    {method}\n"
    )
    module = f"my_{kind}"
    install(tmp_path, "plug", f"mine = {module}:Mine", group=f"cultivar.{kind}", **{module: text})
    by_path: Registry[Any] = Registry(kind, base)
    by_path._entry_points = {}  # as if it were not installed
    monkeypatch.syspath_prepend(tmp_path)
    assert by_path.create(f"{module}:Mine", {"size": 2}).params == {"size": 2}
    by_name: Registry[Any] = Registry(kind, base)
    assert by_name.available() == ("mine",)
    assert by_name.create("mine", {"size": 3}).params == {"size": 3}
    del sys.modules[module]
