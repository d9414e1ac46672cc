"""The conformance suite: what every crossover operator has to keep to.

A plug-in author runs it from a test of their own::

    from strategies.testing import check_crossover_operator

    def test_my_operator_keeps_the_contract():
        check_crossover_operator(MyCrossover(strength=0.3))
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from populations.network import NetworkSpec, Weights
from strategies.errors import ConformanceError
from strategies.operator import CrossoverOperator, Family
from strategies.registry import NAME

SPECS = (
    NetworkSpec((4,), (), 2),
    NetworkSpec((4,), (5,), 3),
    NetworkSpec((3,), (6, 4), 2, norm="layer"),
    NetworkSpec((4,), (4, 4), 4, norm="layer", dropout_slots=True),
    NetworkSpec((2, 3), (5, 1, 3), 1, dropout_slots=True),
)
"""Linear to three hidden layers, square and not, with and without LayerNorm and Dropout slots."""

SEEDS = (0, 1, 2)


def check_crossover_operator(
    operator: CrossoverOperator, specs: Sequence[NetworkSpec] | None = None
) -> None:
    """Check that an operator keeps the contract of :class:`CrossoverOperator`.

    It gives finite float32 tensors of the right names and shapes in new arrays, leaves its parents
    alone, takes all randomness from ``rng``, survives pickling, and gives back parents that are all
    equal unless it says ``idempotent = False``. What the operator raises itself is passed on.

    Args:
        operator: The instance to check.
        specs: Architectures to check it with; by default a few small ones.

    Raises:
        ConformanceError: The operator breaks the contract. It is an AssertionError.
    """
    _check_declaration(operator)
    for spec in SPECS if specs is None else specs:
        for seed in SEEDS:
            family = random_family(spec, operator.n_parents, seed)
            child = _cross(operator, family, seed)
            _check_tensors(operator, spec, child)
            _check_new_arrays(operator, family, child, _cross(operator, family, seed + 1))
            _check_randomness(operator, family, seed, child)
            _check_pickling(operator, family, seed, child)
            _check_identical_parents(operator, family, seed)


def random_family(spec: NetworkSpec, n_parents: int, seed: int) -> Family:
    """Return unrelated random parents, read-only, every tensor drawn from ``N(0, 1)``."""
    rng = np.random.default_rng(seed)
    parents = [
        _read_only(
            {name: rng.standard_normal(s, dtype=np.float32) for name, s in spec.shapes.items()}
        )
        for _ in range(n_parents)
    ]
    ids = [f"parent{index}" for index in range(n_parents)]
    return Family(parents, spec, ids, [float(-index) for index in range(n_parents)])


def _read_only(weights: dict[str, NDArray[np.float32]]) -> Weights:
    for tensor in weights.values():
        tensor.setflags(write=False)
    return MappingProxyType(weights)


def _check_declaration(operator: CrossoverOperator) -> None:
    cls = type(operator).__name__
    name = getattr(operator, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConformanceError(
            f"{cls} has the name {name!r}; set a class attribute 'name' in snake_case"
        )
    if type(operator.n_parents) is not int or operator.n_parents < 0:
        raise ConformanceError(
            f"{cls} has n_parents {operator.n_parents!r}; set a class attribute 'n_parents' to a "
            "whole number of at least 0"
        )
    try:
        params = operator.params
        rebuilt = type(operator)(**params).params
    except (TypeError, ValueError) as error:
        raise ConformanceError(
            f"{cls} cannot be built again from its params: {error}; keep every constructor "
            "argument, as it was given, in an attribute of the same name"
        ) from error
    if rebuilt != params:
        raise ConformanceError(
            f"{cls} built from the params {params} has the params {rebuilt}; keep every "
            "constructor argument in an attribute of the same name"
        )


def _cross(operator: CrossoverOperator, family: Family, seed: int) -> Weights:
    try:
        return operator.cross(family, np.random.default_rng(seed))
    except (TypeError, ValueError) as error:
        if "read-only" in str(error) or "mappingproxy" in str(error):
            raise _failure(
                operator, family.spec, "writes into its parents", "copy what you want to change"
            ) from error
        raise


def _check_tensors(operator: CrossoverOperator, spec: NetworkSpec, child: Weights) -> None:
    if not isinstance(child, Mapping):
        raise _failure(
            operator,
            spec,
            f"returns a {type(child).__name__}",
            "return a dictionary of arrays by tensor name",
        )
    if set(child) != set(spec.shapes):
        raise _failure(
            operator,
            spec,
            f"returns the tensors {sorted(child)} instead of {sorted(spec.shapes)}",
            "loop over parents.spec.shapes",
        )
    for name, shape in spec.shapes.items():
        tensor = child[name]
        if not isinstance(tensor, np.ndarray) or tensor.shape != shape:
            raise _failure(
                operator,
                spec,
                f"returns {name} of shape {np.shape(tensor)} instead of {shape}",
                "keep the shapes of the parents",
            )
        if tensor.dtype != np.float32:
            raise _failure(
                operator,
                spec,
                f"returns {name} as {tensor.dtype} instead of float32",
                "compute in float32, or end with .astype(numpy.float32)",
            )
        if not np.isfinite(tensor).all():
            raise _failure(
                operator,
                spec,
                f"returns NaN or infinity in {name}",
                "guard divisions by zero and logarithms",
            )


def _check_new_arrays(
    operator: CrossoverOperator, family: Family, child: Weights, sibling: Weights
) -> None:
    for name in family.spec.shapes:
        if any(np.shares_memory(child[name], tensor) for p in family for tensor in p.values()):
            raise _failure(
                operator,
                family.spec,
                f"returns {name} as memory of a parent",
                "return a copy of what is taken over unchanged",
            )
        if np.shares_memory(child[name], sibling[name]):
            raise _failure(
                operator,
                family.spec,
                f"returns {name} as memory of an earlier child",
                "make new arrays in every call, and keep none on the operator",
            )


def _check_randomness(
    operator: CrossoverOperator, family: Family, seed: int, child: Weights
) -> None:
    with _other_global_randomness(seed):
        again = [_cross(operator, family, seed) for _ in range(2)]  # twice: state may alternate
    if not all(_equal(child, each) for each in again):
        raise _failure(
            operator,
            family.spec,
            "gives another child for an equal rng",
            "draw all random numbers from rng, not from numpy.random or random, and keep no state "
            "between calls",
        )


def _check_pickling(operator: CrossoverOperator, family: Family, seed: int, child: Weights) -> None:
    try:
        restored = pickle.loads(pickle.dumps(operator))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise _failure(
            operator,
            family.spec,
            f"cannot be pickled: {error}",
            "define the class at the top of a module, and keep no functions or files on it",
        ) from error
    if not _equal(child, _cross(restored, family, seed)):
        raise _failure(
            operator,
            family.spec,
            "gives another child after pickling",
            "keep everything it needs in attributes",
        )


def _check_identical_parents(operator: CrossoverOperator, family: Family, seed: int) -> None:
    if not (operator.idempotent and family):
        return
    twins = Family([family[0]] * len(family), family.spec, family.ids, family.fitness)
    child = _cross(operator, twins, seed)
    for name in family.spec.shapes:
        if not np.allclose(child[name], family[0][name], rtol=1e-5, atol=1e-6):
            raise _failure(
                operator,
                family.spec,
                f"makes something else of identical parents ({name} differs)",
                "give back the parent, or set 'idempotent = False' if this is meant",
            )


@contextmanager
def _other_global_randomness(seed: int) -> Iterator[None]:
    """Put the global generators into another state than before, and back again."""
    # The legacy global generator is what an operator must not use, hence NPY002.
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002  # as above
    np.random.seed(1000 + seed)  # noqa: NPY002  # as above
    random.seed(1000 + seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002  # as above
        random.setstate(python_state)


def _equal(a: Weights, b: Weights) -> bool:
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


def _failure(
    operator: CrossoverOperator, spec: NetworkSpec, what: str, mend: str
) -> ConformanceError:
    return ConformanceError(f"crossover {operator.name!r} {what}; {mend} (checked with {spec})")
