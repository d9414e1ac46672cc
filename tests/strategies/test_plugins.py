from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from strategies import crossovers, load_plugin_file, mutations, plugin_modules, plugins, selections
from strategies.errors import OperatorNameError, PluginError
from strategies.plugins import operators_in_file
from strategies.testing import check_crossover_operator

ALL_KINDS = '''
from abc import abstractmethod

from strategies.crossover import WeightedCrossover
from strategies.mutation import Mutation
from strategies.operator import CrossoverOperator
from strategies.selection import Selection


class Base(CrossoverOperator):
    """Abstract: not an operator."""

    @abstractmethod
    def choose(self): ...


class MyCross(CrossoverOperator):
    name = "my_cross"

    def __init__(self, parent=0):
        self.parent = parent

    def cross(self, parents, rng):
        return {name: tensor.copy() for name, tensor in parents[self.parent].items()}


class MyMutation(Mutation):
    name = "my_mutation"

    def mutate(self, child, rng):
        return child.weights


class MySelection(Selection):
    name = "my_selection"

    def draw(self, n_candidates, n_parents, rng):
        return list(range(n_parents))
'''

ONE = """
from strategies.operator import CrossoverOperator

class One(CrossoverOperator):
    name = "{name}"

    def cross(self, parents, rng):
        return parents[0]
"""


@pytest.fixture(autouse=True)
def _undo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what a test loads from the other tests."""
    for registry in (crossovers, mutations, selections):
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(plugins, "_loaded", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("cultivar_plugin_"):
            del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_registers_every_operator_that_it_defines(tmp_path: Path) -> None:
    load_plugin_file(write(tmp_path / "ops.py", ALL_KINDS))
    assert crossovers.create("my_cross", {"parent": 1}).params == {"parent": 1}
    assert mutations.create("my_mutation").name == "my_mutation"
    picked = selections.create("my_selection").select(np.array([1.0, 3.0, 2.0]), 2, rng=None)  # type: ignore[arg-type]  # it draws nothing
    assert picked == (1, 2)
    check_crossover_operator(crossovers.create("my_cross"))


def test_its_module_is_a_real_one_that_the_engine_can_ship(tmp_path: Path) -> None:
    module = load_plugin_file(write(tmp_path / "my-ops.py", ALL_KINDS))
    assert module.__name__ == "cultivar_plugin_my_ops"
    assert sys.modules[module.__name__] is module
    assert plugin_modules() == (module,)
    operator = crossovers.create("my_cross")
    assert type(operator).__module__ == module.__name__
    assert type(pickle.loads(pickle.dumps(operator))) is type(operator)


def test_a_file_is_executed_once(tmp_path: Path) -> None:
    path = write(tmp_path / "ops.py", ALL_KINDS)
    assert load_plugin_file(path) is load_plugin_file(str(path))
    assert len(plugin_modules()) == 1


def test_files_of_one_stem_get_different_modules(tmp_path: Path) -> None:
    first = load_plugin_file(write(tmp_path / "a" / "ops.py", ONE.format(name="one")))
    second = load_plugin_file(write(tmp_path / "b" / "ops.py", ONE.format(name="two")))
    assert [first.__name__, second.__name__] == ["cultivar_plugin_ops", "cultivar_plugin_ops_2"]
    assert {"one", "two"} <= set(crossovers.available())


def test_a_file_may_use_the_decorator_itself(tmp_path: Path) -> None:
    text = "from strategies import crossovers\n" + ONE.format(name="one")
    text = text.replace("class One", "@crossovers.register\nclass One")
    load_plugin_file(write(tmp_path / "ops.py", text))
    assert crossovers.create("one").name == "one"


def test_a_taken_name_leaves_nothing_behind(tmp_path: Path) -> None:
    text = ALL_KINDS + ONE.format(name="weighted")
    with pytest.raises(
        OperatorNameError, match=r"'weighted' of /.*/ops\.py:One is taken by strategies\.crossover"
    ):
        load_plugin_file(write(tmp_path / "ops.py", text))
    assert "my_cross" not in crossovers.available()
    assert "cultivar_plugin_ops" not in sys.modules
    assert plugin_modules() == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "defines no operator: expected a class with a 'name'"),
        ("def f(:\n", "cannot load the plug-in file .*ops.py: invalid syntax"),
        ("import no_such_thing\n", "cannot load the plug-in file .*No module named"),
        (
            ONE.format(name="one").replace("def cross", "def crossover"),
            r"/ops\.py:One is not complete: define cross\(",
        ),
    ],
)
def test_a_file_that_is_no_plugin_is_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        load_plugin_file(write(tmp_path / "ops.py", text))
    assert "cultivar_plugin_ops" not in sys.modules


def test_an_operator_without_name_is_an_error(tmp_path: Path) -> None:
    text = ONE.replace('name = "{name}"', "pass")
    with pytest.raises(OperatorNameError, match=r"/ops\.py:One needs a class attribute 'name'"):
        load_plugin_file(write(tmp_path / "ops.py", text))


def test_an_error_of_the_file_itself_is_told_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "ops.py", "import math\nmath.floor([])\n")
    with pytest.raises(PluginError, match=r"ops\.py: TypeError in line 2: must be real number"):
        load_plugin_file(path)
    assert "cultivar_plugin_ops" not in sys.modules


def test_a_file_that_fails_leaves_nothing_registered(tmp_path: Path) -> None:
    header = "from strategies import crossovers\n" + ONE.format(name="one")
    text = header.replace("class One", "@crossovers.register\nclass One")
    path = write(tmp_path / "ops.py", text + "\n1 / 0\n")
    with pytest.raises(PluginError, match="ZeroDivisionError in line "):
        load_plugin_file(path)
    assert "one" not in crossovers.available()
    path.write_text(ONE.format(name="one") + ONE.format(name="one").replace("One", "Two"))
    with pytest.raises(OperatorNameError, match=r"'one' of .*ops.py:Two is taken by .*ops.py:One"):
        load_plugin_file(path)
    assert "one" not in crossovers.available()


def test_two_files_must_not_share_a_name(tmp_path: Path) -> None:
    load_plugin_file(write(tmp_path / "a.py", ONE.format(name="one")))
    with pytest.raises(OperatorNameError, match=r"of .*b\.py:One is taken by .*a\.py:One; rename"):
        load_plugin_file(write(tmp_path / "b.py", ONE.format(name="one")))


@pytest.mark.parametrize("listed_before", [True, False])
def test_a_file_that_is_installed_as_well_is_told_what_to_leave_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed_before: bool
) -> None:
    info = tmp_path / "my_ones-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: my-ones\nVersion: 1.0\n")
    write(info / "entry_points.txt", "[cultivar.crossover]\none = ones:One\n")
    file = write(tmp_path / "ones.py", ONE.format(name="one"))
    monkeypatch.syspath_prepend(tmp_path)
    for attribute, value in (("_entry_points", None), ("_distributions", {}), ("_targets", {})):
        monkeypatch.setattr(crossovers, attribute, value)
    if listed_before:
        crossovers.available()
    mend = r"; leave out --plugin \(plugins:\), or pip uninstall my-ones$"
    with pytest.raises(OperatorNameError, match=mend):
        load_plugin_file(file) and crossovers.available()


def test_a_file_that_is_installed_as_well_can_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("one", "my.ones:One", "cultivar.crossover")
    monkeypatch.setattr(crossovers, "_entry_points", {"one": point})
    monkeypatch.setattr(crossovers, "_targets", {"one": point.value})
    for folder, is_taken in (("ones", False), ("others", True)):
        file = write(tmp_path / f"{folder}.py", ONE.format(name="one"))
        ((_, cls),) = operators_in_file(file)
        assert (crossovers.name_fault(cls) is not None) == is_taken


def test_a_file_can_be_looked_at_without_registering_anything(tmp_path: Path) -> None:
    path = write(tmp_path / "ops.py", ALL_KINDS + ONE.format(name="weighted"))
    found = [(registry.kind, cls.__name__) for registry, cls in operators_in_file(path)]
    assert found == [
        ("crossover", "MyCross"),
        ("mutation", "MyMutation"),
        ("selection", "MySelection"),
        ("crossover", "One"),
    ]
    assert "my_cross" not in crossovers.available()
    assert plugin_modules() == ()
    path.write_text("x = 1\n")
    with pytest.raises(PluginError, match="defines no operator"):
        operators_in_file(path)


def test_a_loaded_file_is_looked_at_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "ops.py", ONE.format(name="one"))
    load_plugin_file(path)
    assert operators_in_file(path) == [(crossovers, crossovers.get("one"))]


def test_only_existing_python_files_are_loaded(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"expected a plug-in file, a \.py file, but there is no"):
        load_plugin_file(tmp_path / "missing.py")
    with pytest.raises(PluginError, match=r"expected a plug-in file, a \.py file"):
        load_plugin_file(write(tmp_path / "ops.txt", ALL_KINDS))
