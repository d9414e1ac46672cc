from __future__ import annotations

import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from populations.network import NetworkSpec
from strategies import crossover, mutations, selections
from strategies.crossover import crossovers
from strategies.operator import Family
from strategies.testing import (
    SPECS,
    check_crossover_operator,
    check_mutation,
    check_selection,
    random_family,
)

EXACT = ("clone", "layer", "random", "unit")
SPEC = NetworkSpec((3,), (6, 4), 2, norm="layer")


def test_every_file_of_the_package_registers_one_operator_of_its_name() -> None:
    files = sorted(module.name for module in pkgutil.iter_modules(crossover.__path__))
    assert files
    for name in files:
        assert crossovers.get(name).__module__ == f"strategies.crossover.{name}"


def test_there_are_operators_of_every_kind() -> None:
    assert {"clone", "unit", "weighted"} <= set(crossovers.available())
    assert "gaussian" in mutations.available()
    assert "tournament" in selections.available()


@pytest.mark.parametrize("name", crossovers.available())
def test_every_crossover_keeps_the_contract(name: str) -> None:
    check_crossover_operator(crossovers.create(name))


@pytest.mark.parametrize("name", mutations.available())
def test_every_mutation_keeps_the_contract(name: str) -> None:
    check_mutation(mutations.create(name))


@pytest.mark.parametrize("name", selections.available())
def test_every_selection_keeps_the_contract(name: str) -> None:
    check_selection(selections.create(name))


@pytest.mark.parametrize(
    "name",
    [name for name in crossovers.available() if "n_parents" in crossovers.create(name).params],
)
@pytest.mark.parametrize("n_parents", [2, 4])
def test_operators_of_any_number_of_parents_keep_the_contract(name: str, n_parents: int) -> None:
    operator = crossovers.create(name, {"n_parents": n_parents})
    assert operator.n_parents == n_parents
    check_crossover_operator(operator)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("layer", {"mode": "alternate"}),
        ("layer", {"share": 0}),
        ("random", {"share": 1}),
        ("random", {"order": "alphabetical"}),
        ("unit", {"share": 0.9}),
        ("weighted", {"low": 0.5, "high": 0.5}),
        ("weighted", {"low": -0.5, "high": 1.5}),
    ],
)
def test_other_params_keep_the_contract(name: str, params: Mapping[str, Any]) -> None:
    check_crossover_operator(crossovers.create(name, params))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_identical_parents_give_exactly_that_child(name: str, spec: NetworkSpec) -> None:
    operator = crossovers.create(name)
    (parent,) = random_family(spec, 1, seed=1)
    n = operator.n_parents
    family = Family([parent] * n, spec, ["p"] * n, [0.0] * n)
    child = operator.cross(family, np.random.default_rng(0))
    assert all(np.array_equal(child[tensor], parent[tensor]) for tensor in spec.shapes)


@pytest.mark.parametrize("name", EXACT)
def test_every_number_comes_from_a_parent(name: str) -> None:
    operator = crossovers.create(name)
    family = random_family(SPEC, operator.n_parents, seed=1)
    child = operator.cross(family, np.random.default_rng(0))
    for tensor in SPEC.shapes:
        assert np.isin(child[tensor], [parent[tensor] for parent in family]).all()


def test_a_new_process_makes_the_same_children() -> None:
    script = """
import hashlib
from populations.network import NetworkSpec
from strategies.crossover import crossovers
from strategies.testing.families import RELATED, family_cases
spec = NetworkSpec((3,), (6, 4), 2, norm="layer")
for name in reversed(crossovers.available()):
    operator = crossovers.create(name)
    (case,) = family_cases(operator, [spec], RELATED)
    child = case.make(operator)
    print(name, hashlib.sha256(b"".join(child[t].tobytes() for t in spec.shapes)).hexdigest())
"""
    answers = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
    names = {line.split()[0] for line in answers.pop().splitlines()}
    assert {"clone", "unit", "weighted"} <= names <= set(crossovers.available())


@pytest.mark.parametrize("name", crossovers.available())
def test_operators_pickle_small(name: str) -> None:
    assert len(pickle.dumps(crossovers.create(name))) < 300
