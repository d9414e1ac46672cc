from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from populations.network import NetworkSpec
from strategies.errors import NeedError
from strategies.families import family_of
from strategies.operator import NEEDS, CrossoverOperator, Family, Need
from strategies.parents import Parent
from strategies.permutation import permute_units

SPECS = [
    NetworkSpec((3,), (), 2),
    NetworkSpec((3,), (5,), 3),
    NetworkSpec((2, 2), (6, 4), 2, norm="layer", dropout_slots=True),
]
FACTS = ("responses", "activations", "profiles", "grams", "fisher", "unit_rows")
FOR_OPERATORS = ("weights", "activations", "grams", "fisher")
SPEC = SPECS[2]


class Needy(CrossoverOperator):
    name = "needy"

    def __init__(self, *needs: Any, same_widths: bool = True) -> None:
        self.needs: tuple[Need, ...] = needs  # type: ignore[misc]
        self.same_widths = same_widths  # type: ignore[misc]

    def cross(self, parents: Family, rng: np.random.Generator) -> Any:
        raise NotImplementedError


def random_parent(
    spec: NetworkSpec, seed: int = 0, name: str = "p", basis: str = "", n_states: int = 20
) -> Parent:
    rng = np.random.default_rng(seed)
    weights = {each: rng.standard_normal(s).astype(np.float32) for each, s in spec.shapes.items()}
    states = np.random.default_rng(99).standard_normal((n_states, spec.n_inputs))
    return Parent(name, spec, weights, states.astype(np.float32), basis)


def arrays(fact: Any) -> Iterator[np.ndarray]:
    yield from fact.values() if isinstance(fact, Mapping) else fact


# facts


def test_facts_by_hand() -> None:
    spec = NetworkSpec((1,), (2,), 1)
    weights = {
        "network.0.weight": np.array([[1], [-1]], np.float32),
        "network.0.bias": np.array([0, 1], np.float32),
        "network.2.weight": np.array([[1, 2]], np.float32),
        "network.2.bias": np.array([0], np.float32),
    }
    parent = Parent("p", spec, weights, np.array([[1], [3]], np.float32))
    np.testing.assert_array_equal(parent.responses[0], [[1, 0], [3, -2]])
    np.testing.assert_array_equal(parent.activations[0], [[1, 0], [3, 0]])
    # Inputs (1, 1) and (3, 1), then (1, 0, 1) and (3, 0, 1): the mean of their outer products.
    np.testing.assert_array_equal(parent.grams[0], [[5, 2], [2, 1]])
    np.testing.assert_array_equal(parent.grams[1], [[5, 0, 2], [0, 0, 0], [2, 0, 1]])
    assert not any(each.any() for each in parent.fisher.values())  # one action: no choice
    # One varying unit, standardized over two states; dead behind the ReLU, and varying before it.
    half, small = np.sqrt(0.5), np.sqrt(1e-3) * np.sqrt(0.5)
    expected = [[-half, 0], [half, 0], [-small, small], [small, -small]]
    np.testing.assert_allclose(parent.profiles[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(parent.unit_rows[0], [[1, 0, 1], [-1, 1, 2]])


@settings(max_examples=25)
@given(st.data())
@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_reordered_facts_are_those_of_the_reordered_network(
    spec: NetworkSpec, data: st.DataObject
) -> None:
    original = random_parent(spec, data.draw(st.integers(0, 100)), basis="root")
    orders = [np.array(data.draw(st.permutations(range(width)))) for width in spec.hidden]
    known = data.draw(st.booleans())
    if known:
        assert all(getattr(original, fact) is not None for fact in FACTS)
    reordered = original.reordered(orders)
    weights = permute_units(spec, original.weights, orders)
    computed = Parent("p", spec, weights, original.states)
    for name in spec.shapes:
        np.testing.assert_array_equal(reordered.weights[name], weights[name])
    for fact in FACTS:
        pairs = zip(arrays(getattr(reordered, fact)), arrays(getattr(computed, fact)), strict=True)
        for found, expected in pairs:
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=fact)
    assert (reordered.id, reordered.spec) == (original.id, original.spec)


@pytest.mark.parametrize("reordered", [False, True])
def test_nobody_can_write_into_what_operators_are_given(reordered: bool) -> None:
    parent = random_parent(SPEC)
    if reordered:
        parent = parent.reordered([np.arange(width)[::-1] for width in SPEC.hidden])
    found = [parent.states]
    for fact in FOR_OPERATORS:
        found += arrays(getattr(parent, fact))
    assert len(found) == 1 + 10 + 2 + 3 + 10
    for array in found:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    for mapping in (parent.weights, parent.fisher):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["network.0.bias"] = found[0]  # type: ignore[index]


def test_a_parent_keeps_a_copy_of_what_it_is_given() -> None:
    weights = {name: np.ones(shape, np.float32) for name, shape in SPEC.shapes.items()}
    states = np.ones((3, 4), np.float32)
    parent = Parent("p", SPEC, weights, states)
    states[:] = 2
    for tensor in weights.values():
        tensor[...] = 2
    assert (parent.states == 1).all()
    assert all((tensor == 1).all() for tensor in parent.weights.values())


def test_facts_are_computed_once() -> None:
    parent = random_parent(SPEC)
    for fact in FACTS:
        assert getattr(parent, fact) is getattr(parent, fact)


@pytest.mark.parametrize("states", [None, np.empty((0, 4), np.float32)], ids=["none", "empty"])
def test_a_parent_without_states_says_so_when_they_are_needed(states: Any) -> None:
    parent = Parent("p7", SPEC, random_parent(SPEC).weights, states)
    for ask in (parent, parent.reordered([np.arange(width) for width in SPEC.hidden])):
        assert not ask.has_states
        for fact in ("states", "responses", "activations", "profiles", "grams", "fisher"):
            with pytest.raises(NeedError, match="states are needed to compare p7"):
                getattr(ask, fact)


# families


def test_a_family_holds_what_its_operator_needs_and_nothing_else() -> None:
    parents = [random_parent(SPEC, seed, f"p{seed}") for seed in range(3)]
    ancestor = random_parent(SPEC, 9).weights
    for need in NEEDS:
        family = family_of(Needy(need), parents, [3.0, 2.0, 1.0], ancestor)
        if need == "ancestor":
            for name in SPEC.shapes:
                np.testing.assert_array_equal(family.ancestor[name], ancestor[name])
        elif need == "states":
            np.testing.assert_array_equal(family.states, parents[0].states)
        else:
            for found, parent in zip(getattr(family, need), parents, strict=True):
                assert found is getattr(parent, need)
        for other in set(NEEDS) - {need}:
            with pytest.raises(NeedError, match=f"parents.{other} was not asked for"):
                getattr(family, other)
    family = family_of(Needy(), parents, [3.0, 2.0, 1.0])
    assert (family.ids, family.fitness) == (("p0", "p1", "p2"), (3.0, 2.0, 1.0))
    assert (family.spec, family.specs) == (SPEC, (SPEC,) * 3)
    assert [each is parent.weights for each, parent in zip(family, parents, strict=True)]


def test_an_operator_that_needs_no_states_gets_parents_without() -> None:
    parents = [Parent(name, SPEC, random_parent(SPEC).weights) for name in "ab"]
    assert len(family_of(Needy(), parents, [0.0, 0.0])) == 2


def test_a_missing_ancestor_is_refused_with_the_names_of_the_parents() -> None:
    parents = [random_parent(SPEC, name=name) for name in ("one", "two")]
    with pytest.raises(NeedError, match=r"needy needs .* ancestor, but one and two have none; stu"):
        family_of(Needy("ancestor"), parents, [0.0, 0.0])


def test_parents_of_different_descent_are_told_apart() -> None:
    weights = random_parent(SPEC).weights
    bases = {"one": "eve", "two": "two", "three": ""}
    parents = [Parent(name, SPEC, weights, basis=basis) for name, basis in bases.items()]
    message = (
        "but one descends from eve and two begins a line of its own and three descends from none "
        "that is recorded; students share one with distillation.ancestor: shared"
    )
    with pytest.raises(NeedError, match=message):
        family_of(Needy("ancestor"), parents, [0.0, 0.0, 0.0])
    kin = [Parent(name, SPEC, weights, basis="eve") for name in ("one", "two")]
    with pytest.raises(NeedError, match="but that of one and two is not at hand; students"):
        family_of(Needy("ancestor"), kin, [0.0, 0.0])


def test_a_need_that_is_not_known_is_refused_with_a_suggestion() -> None:
    with pytest.raises(NeedError, match=r"'gram', which is not known. Did you mean 'grams'\?"):
        family_of(Needy("gram"), [random_parent(SPEC)], [0.0])


WIDER = NetworkSpec((2, 2), (6, 9), 2, norm="layer", dropout_slots=True)


def test_parents_of_other_widths_are_refused_unless_the_operator_takes_them() -> None:
    parents = [random_parent(SPEC, name="one"), random_parent(WIDER, name="two")]
    with pytest.raises(
        NeedError, match=r"needs parents of one architecture, but two is .* and one"
    ):
        family_of(Needy(), parents, [0.0, 0.0])
    needy = Needy("activations", "grams", "fisher", same_widths=False)
    family = family_of(needy, parents, [0.0, 0.0])
    assert (family.spec, family.specs) == (SPEC, (SPEC, WIDER))
    assert [layer.shape for layer in family.activations[1]] == [(20, 6), (20, 9)]
    assert [gram.shape for gram in family.grams[1]] == [(5, 5), (7, 7), (10, 10)]
    assert family.fisher[1]["network.4.weight"].shape == (9, 6)


@pytest.mark.parametrize(
    "other",
    [
        NetworkSpec((2, 2), (6,), 2, norm="layer", dropout_slots=True),
        NetworkSpec((2, 2), (6, 4), 2, dropout_slots=True),
        NetworkSpec((2, 2), (6, 4), 2, norm="layer"),
        NetworkSpec((2, 2), (6, 4), 3, norm="layer", dropout_slots=True),
        NetworkSpec((2, 3), (6, 4), 2, norm="layer", dropout_slots=True),
    ],
    ids=["depth", "norm", "names", "actions", "inputs"],
)
@pytest.mark.parametrize("same_widths", [True, False])
def test_parents_that_differ_in_anything_else_are_always_refused(
    other: NetworkSpec, same_widths: bool
) -> None:
    parents = [random_parent(SPEC, name="one"), random_parent(other, name="two")]
    with pytest.raises(NeedError, match=r"needs parents of one architecture.* two is .* one is"):
        family_of(Needy(same_widths=same_widths), parents, [0.0, 0.0])


def test_kin_keep_the_order_of_one_genome() -> None:
    root, other = (random_parent(SPEC, basis=basis) for basis in ("root", "other"))
    assert root.is_kin_of(random_parent(SPEC, 1, basis="root"))
    assert not root.is_kin_of(other)
    assert not random_parent(SPEC).is_kin_of(random_parent(SPEC))  # orders of their own
