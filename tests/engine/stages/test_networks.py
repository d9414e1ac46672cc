from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.stages.networks import Network, initial_weights, student_spec, teacher_spec
from populations.errors import GenomeShapeError
from populations.network import NetworkSpec

torch.set_num_threads(1)


@pytest.mark.parametrize(("sizes", "seed"), [((8, 4, 64), 0), ((8, 4, 64), 1), ((4, 2, 20), 42)])
def test_initial_weights_are_those_of_agentfarms_modules(agentfarm_network, sizes, seed) -> None:
    n_inputs, n_actions, hidden = sizes
    expected = agentfarm_network(n_inputs, n_actions, hidden, seed).state_dict()
    weights = initial_weights(teacher_spec(n_inputs, n_actions, hidden), seed)
    assert list(weights) == list(expected)
    for name, tensor in expected.items():
        assert weights[name].dtype == np.float32
        assert np.array_equal(weights[name], tensor.numpy())


def test_q_values_are_those_of_the_torch_module(agentfarm_network) -> None:
    module = agentfarm_network(8, 4, 64, seed=3)
    network = Network(teacher_spec(8, 4, 64), initial_weights(teacher_spec(8, 4, 64), 3))
    states = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(states)).numpy()
    np.testing.assert_allclose(network.q_values(states), expected, rtol=1e-5, atol=1e-5)


def test_drawing_weights_leaves_torchs_global_stream_alone() -> None:
    before = torch.random.get_rng_state()
    initial_weights(teacher_spec(3, 2, 16), 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_initial_weights_of_other_architectures_have_their_shapes() -> None:
    spec = NetworkSpec((3,), (5, 7, 9), 2)
    weights = initial_weights(spec, 0)
    spec.check(weights, "weights")
    for block in spec.blocks:  # Glorot & Bengio 2010, equation 16
        assert np.abs(weights[block.weight]).max() <= np.sqrt(6 / (block.n_in + block.n_out))
        assert not weights[block.bias].any()


# Counts from the closed form: h*in + h + 2h + h*h + h + 2h + out*h + out.
@pytest.mark.parametrize(
    ("sizes", "teacher", "student"),
    [((8, 4, 64), 5252, 1604), ((4, 2, 64), 4866, 1410), ((8, 4, 20), 764, 548)],
)
def test_a_student_has_half_the_width_but_at_least_16(sizes, teacher, student) -> None:
    spec = teacher_spec(*sizes)
    small = student_spec(spec)
    assert small.hidden == (max(16, sizes[2] // 2),) * 2
    assert (small.norm, small.dropout_slots) == ("layer", True)
    assert Network(spec, initial_weights(spec, 0)).n_parameters == teacher
    assert Network(small, initial_weights(small, 0)).n_parameters == student


def test_a_network_without_units_is_refused() -> None:
    with pytest.raises(GenomeShapeError, match="at least 1"):
        teacher_spec(8, 4, 0)
