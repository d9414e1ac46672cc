"""The tensor names of a spec are those that torch gives to the same network."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from populations.errors import GenomeShapeError, GenomeValueError
from populations.network import NetworkSpec

WIDTHS = st.integers(1, 9)
SPECS = st.builds(
    NetworkSpec,
    observation_shape=st.lists(WIDTHS, min_size=1, max_size=3).map(tuple),
    hidden=st.lists(WIDTHS, max_size=4).map(tuple),
    n_actions=WIDTHS,
    norm=st.sampled_from(["none", "layer"]),
    dropout_slots=st.booleans(),
)


def sequential(spec: NetworkSpec) -> nn.Module:
    """Build the network of a spec from torch modules, in the order AgentFarm stacks them."""
    modules: list[nn.Module] = []
    n_in = int(np.prod(spec.observation_shape))
    for width in spec.hidden:
        modules.append(nn.Linear(n_in, width))
        if spec.norm == "layer":
            modules.append(nn.LayerNorm(width))
        modules.append(nn.ReLU())
        if spec.dropout_slots:
            modules.append(nn.Dropout(0.1))
        n_in = width
    modules.append(nn.Linear(n_in, spec.n_actions))
    network = nn.Module()
    network.network = nn.Sequential(*modules)
    return network


def weights_of(spec: NetworkSpec) -> dict[str, np.ndarray]:
    return {name: np.ones(shape, np.float32) for name, shape in spec.shapes.items()}


@given(SPECS)
def test_names_shapes_and_order_are_those_of_torch(spec: NetworkSpec) -> None:
    state = sequential(spec).state_dict()
    expected = [(name, tuple(tensor.shape)) for name, tensor in state.items()]
    assert list(spec.shapes.items()) == expected


@given(SPECS)
def test_parameters_are_counted_as_torch_counts_them(spec: NetworkSpec) -> None:
    assert spec.n_parameters == sum(p.numel() for p in sequential(spec).parameters())


def test_agentfarm_numbers_its_layers_0_1_4_5_8() -> None:
    spec = NetworkSpec((8,), (64, 64), 4, norm="layer", dropout_slots=True)
    modules = [name.rsplit(".", 1)[0] for name in spec.shapes]
    assert [name for name, _ in itertools.groupby(modules)] == [
        "network.0",
        "network.1",
        "network.4",
        "network.5",
        "network.8",
    ]


@given(SPECS)
def test_a_spec_survives_its_dictionary(spec: NetworkSpec) -> None:
    assert NetworkSpec.from_dict(spec.to_dict()) == spec


@given(SPECS, st.randoms(use_true_random=False))
def test_permuting_the_units_of_a_layer_keeps_the_q_values(spec: NetworkSpec, random) -> None:
    """``units`` names everything that moves with a hidden unit, or this would change outputs."""
    torch.manual_seed(0)
    network = sequential(spec).eval()
    state = network.state_dict()
    for tensor in state.values():
        tensor.copy_(torch.randn(tensor.shape))
    observation = torch.randn(5, spec.n_inputs)
    before = network.network(observation)
    permuted = dict(state)
    for layer in spec.units:
        order = list(range(layer.n_units))
        random.shuffle(order)
        for name, axis in (*layer.incoming, *layer.outgoing):
            permuted[name] = permuted[name].index_select(axis, torch.tensor(order))
    network.load_state_dict(permuted)
    torch.testing.assert_close(network.network(observation), before, rtol=1e-4, atol=1e-4)


def test_every_hidden_layer_has_its_units() -> None:
    spec = NetworkSpec((4,), (8, 6), 2)
    assert [layer.n_units for layer in spec.units] == [8, 6]


def test_an_observation_of_several_axes_is_flattened() -> None:
    assert NetworkSpec((3, 4, 5), (), 2).n_inputs == 60


@pytest.mark.parametrize(
    ("shape", "hidden", "n_actions"), [((), (4,), 2), ((4,), (0,), 2), ((4,), (4,), 0)]
)
def test_a_size_below_one_is_refused(shape, hidden, n_actions) -> None:
    with pytest.raises(GenomeShapeError, match="at least 1"):
        NetworkSpec(shape, hidden, n_actions)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": [4.0]},
        {"hidden": "48"},
        {"hidden": [True]},
        {"n_actions": "2"},
        {"norm": "batch"},
        {"observation_shape": None},
    ],
)
def test_a_damaged_description_is_refused(change) -> None:
    values = NetworkSpec((4,), (8,), 2).to_dict() | change
    with pytest.raises(GenomeShapeError):
        NetworkSpec.from_dict(values)


def test_a_description_without_a_field_is_refused() -> None:
    with pytest.raises(GenomeShapeError, match="hidden"):
        NetworkSpec.from_dict({"observation_shape": [4]})


def test_missing_and_unexpected_tensors_are_named() -> None:
    spec = NetworkSpec((4,), (8,), 2)
    weights = weights_of(spec)
    weights["network.7.bias"] = weights.pop("network.2.bias")
    with pytest.raises(
        GenomeShapeError, match=r"b81d.*missing: network\.2\.bias; unexpected: network\.7\.bias"
    ):
        spec.check(weights, "b81d")


def test_a_wrong_shape_or_dtype_is_named() -> None:
    spec = NetworkSpec((4,), (8,), 2)
    weights = weights_of(spec)
    with pytest.raises(GenomeShapeError, match=r"network\.0\.weight must be float32 of shape"):
        spec.check(weights | {"network.0.weight": np.ones((4, 8), np.float32)}, "x")
    with pytest.raises(GenomeShapeError, match=r"network\.0\.weight must be .*, not float64"):
        spec.check(weights | {"network.0.weight": np.ones((8, 4))}, "x")


def test_what_holds_no_arrays_is_named() -> None:
    spec = NetworkSpec((4,), (8,), 2)
    with pytest.raises(GenomeShapeError, match=r"^x: expected tensors by name, not a list$"):
        spec.check([], "x")  # type: ignore[arg-type]  # this is the point
    with pytest.raises(GenomeShapeError, match=r"x: network\.2\.bias must be a .*, not a list$"):
        spec.check(weights_of(spec) | {"network.2.bias": [0.0, 0.0]}, "x")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value) -> None:
    spec = NetworkSpec((4,), (8,), 2)
    weights = weights_of(spec)
    weights["network.2.bias"][1] = value
    with pytest.raises(GenomeValueError, match=r"network\.2\.bias holds NaN or infinity"):
        spec.check(weights, "x")


def test_shapes_are_read_only_and_specs_travel_between_processes() -> None:
    spec = NetworkSpec((4,), (3,), 2, norm="layer")
    with pytest.raises(AttributeError, match="mappingproxy"):
        spec.shapes.popitem()  # type: ignore[attr-defined]  # this is the point
    restored = pickle.loads(pickle.dumps(spec))
    assert restored == spec
    assert restored.shapes == spec.shapes
    assert copy.deepcopy(spec) == spec
