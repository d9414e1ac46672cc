from __future__ import annotations

import numpy as np
import pytest
import torch

from populations.network import NetworkSpec, Weights
from strategies.gradients import fisher_diagonal, output_gradients

SPECS = [
    NetworkSpec((3,), (), 2),
    NetworkSpec((3,), (5,), 3),
    NetworkSpec((2, 2), (6, 4), 4, norm="layer", dropout_slots=True),
    NetworkSpec((3,), (5, 7), 2),
    NetworkSpec((3,), (4,), 2, norm="layer"),
    NetworkSpec((3,), (5, 4), 1, norm="layer"),
]


def random_weights(spec: NetworkSpec, seed: int = 0) -> Weights:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(s, dtype=np.float32) for name, s in spec.shapes.items()}


def random_states(spec: NetworkSpec, n_states: int = 20) -> np.ndarray:
    rng = np.random.default_rng(100)
    return rng.standard_normal((n_states, spec.n_inputs)).astype(np.float32)


def torch_q(spec: NetworkSpec, tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The second implementation: torch's own functions, in float64."""
    for block in spec.blocks:
        x = torch.nn.functional.linear(x, tensors[block.weight], tensors[block.bias])
        if block.norm is not None:
            gain, shift = tensors[f"{block.norm}.weight"], tensors[f"{block.norm}.bias"]
            x = torch.nn.functional.layer_norm(x, (block.n_out,), gain, shift)
        if block is not spec.blocks[-1]:
            x = torch.relu(x)
    return x


def as_torch(weights: Weights) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor(tensor, dtype=torch.float64, requires_grad=True)
        for name, tensor in weights.items()
    }


def grad(value: torch.Tensor, tensors: dict[str, torch.Tensor]) -> list[np.ndarray]:
    found = torch.autograd.grad(
        value, list(tensors.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return [each.numpy() for each in found]


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_output_gradients_are_those_of_autograd(spec: NetworkSpec) -> None:
    weights, states = random_weights(spec), random_states(spec)
    tensors = as_torch(weights)
    mean = torch_q(spec, tensors, torch.tensor(states, dtype=torch.float64)).mean(dim=0)
    gradients = output_gradients(spec, weights, states)
    assert len(gradients) == spec.n_actions
    for action, gradient in enumerate(gradients):
        assert list(gradient) == list(spec.shapes)
        for (name, tensor), expected in zip(
            gradient.items(), grad(mean[action], tensors), strict=True
        ):
            assert tensor.dtype == np.float32
            np.testing.assert_allclose(tensor, expected, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_fisher_is_the_mean_of_squared_score_functions_of_autograd(
    spec: NetworkSpec, temperature: float
) -> None:
    weights, states = random_weights(spec, 1), random_states(spec)
    tensors = as_torch(weights)
    values = torch_q(spec, tensors, torch.tensor(states, dtype=torch.float64))
    unit = 1.0
    if spec.n_actions > 1:
        best = values.detach().topk(2, dim=1).values
        unit = float(np.median((best[:, 0] - best[:, 1]).numpy()))
    logits = torch.log_softmax(values / (unit * temperature), dim=1)
    expected = {name: np.zeros(shape) for name, shape in spec.shapes.items()}
    for state in range(len(states)):
        for action in range(spec.n_actions):
            probability = float(logits[state, action].detach().exp())
            scores = grad(logits[state, action], tensors)
            for name, score in zip(spec.shapes, scores, strict=True):
                expected[name] += probability * score**2 / len(states)
    fisher = fisher_diagonal(spec, weights, states, temperature)
    assert list(fisher) == list(spec.shapes)
    for name, tensor in fisher.items():
        assert tensor.dtype == np.float32
        assert (tensor >= 0).all()
        np.testing.assert_allclose(tensor, expected[name], rtol=2e-4, atol=1e-6, err_msg=name)


def test_fisher_does_not_depend_on_the_scale_and_shift_of_q_values() -> None:
    # The unit takes the scale out of the policy; the weights that make the scale keep it.
    spec = SPECS[3]
    weights, states = random_weights(spec), random_states(spec)
    output = spec.blocks[-1]
    scaled = dict(weights)
    scaled[output.weight] = 8 * weights[output.weight]
    scaled[output.bias] = 8 * weights[output.bias] + np.float32(3)
    before, after = (fisher_diagonal(spec, each, states) for each in (weights, scaled))
    for name in spec.shapes:
        factor = 64 if name in output.tensors else 1
        np.testing.assert_allclose(factor * after[name], before[name], rtol=1e-4, atol=1e-6)


def test_the_unit_falls_back_to_the_mean_gap_and_to_one() -> None:
    # Q = (x, 0): pi = softmax of x / unit; on x = 0 both actions have probability one half.
    spec = NetworkSpec((1,), (), 2)
    weights = {
        "network.0.weight": np.array([[1], [0]], np.float32),
        "network.0.bias": np.zeros(2, np.float32),
    }
    mostly_zero = np.array([[0], [0], [4]], np.float32)  # median gap 0, mean gap 4/3
    p = 1 / (1 + np.exp(-3.0))
    # d log pi(a) / d b_0 is 1 - p for action 0 and -p for action 1, in units of 4/3.
    expected = np.mean([0.25, 0.25, p * (1 - p)]) / (4 / 3) ** 2
    fisher = fisher_diagonal(spec, weights, mostly_zero)
    np.testing.assert_allclose(fisher["network.0.bias"], expected, rtol=1e-5)
    no_preference = fisher_diagonal(spec, weights, np.zeros((3, 1), np.float32))
    np.testing.assert_allclose(no_preference["network.0.bias"], 0.25, rtol=1e-6)


def test_gradients_refuse_no_states_and_wrong_shapes() -> None:
    spec = SPECS[1]
    weights = random_weights(spec)
    for function in (output_gradients, fisher_diagonal):
        with pytest.raises(ValueError, match="at least one"):
            function(spec, weights, np.empty((0, 3), np.float32))
        with pytest.raises(ValueError, match=r"shape \(n_states, 3\)"):
            function(spec, weights, np.zeros((4, 2), np.float32))


def test_fisher_refuses_a_temperature_that_is_not_above_zero() -> None:
    spec = SPECS[1]
    with pytest.raises(ValueError, match="temperature must be above 0, not 0"):
        fisher_diagonal(spec, random_weights(spec), random_states(spec), 0.0)
