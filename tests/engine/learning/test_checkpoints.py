"""Files of real torch modules, and every way in which a file can be wrong."""

import pickle
import struct
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.errors import TeacherError
from engine.learning.checkpoints import STATE_DICT_KEYS, load_network
from engine.learning.qnetwork import sequential
from populations.network import NetworkSpec
from populations.storage import save_weights

torch.set_num_threads(1)

SPEC = NetworkSpec((4,), (8, 6), 3, norm="layer", dropout_slots=True)


def agentfarm_network(n_inputs, n_actions, width):
    """The layer order of AgentFarm's BaseQNetwork, tensors under ``network``."""
    module = nn.Module()
    module.network = nn.Sequential(
        nn.Linear(n_inputs, width),
        nn.LayerNorm(width),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(width, width),
        nn.LayerNorm(width),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(width, n_actions),
    )
    return module


def state_dict(spec=SPEC, prefix="network."):
    """Random tensors of a plain module, its names starting with ``prefix``."""
    tensors = sequential(spec).network.state_dict()
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def save(path, tensors):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path)


@settings(max_examples=40)
@given(
    n_inputs=st.integers(1, 6),
    hidden=st.lists(st.integers(1, 8), max_size=3).map(tuple),
    n_actions=st.integers(1, 5),
    norm=st.sampled_from(["none", "layer"]),
    has_dropout=st.booleans(),
    prefix=st.sampled_from(["", "network.", "net.", "q_net.q_net.", "module.model."]),
    suffix=st.sampled_from([".pt", ".pth", ".safetensors"]),
)
def test_plain_modules_are_read_back_with_equal_outputs(
    tmp_path_factory, n_inputs, hidden, n_actions, norm, has_dropout, prefix, suffix
):
    modules, width = [], n_inputs
    for n_units in hidden:
        modules.append(nn.Linear(width, n_units))
        modules += [nn.LayerNorm(n_units)] if norm == "layer" else []
        modules.append(nn.ReLU())
        modules += [nn.Dropout(0.5)] if has_dropout else []
        width = n_units
    module = nn.Sequential(*modules, nn.Linear(width, n_actions)).eval()
    for tensor in module.parameters():
        nn.init.normal_(tensor)
    path = tmp_path_factory.mktemp("network") / f"file{suffix}"
    save(path, {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()})

    spec, weights = load_network(path)

    assert spec.observation_shape == (n_inputs,)
    assert spec.hidden == hidden
    assert spec.n_actions == n_actions
    assert list(weights) == list(spec.shapes)
    if hidden:
        assert (spec.norm, spec.dropout_slots) == (norm, has_dropout)
    x = torch.randn(5, n_inputs)
    torch.testing.assert_close(sequential(spec, weights).eval()(x), module(x))


def test_agentfarm_checkpoint_keeps_its_numbering(tmp_path):
    module = agentfarm_network(8, 4, 16)
    path = tmp_path / "parent.pt"
    torch.save(module.state_dict(), path)
    spec, weights = load_network(path)
    assert spec == NetworkSpec((8,), (16, 16), 4, norm="layer", dropout_slots=True)
    assert list(weights) == list(module.state_dict())


@pytest.mark.parametrize("key", STATE_DICT_KEYS)
def test_state_dict_inside_a_checkpoint_is_found(tmp_path, key):
    path = tmp_path / "checkpoint.pt"
    tensors = state_dict()
    torch.save({"epoch": 3, key: tensors, "optimizer": {"lr": 0.1}}, path)
    _, weights = load_network(path)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(weights[name], tensor.numpy())


def test_target_networks_are_left_out(tmp_path):
    path = tmp_path / "sb3.pth"
    torch.save(state_dict(prefix="q_net_target.q_net.") | state_dict(prefix="q_net.q_net."), path)
    spec, _ = load_network(path)
    assert spec == SPEC


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_become_float32(tmp_path, dtype, suffix):
    path = tmp_path / f"file{suffix}"
    tensors = {name: tensor.to(dtype) for name, tensor in state_dict().items()}
    save(path, tensors)
    _, weights = load_network(path)
    for name, tensor in tensors.items():
        assert weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name], tensor.float().numpy())


def test_files_before_torch_1_6_are_read(tmp_path):
    path = tmp_path / "old.pt"
    torch.save(state_dict(), path, _use_new_zipfile_serialization=False)
    assert load_network(path)[0] == SPEC


def test_our_own_weights_keep_their_spec(tmp_path):
    spec = NetworkSpec((2, 2), (8,), 3)
    path = tmp_path / "teacher.safetensors"
    weights = {name: np.ones(shape, np.float32) for name, shape in spec.shapes.items()}
    save_weights(path, spec, weights, {})
    assert load_network(path)[0] == spec


def test_a_whole_module_is_refused_unless_code_is_allowed(tmp_path):
    path = tmp_path / "module.pt"
    torch.save(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), path)
    with pytest.raises(
        TeacherError,
        match=r"would run code from it \(torch\.nn\.modules\.container\.Sequential\)\. Expected a "
        r"state dict saved with torch\.save\(model\.state_dict\(\), path\), or a \.safetensors "
        r"file; .* --allow-unsafe-unpickle",
    ):
        load_network(path)
    assert load_network(path, allow_unsafe=True)[0] == NetworkSpec((4,), (8,), 2)


def changed(**tensors):
    return state_dict() | {name.replace("__", "."): t for name, t in tensors.items()}


def without(*names):
    return {name: tensor for name, tensor in state_dict().items() if name not in names}


def with_nan():
    tensors = state_dict()
    tensors["network.4.weight"][2, 3] = torch.nan
    return tensors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_nan(), r"network\.4\.weight holds NaN or infinity"),
        (changed(network__0__bias=torch.full((8,), 1e300, dtype=torch.float64)), "float32"),
        (changed(network__0__weight=torch.zeros(32, 4, 8, 8)), r"shape \(32, 4, 8, 8\), but only"),
        (
            changed(network__4__weight=torch.zeros(6, 9)),
            r"network\.4\.weight must have shape \(6, 8\) to fit the layers .*, not \(6, 9\)",
        ),
        (changed(network__5__bias=torch.zeros(7)), r"network\.5\.bias must have shape \(6,\)"),
        (changed(network__0__weight=torch.zeros(0, 4)), "every size of a network must be"),
        (without("network.4.bias"), r"expected network\.4\.bias, but it is missing"),
        (without("network.1.weight", "network.1.bias"), r"numbered \[0, 4, 8\] and .* \[5\]"),
        (
            without("network.4.weight", "network.4.bias"),
            r"Linear layers are numbered \[0, 8\] and normalizations \[1, 5\]",
        ),
        (changed(fc__weight=torch.zeros(2, 2)), r"fc\.weight is not the weight or bias of a"),
        (changed(network__1__running_mean=torch.zeros(8)), r"network\.1\.running_mean is not"),
        (
            state_dict() | state_dict(prefix="value."),
            r"the layers of one network, not 2: network\., value\.",
        ),
        (changed(network__0__bias=torch.zeros(8, dtype=torch.int64)), "floating-point tensor"),
        ({"network.1.weight": torch.ones(3), "network.1.bias": torch.ones(3)}, "no weight is a"),
        ({"epoch": 3, "weights": {}}, r"the file has epoch, weights"),
        ({"state_dict": 3}, r"expected a state dict, not int"),
        ({}, r"the file has nothing"),
        ([1, 2], r"expected a state dict, not list\. Expected a state dict saved with"),
        (state_dict(prefix="target."), r"the layers of one network, not 0"),
    ],
)
def test_content_that_is_no_mlp_is_refused_by_file_and_tensor(tmp_path, content, message):
    path = tmp_path / "teacher.pt"
    torch.save(content, path)
    with pytest.raises(TeacherError, match=message) as caught:
        load_network(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_consecutive_linear_layers_are_refused(tmp_path):
    path = tmp_path / "teacher.pt"
    torch.save(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)).state_dict(), path)
    with pytest.raises(TeacherError, match=r"ReLU, .* Linear layers are numbered \[0, 1\]"):
        load_network(path)


def test_integers_in_safetensors_are_refused(tmp_path):
    path = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file({"network.0.weight": torch.zeros(2, 2, dtype=torch.int8)}, path)
    with pytest.raises(TeacherError, match=r"network\.0\.weight must be floating point, not int8"):
        load_network(path)


def test_a_missing_file_and_an_unknown_suffix_are_refused(tmp_path):
    with pytest.raises(TeacherError, match=r"lost\.pt: expected the file of .*, but there is none"):
        load_network(tmp_path / "lost.pt")
    with pytest.raises(TeacherError, match="there is none"):
        load_network(tmp_path)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    with pytest.raises(TeacherError, match=r"\.safetensors, \.pt or \.pth file, not \.onnx"):
        load_network(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(tmp_path, suffix, share):
    path = tmp_path / f"teacher{suffix}"
    save(path, state_dict())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(TeacherError, match=f"teacher{suffix}: .*(truncated|damaged)"):
        load_network(path)


@pytest.mark.parametrize("allow_unsafe", [False, True])
@pytest.mark.parametrize("content", [b"hello world", b"PK\x03\x04 hello", bytes(range(256))])
def test_files_that_torch_did_not_write_are_refused(tmp_path, content, allow_unsafe):
    path = tmp_path / "teacher.pt"
    path.write_bytes(content)
    with pytest.raises(TeacherError, match=r"teacher\.pt: .*damaged"):
        load_network(path, allow_unsafe)


def test_old_files_that_end_early_or_are_bare_pickles_are_refused(tmp_path):
    path = tmp_path / "teacher.pt"
    torch.save(state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(TeacherError, match=r"truncated or damaged \(unexpected EOF"):
        load_network(path)
    path.write_bytes(pickle.dumps({"a": 1}, protocol=2))
    with pytest.raises(TeacherError, match="truncated or damaged"):
        load_network(path)


OLD_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # opens files before torch 1.6


@pytest.mark.parametrize("allow_unsafe", [False, True])
@pytest.mark.parametrize(
    "rest",
    [
        pickle.dumps(1001, protocol=2) + pickle.dumps({}, protocol=2) + b"\x80\x02G\x00.",
        pickle.dumps(1001, protocol=2) + pickle.dumps({}, protocol=2) + b"\x80\x02J\x00.",
        pickle.dumps(1001, protocol=2)
        + pickle.dumps({}, protocol=2)
        + b"\x80\x02(X\x03\x00\x00\x00abcX\x01\x00\x00\x001tQ.",
        pickle.dumps(1001, protocol=2) + pickle.dumps({}, protocol=2) + b"\x80\x02K\x01Q.",
    ],
)
def test_old_files_with_damage_inside_are_refused(tmp_path, rest, allow_unsafe):
    path = tmp_path / "teacher.pt"
    path.write_bytes(OLD_MAGIC + rest)
    with pytest.raises(TeacherError, match=r"teacher\.pt: the file is truncated or damaged"):
        load_network(path, allow_unsafe)


@pytest.mark.parametrize("error", [struct.error("x"), AssertionError(), MemoryError()])
def test_whatever_torch_raises_for_damage_is_told_of_the_file(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    path = tmp_path / "teacher.pt"
    save(path, state_dict())
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(TeacherError, match=r"teacher\.pt: the file is truncated or damaged"):
        load_network(path)


def test_names_inside_a_file_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "teacher.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/daté.pkl", b"")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff"))
    with pytest.raises(TeacherError, match=r"teacher\.pt: the file is truncated or damaged"):
        load_network(path)


def test_a_torchscript_program_is_refused(tmp_path):
    path = tmp_path / "teacher.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; old files remain
        torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(4, 2))), path)
    with pytest.raises(TeacherError, match="this is a TorchScript program"):
        load_network(path, allow_unsafe=True)
