"""What is asked of a crossover operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from populations.network import NetworkSpec
from strategies.declaration import (
    Fault,
    count_faults,
    flag_faults,
    name_faults,
    needs_faults,
    params_faults,
)
from strategies.operator import NEEDS, CrossoverOperator
from strategies.testing import tensors
from strategies.testing.families import (
    ORDINARY,
    TWINS,
    WIDTHS,
    FamilyCase,
    family_cases,
)
from strategies.testing.networks import SPECS
from strategies.testing.report import (
    Check,
    NotAsked,
    Outcome,
    raise_failed,
    refuse_class,
    run_checks,
)
from strategies.testing.state import State
from strategies.testing.tensors import Trials

MOST_PARENTS = 100
"""More parents than this are taken for a mistake."""


def check_crossover_operator(
    operator: CrossoverOperator, specs: Sequence[NetworkSpec] | None = None
) -> None:
    """Check that an operator keeps the contract of :class:`CrossoverOperator`.

    It gives finite float32 tensors of the right names and shapes in new arrays, leaves its parents
    and what else it is given alone, reads only what it declares, takes all randomness from ``rng``,
    survives pickling, and gives back parents that are all equal unless it says
    ``idempotent = False``. It does so for parents that are unrelated, nearly equal, of very
    different scale, or have dead units, and of different widths where it says
    ``same_widths = False``.

    Args:
        operator: The instance to check.
        specs: Architectures to check it with; by default a few small ones.

    Raises:
        ConformanceError: The operator breaks the contract, or raises an error itself. The text has
            a line for every check that failed. It is an AssertionError.
        TypeError: It is given a class.
    """
    raise_failed("crossover", operator, examine_crossover(operator, specs))


def examine_crossover(
    operator: CrossoverOperator, specs: Sequence[NetworkSpec] | None = None
) -> tuple[Outcome, ...]:
    """Return what becomes of each check; see :func:`check_crossover_operator`.

    Args:
        operator: The instance to check.
        specs: Architectures to check it with; by default a few small ones.
    """
    refuse_class(operator)
    specs = SPECS if specs is None else specs
    state = State(operator)
    trials, twins, widths = (
        Trials(operator, state, partial(_cases, operator, specs, kinds))
        for kinds in (ORDINARY, (TWINS,), (WIDTHS,))
    )
    asked = (
        ("name", "has a name in snake_case", name_faults(operator)),
        ("parents", "says how many parents it takes", _count_faults(operator)),
        ("needs", "needs nothing but what is known", needs_faults(operator, NEEDS)),
        ("params", "can be built again from its params", params_faults(operator)),
        ("flags", "says True or False of same_widths and idempotent", flag_faults(operator)),
        ("errors", "makes a child of every family", tensors.error_faults(trials)),
        ("declared", "reads only what it declares", tensors.need_faults(trials)),
        ("tensors", "gives tensors of the right names and shapes", tensors.tensor_faults(trials)),
        ("dtype", "gives float32", tensors.dtype_faults(trials)),
        ("finite", "gives finite numbers", tensors.finite_faults(trials)),
        ("warnings", "computes without warnings", tensors.warning_faults(trials)),
        ("new arrays", "gives arrays of its own", tensors.new_array_faults(trials)),
        ("read-only", "leaves parents and facts as they are", tensors.write_faults(trials)),
        ("repeatable", "gives an equal child for an equal rng", tensors.repeat_faults(trials)),
        ("global rng", "leaves global randomness alone", tensors.global_faults(trials)),
        ("pickling", "gives an equal child after pickling", tensors.pickle_faults(trials)),
        ("equal parents", "gives equal parents back", _twin_faults(operator, twins)),
        ("widths", "takes parents of different widths", _width_faults(operator, widths)),
    )
    return run_checks([Check(*each) for each in asked], operator)


def _cases(
    operator: CrossoverOperator, specs: Sequence[NetworkSpec], kinds: Sequence[str]
) -> Iterator[FamilyCase]:
    if any(_count_faults(operator)) or any(needs_faults(operator, NEEDS)):
        raise NotAsked("mend n_parents and needs first")
    for kind in kinds:
        yield from family_cases(operator, specs, kind)


def _count_faults(operator: CrossoverOperator) -> Iterator[Fault]:
    faults = list(count_faults(operator))
    yield from faults
    if not faults and operator.n_parents > MOST_PARENTS:
        yield Fault(f"has n_parents {operator.n_parents}", f"check it with {MOST_PARENTS} or fewer")


def _twin_faults(operator: CrossoverOperator, twins: Trials) -> Iterator[Fault]:
    if not operator.idempotent:
        raise NotAsked("it says idempotent = False")
    if operator.n_parents == 0:
        raise NotAsked("it takes no parents")
    yield from tensors.twin_faults(twins)


def _width_faults(operator: CrossoverOperator, widths: Trials) -> Iterator[Fault]:
    if operator.same_widths:
        raise NotAsked("it takes parents of one architecture: same_widths = True")
    if operator.n_parents < 2:
        raise NotAsked("it takes fewer than two parents")
    for find in (
        tensors.error_faults,
        tensors.need_faults,
        tensors.tensor_faults,
        tensors.dtype_faults,
        tensors.finite_faults,
        tensors.warning_faults,
        tensors.new_array_faults,
        tensors.write_faults,
        tensors.repeat_faults,
    ):
        yield from find(widths)
