"""Int8 networks against torch modules and against arithmetic that the tests do themselves."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.errors import StageError
from engine.learning.checkpoints import save_int8, save_network
from engine.stages.distillation.teachers import Sizes
from engine.stages.networks import Network, initial_weights, student_spec, teacher_spec
from engine.stages.quantization.int8_file import check_int8_file
from engine.stages.quantization.weights import (
    check_is_float,
    check_student_sizes,
    dequantized,
    dropout_of,
    fidelity,
    quantized,
)
from engine.stages.roles import Role
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec

torch.set_num_threads(1)


def network(seed: int, spec: NetworkSpec | None = None) -> Network:
    """Return a network in which no tensor is zero."""
    spec = spec or student_spec(teacher_spec(8, 4, 64))
    rng = np.random.default_rng(seed)
    return Network(spec, {n: rng.normal(size=s).astype(np.float32) for n, s in spec.shapes.items()})


def states(n: int, seed: int = 0, n_inputs: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, n_inputs)).astype(np.float32)


def torch_values(net: Network, rows: np.ndarray) -> np.ndarray:
    """Return the values of modules of torch with int8 weights: rounded by the formula."""
    layers: list[nn.Module] = []
    widths = [net.spec.n_inputs, *net.spec.hidden, net.spec.n_actions]
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        layers.append(nn.Linear(n_in, n_out))
        if i < len(widths) - 2:
            layers += [nn.LayerNorm(n_out), nn.ReLU()]
    tensors = [torch.from_numpy(net.weights[name].copy()) for name in net.spec.shapes]
    parameters = [p for layer in layers for p in layer.parameters()]
    with torch.no_grad():
        for parameter, tensor in zip(parameters, tensors, strict=True):
            if tensor.ndim == 2:
                step = tensor.abs().amax(dim=1, keepdim=True) / 127
                tensor = torch.round(tensor / step).clamp(-127, 127) * step
            parameter.copy_(tensor)
        values: np.ndarray = nn.Sequential(*layers)(torch.from_numpy(rows)).numpy()
    return values


def test_int8_values_are_those_of_rounded_weights_and_float_activations() -> None:
    net, rows = network(1), states(200)
    np.testing.assert_allclose(
        dequantized(quantized(net)).q_values(rows), torch_values(net, rows), atol=2e-4
    )


def test_hidden_layers_are_rounded_as_they_are_and_the_output_layer_is_refitted() -> None:
    net, calibration = network(1), states(640)
    genome = quantized(net, calibration)
    plain = Genome.from_weights(net.spec, net.weights, Lineage("student", 0, 0))
    output = net.spec.blocks[-1].linear
    names = [name for name in plain.tensors() if not name.startswith(output)]
    assert len(names) == 10
    for name in names:
        np.testing.assert_array_equal(genome.tensors()[name], plain.tensors()[name])
    fresh = states(2000, 1)
    wanted = net.q_values(fresh)
    errors = [np.square(dequantized(g).q_values(fresh) - wanted).mean() for g in (genome, plain)]
    assert errors[0] < 0.7 * errors[1]
    assert genome.lineage.basis == genome.id


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 50))
def test_refitted_networks_are_right_on_average(seed: int, n: int) -> None:
    net, rows = network(seed, NetworkSpec((3,), (6,), 2)), states(n, seed, 3)
    wanted = net.q_values(rows).astype(np.float64)
    error = dequantized(quantized(net, rows)).q_values(rows) - wanted
    np.testing.assert_allclose(error.mean(axis=0), 0, atol=1e-6 * np.abs(wanted).max())


def test_without_calibration_states_nothing_is_refitted() -> None:
    net = network(2)
    plain = Genome.from_weights(net.spec, net.weights, Lineage("student", 0, 0))
    assert quantized(net).id == quantized(net, states(0)).id == plain.id


def test_lineage_is_kept() -> None:
    net = network(2)
    lineage = Lineage("child", 3, 7, ("a", "b"), "weighted", "basis")
    assert quantized(net, states(10), lineage).lineage == lineage


@pytest.mark.parametrize("batch", [1, 2, 7, 64, 500])
def test_a_state_gets_the_same_action_alone_and_in_any_batch(batch: int) -> None:
    int8, rows = dequantized(quantized(network(3), states(64))), states(500, 1)
    whole = int8.q_values(rows).argmax(axis=1)
    parts = [int8.q_values(rows[i : i + batch]).argmax(axis=1) for i in range(0, 500, batch)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    # With dynamic quantization of activations, one such row changed the action of every fifth.
    rows[0] *= 100
    np.testing.assert_array_equal(int8.q_values(rows).argmax(axis=1)[1:], whole[1:])


def test_fidelity_has_the_names_of_agentfarm() -> None:
    q = states(30, n_inputs=4)
    found = fidelity(q, q + 1)
    assert found["action_agreement"] == 1
    assert found["mse_logits"] == found["mse"] == pytest.approx(1)
    assert found["kl_divergence_float_vs_quant"] == pytest.approx(0, abs=1e-9)
    assert (found["n_states"], found["max_q_error"]) == (30, pytest.approx(1))


def test_the_file_holds_int8_and_nothing_that_runs_code(tmp_path: Path) -> None:
    genome = quantized(network(1), states(20))
    save_int8(tmp_path / "a.pt", genome)
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    int8 = [name for name, tensor in loaded.items() if tensor.dtype == torch.int8]
    assert int8 == ["network.0.weight", "network.4.weight", "network.8.weight"]
    assert all(loaded[f"{name}.scale"].dtype == torch.float32 for name in int8)
    file = check_int8_file(tmp_path / "a.pt", genome)
    n_codes, n_rows, n_vectors = 8 * 32 + 32 * 32 + 32 * 4, 32 + 32 + 4, 32 * 6 + 4
    assert file.tensor_bytes == n_codes + 4 * (n_rows + n_vectors)
    assert file.linear_layers == 3
    assert file.file_bytes == (tmp_path / "a.pt").stat().st_size


def test_a_file_that_is_not_int8_is_found_out(tmp_path: Path) -> None:
    net = network(1)
    genome, path = quantized(net), tmp_path / "a.pt"
    save_network(path, net.spec, net.weights)
    with pytest.raises(StageError, match=r"a.pt: expected the tensors .*'network.0.weight.scale'"):
        check_int8_file(path, genome)
    tensors = {name: torch.from_numpy(t.copy()) for name, t in genome.tensors().items()}
    torch.save(tensors | {"network.4.weight": tensors["network.4.weight"].float()}, path)
    with pytest.raises(
        StageError, match=r"expected the int8 numbers of network.4.weight .*float32"
    ):
        check_int8_file(path, genome)
    save_int8(path, quantized(network(2)))
    with pytest.raises(StageError, match=r"expected the int8 numbers of network.0.weight"):
        check_int8_file(path, genome)


def test_what_cannot_be_quantized_is_refused() -> None:
    net = network(1)
    with pytest.raises(StageError, match=r"a.pt: expected a float32 network, but it is int8"):
        check_is_float(Role("student_A", Path("a.pt"), net, quantized(net)))
    net.weights["network.4.bias"][3] = np.nan
    with pytest.raises(StageError, match=r"a.pt: .* network.4.bias holds NaN or infinity"):
        check_is_float(Role("student_A", Path("a.pt"), net))


def test_sizes_are_those_of_the_teacher() -> None:
    spec = student_spec(teacher_spec(8, 4, 64))
    role = Role("student_A", Path("a.pt"), Network(spec, initial_weights(spec, 0)))
    check_student_sizes(role, Sizes(8, 4, 64))
    check_student_sizes(role, Sizes())
    for sizes, message in (
        (Sizes(n_inputs=4), "--input-dim is 4, but student_A"),
        (Sizes(n_actions=2), "--output-dim is 2"),
        (Sizes(hidden=128), r"--parent-hidden\) is 128, whose student has .*\(64, 64\)"),
    ):
        with pytest.raises(StageError, match=message):
            check_student_sizes(role, sizes)


def test_dropout_is_that_of_the_sidecar() -> None:
    net = network(1)
    assert dropout_of(Role("child", None, net)) == 0.05
    assert dropout_of(Role("child", None, net, sidecar={"architecture": {"dropout": 0.1}})) == 0.1
