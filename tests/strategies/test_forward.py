from __future__ import annotations

import numpy as np
import pytest

from populations.network import NetworkSpec
from strategies.forward import hidden_activations, pre_activations, q_values
from strategies.testing import SPECS, random_family


def test_a_small_network_computed_by_hand() -> None:
    spec = NetworkSpec((2,), (2,), 1)
    weights = {
        "network.0.weight": np.array([[1, 2], [-1, 0]], np.float32),
        "network.0.bias": np.array([0.5, 1], np.float32),
        "network.2.weight": np.array([[2, 3]], np.float32),
        "network.2.bias": np.array([-1], np.float32),
    }
    states = np.array([[1, 1], [3, -4]], np.float32)
    assert pre_activations(spec, weights, states)[0].tolist() == [[3.5, 0], [-4.5, -2]]
    assert hidden_activations(spec, weights, states)[0].tolist() == [[3.5, 0], [0, 0]]
    assert q_values(spec, weights, states).tolist() == [[6.0], [-1.0]]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_q_values_equal_those_of_torch(spec: NetworkSpec) -> None:
    torch = pytest.importorskip("torch")
    modules: list[object] = []
    for block in spec.blocks:
        modules.append(torch.nn.Linear(block.n_in, block.n_out))
        if block is not spec.blocks[-1]:
            modules += [torch.nn.LayerNorm(block.n_out)] if block.norm else []
            modules.append(torch.nn.ReLU())
            modules += [torch.nn.Dropout()] if spec.dropout_slots else []
    network = torch.nn.Sequential(*modules).eval()
    (weights,) = random_family(spec, 1, seed=3)
    network.load_state_dict(
        {name[len("network.") :]: torch.tensor(tensor) for name, tensor in weights.items()}
    )
    states = np.random.default_rng(4).standard_normal((20, spec.n_inputs), dtype=np.float32)
    expected = network(torch.tensor(states)).detach().numpy()
    found = q_values(spec, weights, states)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_forward_pass_leaves_its_inputs_alone() -> None:
    spec = SPECS[2]
    (weights,) = random_family(spec, 1, seed=0)  # read-only
    states = np.ones((3, spec.n_inputs), np.float32)
    states.setflags(write=False)
    assert q_values(spec, weights, states).shape == (3, spec.n_actions)


@pytest.mark.parametrize("shape", [(4,), (5, 3), (5, 2, 2)])
def test_states_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    spec = NetworkSpec((4,), (3,), 2)
    (weights,) = random_family(spec, 1, seed=0)
    with pytest.raises(ValueError, match=r"states must be of shape \(n_states, 4\)"):
        q_values(spec, weights, np.zeros(shape, np.float32))
