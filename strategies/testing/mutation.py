"""What is asked of a mutation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from populations.network import NetworkSpec
from strategies.declaration import (
    MUTATION_NEEDS,
    Fault,
    name_faults,
    needs_faults,
    params_faults,
    step_faults,
)
from strategies.mutation import Mutation, Newborn
from strategies.parents import frozen
from strategies.testing import tensors
from strategies.testing.networks import (
    SEEDS,
    SPECS,
    describe,
    random_states,
    random_weights,
    silence_units,
)
from strategies.testing.observe import writable
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

PLAIN = "a random child"
DEAD = "a child with dead units and a tensor of zeros, 3 states"
LARGE = "a child with weights of about 1,000"
SMALL = "a child with weights of about 0.001"


@dataclass(frozen=True)
class MutationCase:
    """One newborn, and the seed of what is made of it.

    Attributes:
        kind: What is special about it.
        newborn: The child, with states if the mutation asks for them.
        seed: Seed of the random stream.
    """

    kind: str
    newborn: Newborn
    seed: int

    @property
    def where(self) -> str:
        """What is given, for messages."""
        return f"{self.kind}, {describe(self.spec)}, seed {self.seed}"

    @property
    def spec(self) -> NetworkSpec:
        """Architecture that the mutant has to have."""
        return self.newborn.spec

    @property
    def given(self) -> Mapping[str, Any]:
        """Weights and states of the newborn."""
        return {"child.weights": self.newborn.weights, "child.states": self.newborn.states}

    def make(self, operator: Mutation) -> Any:
        """Return what the mutation makes of this, with the same random stream every time."""
        return operator.mutate(self.newborn, np.random.default_rng(self.seed))

    def writable(self) -> MutationCase:
        """Return the same case in arrays that can be written to."""
        old = self.newborn
        return replace(self, newborn=Newborn(writable(old.weights), old.spec, writable(old.states)))


def check_mutation(mutation: Mutation, specs: Sequence[NetworkSpec] | None = None) -> None:
    """Check that a mutation keeps the contract of :class:`Mutation`.

    It gives finite float32 tensors of the right names and shapes in new arrays, leaves the newborn
    alone, reads states only where it asks for them, takes all randomness from ``rng``, survives
    pickling, and can be given another step size if it says that it has one. It does so for
    ordinary weights, very large and very small ones, and networks with dead units.

    Args:
        mutation: The instance to check.
        specs: Architectures to check it with; by default a few small ones.

    Raises:
        ConformanceError: The mutation breaks the contract, or raises an error itself. The text has
            a line for every check that failed. It is an AssertionError.
        TypeError: It is given a class.
    """
    raise_failed("mutation", mutation, examine_mutation(mutation, specs))


def examine_mutation(
    mutation: Mutation, specs: Sequence[NetworkSpec] | None = None
) -> tuple[Outcome, ...]:
    """Return what becomes of each check; see :func:`check_mutation`.

    Args:
        mutation: The instance to check.
        specs: Architectures to check it with; by default a few small ones.
    """
    refuse_class(mutation)
    cases = partial(_cases, mutation, SPECS if specs is None else specs)
    trials = Trials(mutation, State(mutation), cases)
    asked = (
        ("name", "has a name in snake_case", name_faults(mutation)),
        ("needs", "needs nothing but what is known", needs_faults(mutation, MUTATION_NEEDS)),
        ("params", "can be built again from its params", params_faults(mutation)),
        ("step size", "can be given another step size", _step_faults(mutation)),
        ("errors", "makes a mutant of every child", tensors.error_faults(trials)),
        ("declared", "reads only what it declares", _need_faults(trials)),
        ("tensors", "gives tensors of the right names and shapes", tensors.tensor_faults(trials)),
        ("dtype", "gives float32", tensors.dtype_faults(trials)),
        ("finite", "gives finite numbers", tensors.finite_faults(trials)),
        ("warnings", "computes without warnings", tensors.warning_faults(trials)),
        ("new arrays", "gives arrays of its own", tensors.new_array_faults(trials)),
        ("read-only", "leaves child and states as they are", tensors.write_faults(trials)),
        ("repeatable", "gives an equal mutant for an equal rng", tensors.repeat_faults(trials)),
        ("global rng", "leaves global randomness alone", tensors.global_faults(trials)),
        ("pickling", "gives an equal mutant after pickling", tensors.pickle_faults(trials)),
    )
    return run_checks([Check(*each) for each in asked], mutation)


def _cases(mutation: Mutation, specs: Sequence[NetworkSpec]) -> Iterator[MutationCase]:
    if any(needs_faults(mutation, MUTATION_NEEDS)):
        raise NotAsked("mend needs first")
    for spec in specs:
        for seed in SEEDS:
            yield _case(mutation, PLAIN, spec, seed)
    for kind in (DEAD, LARGE, SMALL):
        for spec in specs:
            yield _case(mutation, kind, spec, SEEDS[0])


def _case(mutation: Mutation, kind: str, spec: NetworkSpec, seed: int) -> MutationCase:
    weights = random_weights(spec, np.random.default_rng(seed))
    states = random_states(spec, seed)
    if kind == DEAD:
        silence_units(spec, weights)
        weights[spec.blocks[-1].weight][:] = 0
        states = states[:3]
    for tensor in weights.values():
        tensor *= {LARGE: 1e3, SMALL: 1e-3}.get(kind, 1)
    newborn = Newborn(
        MappingProxyType({name: frozen(tensor) for name, tensor in weights.items()}),
        spec,
        frozen(states) if "states" in mutation.needs else None,
    )
    return MutationCase(kind, newborn, seed)


def _need_faults(trials: Trials) -> Iterator[Fault]:
    """Find mutations that fail without the states that they did not ask for."""
    for trial in trials.all:
        case = trial.case
        if trial.call.error is None or not isinstance(case, MutationCase):
            continue
        newborn = replace(case.newborn, states=frozen(random_states(case.spec, case.seed)))
        with_states = trials.trial(replace(case, newborn=newborn), trials.operator)
        if with_states.call.error is None:
            what = "reads child.states, which is None unless it asks for them"
            yield Fault(what, "set needs = ('states',) in the class", trial.where)


def _step_faults(mutation: Mutation) -> Iterator[Fault]:
    if mutation.step_size is None:
        raise NotAsked("it has no step size: step_size = None")
    yield from step_faults(mutation)
