"""Children of parents in every form; the expected weights are averages of torch's own tensors."""

from __future__ import annotations

import warnings
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from engine.errors import StageError
from engine.learning.checkpoints import save_int8, save_network
from engine.learning.qnetwork import sequential
from engine.stages.networks import Network, teacher_spec
from engine.stages.recombination.crossover import initialize_child_from_crossover
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec
from populations.storage import save_genome, save_weights

torch.set_num_threads(1)

SPEC = teacher_spec(8, 4, 16)
STATES = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32))


@pytest.fixture
def father(agentfarm_network):
    return agentfarm_network(8, 4, 16, seed=1)


@pytest.fixture
def mother(agentfarm_network):
    return agentfarm_network(8, 4, 16, seed=2)


def arrays(module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def genome_of(module) -> Genome:
    return Genome.from_weights(SPEC, arrays(module), Lineage("student", 0, 0))


def float_forms(module, folder) -> dict[str, object]:
    """Return one float network in every form that a parent may have."""
    tensors = module.state_dict()
    torch.save(tensors, folder / "float.pt")
    torch.save({"q_network_state_dict": tensors, "step": 3}, folder / "checkpoint.pt")
    save_network(folder / "ours.pt", SPEC, arrays(module))
    safetensors.torch.save_file(tensors, folder / "plain.safetensors")
    save_weights(folder / "weights.safetensors", SPEC, arrays(module), {})
    return {
        "module": module,
        "bare sequential": module.network,
        "our module": sequential(SPEC, arrays(module)),
        "state dict": tensors,
        "arrays": arrays(module),
        "double arrays": {name: array.astype(float) for name, array in arrays(module).items()},
        "no prefix": {name.removeprefix("network."): t for name, t in tensors.items()},
        "long prefix": {f"_orig_mod.policy.q.{name}": t for name, t in tensors.items()},
        "network": Network(SPEC, arrays(module)),
        "path": folder / "float.pt",
        "text": str(folder / "float.pt"),
        "checkpoint": folder / "checkpoint.pt",
        "our file": folder / "ours.pt",
        "safetensors": folder / "plain.safetensors",
        "our safetensors": folder / "weights.safetensors",
    }


def int8_forms(module, folder) -> dict[str, object]:
    """Return one int8 network in every form that a parent may have."""
    genome = genome_of(module)
    save_int8(folder / "int8.pt", genome)
    save_genome(folder / "genome.safetensors", genome)
    return {
        "genome": genome,
        "codes and scales": genome.tensors(),
        "int8 file": folder / "int8.pt",
        "genome file": folder / "genome.safetensors",
    }


def average(first: dict, second: dict, alpha: float) -> nn.Module:
    """Return the AgentFarm network between two, as torch would compute it."""
    module = nn.Sequential(*_layers(), nn.Linear(16, 4)).eval()
    pairs = zip(first.values(), second.values(), strict=True)
    mixed = [alpha * torch.as_tensor(a) + (1 - alpha) * torch.as_tensor(b) for a, b in pairs]
    module.load_state_dict(dict(zip(module.state_dict(), mixed, strict=True)))
    return module


def _layers() -> list[nn.Module]:
    first = [nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.1)]
    return [*first, nn.Linear(16, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.1)]


def assert_same_values(child: nn.Module, expected: nn.Module) -> None:
    with torch.no_grad():
        torch.testing.assert_close(child(STATES), expected(STATES), rtol=1e-5, atol=1e-5)


def test_float_parents_of_any_two_forms_have_one_child(father, mother, tmp_path) -> None:
    for name in ("father", "mother"):
        (tmp_path / name).mkdir()
    fathers = float_forms(father, tmp_path / "father")
    mothers = float_forms(mother, tmp_path / "mother")
    expected = average(father.state_dict(), mother.state_dict(), 0.25)
    assert len(fathers) == len(mothers) > 0
    for (kind, first), second in zip(fathers.items(), reversed(mothers.values()), strict=True):
        child = initialize_child_from_crossover(first, second, "weighted", alpha=0.25)
        assert list(child.state_dict()) == list(SPEC.shapes), kind
        assert all(tensor.dtype == torch.float32 for tensor in child.state_dict().values())
        assert not any(module.training for module in child.modules())
        assert_same_values(child, expected)


def test_an_int8_parent_of_any_form_is_dequantized_first(father, mother, tmp_path) -> None:
    genome = genome_of(father)
    dequantized = {
        name: genome.codes[name].astype(np.float32) * genome.scales[name][:, None]
        if name in genome.codes
        else array
        for name, array in arrays(father).items()
    }
    expected = average(dequantized, mother.state_dict(), 0.5)
    forms = int8_forms(father, tmp_path)
    assert forms
    for form in forms.values():
        assert_same_values(initialize_child_from_crossover(form, mother, "weighted"), expected)
        assert_same_values(initialize_child_from_crossover(mother, form, "weighted"), expected)


def test_a_child_can_be_loaded_by_agentfarm_and_trained(father, mother, agentfarm_network) -> None:
    child = initialize_child_from_crossover(father, mother, "random", seed=3, dropout=0.05)
    again = agentfarm_network(8, 4, 16, seed=9)
    again.load_state_dict(child.state_dict())
    assert_same_values(child, again)
    assert [m.p for m in child.modules() if isinstance(m, nn.Dropout)] == [0.05, 0.05]
    child(STATES).sum().backward()
    assert all(parameter.grad is not None for parameter in child.parameters())


def test_neither_parent_nor_the_global_random_stream_changes(father, mother) -> None:
    father.train()
    before = {name: tensor.clone() for name, tensor in father.state_dict().items()}
    stream = torch.random.get_rng_state()
    child = initialize_child_from_crossover(father, mother, "random", alpha=1.0)
    with torch.no_grad():
        for parameter in child.parameters():
            parameter.fill_(7)
    assert all(torch.equal(before[name], tensor) for name, tensor in father.state_dict().items())
    assert father.training
    assert torch.equal(torch.random.get_rng_state(), stream)


def test_a_seed_may_come_as_seed_or_generator(father, mother) -> None:
    children = [
        initialize_child_from_crossover(father, mother, **source).state_dict()
        for source in ({"seed": 5}, {"rng": 5}, {"rng": np.random.default_rng(5)})
    ]
    for child in children[1:]:
        assert all(torch.equal(child[name], tensor) for name, tensor in children[0].items())
    with pytest.raises(StageError, match="either seed or rng"):
        initialize_child_from_crossover(father, mother, seed=5, rng=5)


@pytest.mark.parametrize("hidden", [(), (5,), (7, 6, 5)])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_any_depth_and_width_will_do(hidden, norm) -> None:
    spec = NetworkSpec((3,), hidden, 2, norm=norm, dropout_slots=True)
    first, second = sequential(spec), sequential(spec)
    child = initialize_child_from_crossover(first, second, "weighted", alpha=1.0)
    x = torch.ones(4, 3)
    with torch.no_grad():
        torch.testing.assert_close(child(x), first(x))


def test_a_parent_with_target_network_gives_the_trained_one(father, mother) -> None:
    tensors = father.state_dict()
    copies = {f"target_{name}": torch.zeros_like(tensor) for name, tensor in tensors.items()}
    child = initialize_child_from_crossover({**tensors, **copies}, mother, "random", alpha=1.0)
    assert_same_values(child, father)


def test_parents_that_differ_are_named_with_their_shapes(
    father, agentfarm_network, tmp_path
) -> None:
    path = tmp_path / "wide.pt"
    torch.save(agentfarm_network(8, 4, 32, seed=0).state_dict(), path)
    with pytest.raises(
        StageError,
        match=r"network.0.weight is \(16, 8\) in parent A \(BaseQNetwork\) "
        rf"but \(32, 8\) in parent B \({path}\); ",
    ):
        initialize_child_from_crossover(father, path)


def test_weights_that_are_no_numbers_are_refused_by_parent_and_tensor(
    father, mother, tmp_path
) -> None:
    with torch.no_grad():
        mother.network[4].weight[2, 3] = float("nan")
    path = tmp_path / "broken.pt"
    torch.save(mother.state_dict(), path)
    for parent, called in (
        (mother, "BaseQNetwork"),
        (path, str(path)),
        (mother.state_dict(), "a state dict"),
    ):
        with pytest.raises(
            StageError, match=rf"^parent B \({called}\): network.4.weight holds NaN"
        ):
            initialize_child_from_crossover(father, parent)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_a_dropout_out_of_range_is_refused(father, mother, dropout) -> None:
    with pytest.raises(StageError, match=r"dropout must be in \[0, 1\)"):
        initialize_child_from_crossover(father, mother, dropout=dropout)


def test_a_live_module_with_quantized_layers_is_refused(father, mother) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates what AgentFarm uses
        quantized = torch.ao.quantization.quantize_dynamic(father, {nn.Linear}, torch.qint8)
    for parent in (quantized, quantized.network):
        with pytest.raises(StageError, match=r"parent A .* has quantized layers \(.*0 is torch.ao"):
            initialize_child_from_crossover(parent, mother)


def test_a_live_module_that_computes_something_else_is_refused(mother) -> None:
    def with_layer(layer: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 16), layer, nn.ReLU(), nn.Linear(16, 4))

    for layer, message in (
        (nn.Tanh(), "1 is .*Tanh, but only networks of Linear"),
        (nn.BatchNorm1d(16), "1 is .*BatchNorm1d, but only"),
        (nn.LayerNorm(16, eps=1e-3), "LayerNorm 1 must have a weight and a bias, and an eps of"),
        (nn.LayerNorm(16, elementwise_affine=False), "LayerNorm 1 must have"),
        (nn.Conv1d(16, 16, 1), "1 is .*Conv1d"),
    ):
        with pytest.raises(StageError, match=rf"^parent A \(Sequential\): .*{message}"):
            initialize_child_from_crossover(with_layer(layer), mother)


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        (7, "parent A must be a module, .* not int"),
        (None, "not NoneType"),
        ({}, "one network"),
        ({"network.0.weight": [1.0]}, "'network.0.weight' is list"),
        ({0: torch.ones(1)}, "0 is Tensor"),
        (OrderedDict(a=torch.ones(1)), "a is not the weight or bias of a numbered layer"),
        ({"0.weight": torch.ones(2, 3)}, "expected 0.bias, but it is missing"),
        ({"0.weight": torch.ones(2, 3, dtype=torch.int32), "0.bias": torch.ones(2)}, "int32"),
        ("missing.pt", r"missing.pt: expected the file of a trained Q-network"),
        ("notes.txt", r"notes.txt"),
    ],
)
def test_what_is_no_network_is_refused(mother, parent, message) -> None:
    with pytest.raises(StageError, match=message):
        initialize_child_from_crossover(parent, mother)


def test_a_file_that_runs_code_is_loaded_only_on_request(father, mother, tmp_path) -> None:
    path = tmp_path / "module.pt"
    torch.save(father.network, path)
    with pytest.raises(StageError, match="--allow-unsafe-unpickle"):
        initialize_child_from_crossover(path, mother)
    child = initialize_child_from_crossover(
        path, mother, "random", alpha=1.0, allow_unsafe_unpickle=True
    )
    assert_same_values(child, father)
