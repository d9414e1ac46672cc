"""The crossover stage: two networks become one, by a documented strategy or any other operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from engine.errors import StageError
from engine.learning.qnetwork import sequential
from engine.stages.networks import Network
from engine.stages.recombination.parents import Parent, read_parent
from engine.user_code import blamed, checked
from populations.network import NetworkSpec
from populations.plans import Align
from strategies.crossover import (
    LayerCrossover,
    RandomCrossover,
    WeightedCrossover,
    crossovers,
)
from strategies.errors import StrategyError
from strategies.families import family_of
from strategies.operator import CrossoverOperator
from strategies.parents import Parent as Known

Strategy = Literal["random", "layer", "weighted"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
Seed = int | np.random.Generator | None

LISTED_DIFFERENCES = 3


def make_operator(mode: str, alpha: float = 0.5) -> CrossoverOperator:
    """Return the operator of a documented strategy, set so that it gives the documented child.

    Args:
        mode: ``random``: every tensor from the first parent with probability ``alpha``, one number
            per tensor in alphabetical order of names. ``layer``: layers 0, 2, ... of the first
            parent, the others of the second. ``weighted``: ``alpha * A + (1 - alpha) * B``. Any
            other registered operator by its name, with its own defaults.
        alpha: In ``[0, 1]``; 1 is the first parent. Only ``random`` and ``weighted`` use it.

    Raises:
        StageError: The strategy is not known, or ``alpha`` is out of range.
    """
    if not 0 <= alpha <= 1:
        raise StageError(f"the crossover alpha must be in [0, 1], not {alpha}")
    match mode:
        case "random":
            return RandomCrossover(share=alpha, order="alphabetical")
        case "layer":
            return LayerCrossover(mode="alternate")
        case "weighted":
            return WeightedCrossover(low=alpha, high=alpha)
    try:
        return crossovers.create(mode)
    except StrategyError as error:
        raise StageError(str(error)) from error


def cross(
    a: Network,
    b: Network,
    mode: str | CrossoverOperator,
    alpha: float = 0.5,
    seed: Seed = None,
    align: Align = "none",
    *,
    states: NDArray[np.float32] | None = None,
    ancestor: Network | None = None,
    names: tuple[str, str] = ("parent A", "parent B"),
) -> dict[str, NDArray[np.float32]]:
    """Return the weights of the child of two networks, under the names of the first one.

    Args:
        a: The first parent.
        b: The second parent, of the same architecture; its hidden widths may differ if the operator
            can do with that. Room for Dropout makes no difference.
        mode: Name of a strategy, see :func:`make_operator`, or an operator of two parents.
        alpha: Share of the first parent, in ``[0, 1]``.
        seed: What operators draw from: a seed, a generator, or None for another child each time.
        align: Whether the hidden units of ``b`` are put into the order of ``a`` first: ``none``,
            ``weights``, ``activations``, or ``auto``: by activations unless there is an ancestor.
        states: What activations are compared on, float32 of shape ``(n_states, n_inputs)``.
        ancestor: The network that both parents were trained from, for operators that need one; its
            units must be in their order.
        names: What errors call the parents.

    Returns:
        New float32 arrays.

    Raises:
        StageError: The parents do not share an architecture, a weight is NaN or infinite, states
            have the wrong shape, an argument is out of range, or the operator is unknown or not one
            of two parents.
        AlignmentError: The kind of alignment is not known, or its states are missing.
        NeedError: The operator needs states or an ancestor, and there are none.
        ConceptionError: The operator raised, or gave something that is no such network.
    """
    operator = mode if isinstance(mode, CrossoverOperator) else make_operator(mode, alpha)
    if operator.n_parents != 2:
        raise StageError(f"{operator.name} takes {operator.n_parents} parents, but there are two")
    if ancestor is not None and align in ("weights", "activations"):
        raise StageError(
            "parents keep the order of units of their ancestor, which "
            f"align={align!r} would change for one of them; use 'none' or 'auto'"
        )
    n_inputs, basis = a.spec.n_inputs, "" if ancestor is None else "ancestor"
    if states is not None and (states.ndim != 2 or states.shape[1] != n_inputs):
        raise StageError(f"states must be of shape (N, {n_inputs}), not {states.shape}")
    pair: Sequence[Known] = [
        _as_parent(name, network, a.spec, names[0], operator.same_widths, states, basis)
        for name, network in zip(names, (a, b), strict=True)
    ]
    if align != "none":
        from strategies.alignment import align_parents  # imports SciPy

        pair = align_parents(pair, align)
    base = None
    if ancestor is not None:
        base = _as_parent("the ancestor", ancestor, a.spec, names[0], True, states, basis).weights
    family = family_of(operator, pair, (0.0, 0.0), base)
    with blamed(operator.name):
        child = operator.cross(family, np.random.default_rng(seed))
        return checked(a.spec, child, f"child of {operator.name}")


def _as_parent(
    name: str,
    network: Network,
    spec: NetworkSpec,
    first: str,
    same_widths: bool,
    states: NDArray[np.float32] | None,
    basis: str,
) -> Known:
    """Return a network under the tensor names of the first parent, once it is known to fit.

    Raises:
        StageError: Its architecture is another one, or a weight is NaN or infinite.
    """
    for known_as, tensor in network.weights.items():
        if not np.isfinite(tensor).all():
            raise StageError(
                f"{name}: {known_as} holds NaN or infinity; a network can be crossed only "
                "if all its weights are finite"
            )
    own = network.spec
    if same_widths or len(own.hidden) != len(spec.hidden):
        shared = _shared_spec(spec, own, (first, name))
    else:
        shared = _shared_spec(replace(spec, hidden=own.hidden), own, (first, name))
    tensors = (network.weights[tensor] for tensor in own.shapes)
    return Known(name, shared, dict(zip(shared.shapes, tensors, strict=True)), states, basis)


def initialize_child_from_crossover(
    parent_a: Parent,
    parent_b: Parent,
    strategy: str | CrossoverOperator = "random",
    *,
    alpha: float = 0.5,
    seed: int | None = None,
    rng: np.random.Generator | int | None = None,
    align: Align = "none",
    states: NDArray[np.float32] | None = None,
    ancestor: Parent | None = None,
    dropout: float = 0.0,
    allow_unsafe_unpickle: bool = False,
) -> nn.Sequential:
    """Cross two parents of any kind and return the child as a module that is ready to play.

    A parent is a live module, the path of a file, a state dict of torch tensors or NumPy arrays, a
    genome or a network, float or int8; see :func:`engine.stages.recombination.parents.read_parent`.
    The two may be of different kinds. int8 parents are dequantized first. Neither parent changes,
    and nothing is drawn from torch's global random stream.

    Args:
        parent_a: The first parent; the child's tensors are named ``network.0.weight`` and so on,
            with the numbers that they have in it.
        parent_b: The second parent.
        strategy: Name of a strategy, see :func:`make_operator`, or an operator of two parents.
        alpha: Share of the first parent, in ``[0, 1]``.
        seed: Seed of what the strategy draws.
        rng: A generator, or a seed, instead of ``seed``.
        align: Whether hidden units of the second parent are put into the order of the first one;
            see :func:`cross`.
        states: What activations are compared on, float32 of shape ``(n_states, n_inputs)``.
        ancestor: What both parents were trained from, in any of these forms, for operators that
            need one.
        dropout: Share of hidden units that the child's Dropout modules drop once it is put into
            training mode, in ``[0, 1)``; parents without Dropout have a child without.
        allow_unsafe_unpickle: Let ``.pt`` files run their code while they are loaded.

    Returns:
        A float32 module in ``eval()`` mode, from ``(B, *observation_shape)`` to ``(B, n_actions)``;
        it takes one observation without the B, too.

    Raises:
        StageError: A parent cannot be read or crossed, or an argument is out of range.
        AlignmentError: The kind of alignment is not known, or its states are missing.
        NeedError: The operator needs states or an ancestor, and there are none.
    """
    if seed is not None and rng is not None:
        raise StageError("give either seed or rng, not both")
    if not 0 <= dropout < 1:
        raise StageError(f"dropout must be in [0, 1), not {dropout}")
    name_a, a = read_parent(parent_a, "parent A", allow_unsafe_unpickle)
    name_b, b = read_parent(parent_b, "parent B", allow_unsafe_unpickle)
    source = seed if rng is None else rng
    names = (name_a, name_b)
    base = None
    if ancestor is not None:
        base = read_parent(ancestor, "the ancestor", allow_unsafe_unpickle)[1]
    weights = cross(a, b, strategy, alpha, source, align, states=states, ancestor=base, names=names)
    with torch.random.fork_rng(devices=[]):  # building a Linear draws random weights
        child = sequential(a.spec, weights)
    for module in child.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return child.eval()


def _shared_spec(a: NetworkSpec, b: NetworkSpec, names: tuple[str, str]) -> NetworkSpec:
    """Return the first spec if both describe one function, whatever their modules' numbers.

    Raises:
        StageError: They do not; the text names both parents and what differs.
    """
    if (a.n_inputs, a.hidden, a.n_actions, a.norm) == (b.n_inputs, b.hidden, b.n_actions, b.norm):
        return a
    if (len(a.hidden), a.norm) != (len(b.hidden), b.norm):
        found = " and ".join(
            f"{name} has {_layers(s)}" for name, s in zip(names, (a, b), strict=True)
        )
    else:
        pairs = zip(a.shapes.items(), b.shapes.values(), strict=True)
        differing = [(name, of_a, of_b) for (name, of_a), of_b in pairs if of_a != of_b]
        found = "; ".join(
            f"{name} is {of_a} in {names[0]} but {of_b} in {names[1]}"
            for name, of_a, of_b in differing[:LISTED_DIFFERENCES]
        )
        left_out = len(differing) - LISTED_DIFFERENCES
        found += f"; and {left_out} more" if left_out > 0 else ""
    raise StageError(f"parents must share one architecture to be crossed: {found}")


def _layers(spec: NetworkSpec) -> str:
    widths = " x ".join(map(str, (spec.n_inputs, *spec.hidden, spec.n_actions)))
    return f"{widths} {'with' if spec.norm == 'layer' else 'without'} LayerNorm"
