"""Whole modules that AgentFarm pickled, made here with classes of its names.

AgentFarm is not installed: while a file is made, modules with its names stand in ``sys.modules``,
as pickle asks for; before the file is read they are taken out again, and ``torch.ao``, which made
the quantized ones, is kept from being used.
"""

import sys
import types
import warnings
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from engine.errors import TeacherError
from engine.learning import agentfarm
from engine.learning.agentfarm import read_pickled_module
from engine.learning.checkpoints import load_network, read_checkpoint
from populations.network import NetworkSpec
from strategies.forward import q_values

torch.set_num_threads(1)

BASE_DQN = "farm.core.decision.base_dqn"
PTQ = "farm.core.decision.training.quantize_ptq"
QAT = "farm.core.decision.training.quantize_qat"
SPEC = NetworkSpec((5,), (16, 16), 3, norm="layer", dropout_slots=True)


class BaseQNetwork(nn.Module):
    def __init__(self, n_inputs, n_actions, width):
        super().__init__()
        self.network = nn.Sequential(
            *(nn.Linear(n_inputs, width), nn.LayerNorm(width), nn.ReLU(), nn.Dropout(0.1)),
            *(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(), nn.Dropout(0.1)),
            nn.Linear(width, n_actions),
        )
        for tensor in self.parameters():
            nn.init.normal_(tensor)

    def forward(self, x):
        return self.network(x)


class StudentQNetwork(BaseQNetwork):
    pass


class WeightOnlyFakeQuantLinear(nn.Linear):
    pass


class _QuantWrapper(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.quant = torch.ao.quantization.QuantStub()
        self.dequant = torch.ao.quantization.DeQuantStub()
        self.model = model

    def forward(self, x):
        return self.dequant(self.model(self.quant(x)))


CLASSES = {
    BaseQNetwork: BASE_DQN,
    StudentQNetwork: BASE_DQN,
    WeightOnlyFakeQuantLinear: QAT,
    _QuantWrapper: PTQ,
}


@pytest.fixture
def save(monkeypatch, tmp_path):
    """Return what pickles a module under AgentFarm's names and then forgets these again."""

    def save_module(module):
        with monkeypatch.context() as patched:
            for cls, name in CLASSES.items():
                parts = name.split(".")
                for end in range(1, len(parts) + 1):
                    package = ".".join(parts[:end])
                    if package not in sys.modules:
                        patched.setitem(sys.modules, package, types.ModuleType(package))
                patched.setattr(sys.modules[name], cls.__name__, cls, raising=False)
                patched.setattr(cls, "__module__", name)
            torch.save(module, tmp_path / "student_int8.pt")
        assert "farm" not in sys.modules
        return tmp_path / "student_int8.pt"

    return save_module


@pytest.fixture(autouse=True)
def _old_quantization():
    """Let torch.ao warn that it will go, while the tests make files with it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated")
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor, torch.quantize_per_channel")
        warnings.filterwarnings("ignore", "Please use quant_min and quant_max")
        yield


def network(cls=BaseQNetwork):
    torch.manual_seed(0)
    return cls(5, 3, 16).eval()


def dynamic(module, linear=nn.Linear):
    return torch.ao.quantization.quantize_dynamic(module, {linear}, dtype=torch.qint8)


def static(module):
    wrapped = _QuantWrapper(module).eval()
    wrapped.qconfig = torch.ao.quantization.get_default_qconfig("x86")
    prepared = torch.ao.quantization.prepare(wrapped)
    prepared(torch.randn(64, 5))
    return torch.ao.quantization.convert(prepared)


def read(path, monkeypatch):
    """Read a file while nothing can be imported, deprecated or built in qint8."""
    with monkeypatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in [name for name in sys.modules if name.startswith("torch.ao.nn")]:
            patched.setitem(sys.modules, name, None)
        return read_checkpoint(path, allow_unsafe=True)


@pytest.mark.parametrize("cls", [BaseQNetwork, StudentQNetwork])
def test_dynamic_quantization_is_read_as_its_dequantized_weights(save, monkeypatch, cls):
    module = dynamic(network(cls))
    checkpoint = read(save(module), monkeypatch)
    assert (checkpoint.spec, checkpoint.genome, checkpoint.unsafe) == (SPEC, None, True)
    for index in (0, 4, 8):
        layer = module.network[index]
        weight = checkpoint.weights[f"network.{index}.weight"]
        assert weight.dtype == np.float32
        np.testing.assert_allclose(weight, layer.weight().dequantize().numpy(), rtol=1e-6)
        bias = checkpoint.weights[f"network.{index}.bias"]
        np.testing.assert_array_equal(bias, layer.bias().detach().numpy())
    for index in (1, 5):
        for kind in ("weight", "bias"):
            tensor = getattr(module.network[index], kind).detach().numpy()
            np.testing.assert_array_equal(checkpoint.weights[f"network.{index}.{kind}"], tensor)


def test_dynamic_quantization_gives_nearly_the_q_values_of_the_pickled_module(save, monkeypatch):
    module = dynamic(network())
    checkpoint = read(save(module), monkeypatch)
    states = torch.randn(1, 5)
    found = q_values(checkpoint.spec, checkpoint.weights, states.numpy())
    expected = module(states).detach().numpy()  # it rounds activations too
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_static_quantization_is_read_row_by_row(save, monkeypatch):
    module = static(network())
    checkpoint = read(save(module), monkeypatch)
    assert checkpoint.spec == SPEC
    for index in (0, 4, 8):
        layer = module.model.network[index]
        assert layer.weight().qscheme() == torch.per_channel_affine
        weight = checkpoint.weights[f"network.{index}.weight"]
        np.testing.assert_allclose(weight, layer.weight().dequantize().numpy(), rtol=1e-6)
    norm = module.model.network[5].weight.detach().numpy()
    np.testing.assert_array_equal(checkpoint.weights["network.5.weight"], norm)


def test_the_float_weights_of_its_quantization_aware_export_are_read(save, monkeypatch):
    module = network(StudentQNetwork)
    for index in (0, 4, 8):
        linear = module.network[index]
        module.network[index] = WeightOnlyFakeQuantLinear(linear.in_features, linear.out_features)
    # quantize_dynamic looks for the very type nn.Linear and finds none, as in AgentFarm
    module = dynamic(module, WeightOnlyFakeQuantLinear)
    checkpoint = read(save(module), monkeypatch)
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(checkpoint.weights[name], tensor.numpy())


def test_float_modules_are_read(save, monkeypatch):
    module = network()
    checkpoint = read(save(module), monkeypatch)
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(checkpoint.weights[name], tensor.numpy())


def test_without_the_flag_it_is_named_and_nothing_is_read(save):
    path = save(dynamic(network()))
    with pytest.raises(
        TeacherError, match=r"run code from it \(farm\..*BaseQNetwork\).*--allow-unsafe-unpickle"
    ):
        load_network(path)


class WritesAFile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_other_code_in_such_a_file_never_runs(save, tmp_path):
    module = network()
    module.extra = WritesAFile(tmp_path / "written")
    path = save(module)
    with pytest.raises(TeacherError, match=r"student_int8\.pt: .* asks for (io|_io)\.open"):
        load_network(path, allow_unsafe=True)
    assert not (tmp_path / "written").exists()


def test_other_layers_are_refused_by_name(save):
    module = network()
    module.network[1] = nn.BatchNorm1d(16)
    path = save(module)
    with pytest.raises(TeacherError, match=r"Dropout; but the file asks for .*BatchNorm1d"):
        load_network(path, allow_unsafe=True)


def rewritten(path, change):
    """Write an archive again with ``change`` applied to the name and content of each entry."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(*change(name, content))


def with_pickle(path, pickled):
    """Put another pickle into an archive."""
    rewritten(path, lambda name, old: (name, pickled if name.endswith("data.pkl") else old))


@pytest.mark.parametrize("module", ["torch._utils", "collections", "farm.core.decision.base_dqn"])
def test_a_pickle_cannot_change_what_stands_in_for_its_names(save, module):
    name = {"torch._utils": "_rebuild_parameter", "collections": "OrderedDict"}.get(module)
    path = save(dynamic(network()))
    state = b"(N}X\x07\x00\x00\x00__doc__X\x04\x00\x00\x00evilst"  # (None, {name: value})
    with_pickle(path, f"\x80\x02c{module}\n{name or 'BaseQNetwork'}\n".encode() + state + b"b.")
    with pytest.raises(TeacherError, match="the file is truncated or damaged"):
        read_pickled_module(path)
    in_use = [*agentfarm.FUNCTIONS.values(), agentfarm._StandIn, agentfarm._parameter]
    assert all(getattr(function, "__doc__", None) != "evil" for function in in_use)


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p99999999999\n"])
def test_a_pickle_cannot_fill_the_memory_with_room_for_its_objects(save, put):
    path = save(dynamic(network()))
    with_pickle(path, b"\x80\x02}" + put + b".")
    with pytest.raises(TeacherError, match=r"damaged \(an object has the number \d+\)"):
        read_pickled_module(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, content: (name.replace("data/0", "data/x"), content), "no item named"),
        (
            lambda name, content: (
                name,
                content[: len(content) // 2] if "data/" in name else content,
            ),
            "too short",
        ),
        (
            lambda name, content: (
                name,
                content[:-400] if name.endswith("data.pkl") else content,
            ),
            "damaged",
        ),
        (lambda name, content: (name, content.replace(b"_modules", b"_modulos")), "_modules"),
        (lambda name, content: (name, content.replace(b"_parameters", b"_parametros")), "_param"),
    ],
)
def test_damaged_files_are_refused(save, change, message):
    path = save(dynamic(network()))
    rewritten(path, change)
    with pytest.raises(TeacherError, match=rf"student_int8\.pt: .*damaged.*{message}|{message}"):
        read_pickled_module(path)
