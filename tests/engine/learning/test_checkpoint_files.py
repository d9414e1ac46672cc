"""Files of ours, float32 and int8; and what is let through, or run, only on demand."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from engine.errors import TeacherError
from engine.learning.checkpoints import (
    load_genome_file,
    load_network,
    read_checkpoint,
    save_int8,
    save_network,
)
from engine.learning.qnetwork import sequential
from populations.errors import GenomeValueError
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec
from populations.storage import save_genome

torch.set_num_threads(1)

SPEC = NetworkSpec((4,), (8, 6), 3, norm="layer", dropout_slots=True)


def state_dict(spec=SPEC):
    """Random tensors of a plain module."""
    tensors = sequential(spec).network.state_dict()
    return {f"network.{name}": tensor for name, tensor in tensors.items()}


def weights_of(spec=SPEC):
    return {name: tensor.detach().numpy() for name, tensor in state_dict(spec).items()}


def genome_of(vector_dtype="float32"):
    return Genome.from_weights(SPEC, weights_of(), Lineage("student", 0, 0), vector_dtype)


def test_saved_networks_are_plain_state_dicts_that_load_as_they_were(tmp_path):
    weights = weights_of()
    save_network(tmp_path / "student.pt", SPEC, weights)
    plain = torch.load(tmp_path / "student.pt", weights_only=True)
    assert list(plain) == list(SPEC.shapes)
    assert load_network(tmp_path / "student.pt")[0] == SPEC
    for name, tensor in plain.items():
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), weights[name])
    module = nn.Module()  # numbered as AgentFarm's own networks are, which take such a file
    module.network = nn.Sequential(
        *(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Dropout(0.05)),
        *(nn.Linear(8, 6), nn.LayerNorm(6), nn.ReLU(), nn.Dropout(0.05)),
        nn.Linear(6, 3),
    )
    module.load_state_dict(plain)


@pytest.mark.parametrize("vector_dtype", ["float32", "float16"])
def test_int8_files_hold_codes_and_scales_and_give_back_the_genome(tmp_path, vector_dtype):
    genome = genome_of(vector_dtype)
    path = tmp_path / "student_int8.pt"
    save_int8(path, genome)
    plain = torch.load(path, weights_only=True)
    assert {name: str(tensor.dtype) for name, tensor in plain.items()} == {
        name: f"torch.{tensor.dtype.name}" for name, tensor in genome.tensors().items()
    }
    assert [str(plain[name].dtype) for name in SPEC.matrices] == ["torch.int8"] * 3
    loaded = load_genome_file(path)
    assert loaded.id == genome.id
    assert loaded.lineage == Lineage("student", 0, 0, basis=genome.id)
    for name, tensor in load_network(path)[1].items():
        stored = plain[name].numpy().astype(np.float32)
        rows = plain[f"{name}.scale"].numpy()[:, None] if name in SPEC.matrices else 1
        np.testing.assert_array_equal(tensor, stored * rows)


def test_an_int8_matrix_takes_a_byte_per_weight_on_disk(tmp_path):
    spec = NetworkSpec((64,), (256, 256), 4, norm="layer", dropout_slots=True)
    weights = weights_of(spec)
    save_network(tmp_path / "float.pt", spec, weights)
    save_int8(tmp_path / "int8.pt", Genome.from_weights(spec, weights, Lineage("student", 0, 0)))
    n_codes = (64 + 256 + 4) * 256
    saved = (tmp_path / "float.pt").stat().st_size - (tmp_path / "int8.pt").stat().st_size
    # three of four bytes per code, less the scales and their records in the archive
    assert 3 * n_codes - 4 * 516 - 2048 < saved < 3 * n_codes


@pytest.mark.parametrize("is_int8", [False, True])
def test_equal_tensors_give_equal_bytes_whatever_the_name_and_the_memory(tmp_path, is_int8):
    weights = weights_of()
    views = {  # parts of larger arrays, transposed and read-only
        name: np.stack([tensor, tensor]).T.copy().T[0] for name, tensor in weights.items()
    }
    for view in views.values():
        view.flags.writeable = False
    for file, tensors in (("a.pt", weights), ("other_name.pt", views)):
        if is_int8:
            save_int8(tmp_path / file, Genome.from_weights(SPEC, tensors, Lineage("child", 1, 2)))
        else:
            save_network(tmp_path / file, SPEC, tensors)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "other_name.pt").read_bytes()


def test_weights_with_nan_are_not_saved(tmp_path):
    weights = weights_of() | {"network.0.bias": np.full(8, np.nan, np.float32)}
    with pytest.raises(GenomeValueError, match=r"student\.pt: network\.0\.bias holds NaN"):
        save_network(tmp_path / "student.pt", SPEC, weights)
    assert list(tmp_path.iterdir()) == []


def test_nan_and_infinity_are_let_through_where_that_is_asked_for(tmp_path):
    path = tmp_path / "broken.pt"
    tensors = state_dict()
    tensors["network.4.weight"][2, 3] = torch.nan
    tensors["network.0.bias"][1] = -torch.inf
    torch.save(tensors, path)
    _, weights = load_network(path, allow_non_finite=True)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(weights[name], tensor.numpy())


def int8_file(path, **changes):
    """A file of save_int8 with some of its tensors replaced, or left out where they are None."""
    save_int8(path, genome_of())
    tensors = torch.load(path, weights_only=True)
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    torch.save({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network__0__weight__scale": None}, r"network\.0\.weight must be floating point, not in"),
        (
            {"network__0__weight__scale": torch.ones(3)},
            r"network\.0\.weight\.scale must have shape \(8,\), one number per row, not \(3,\)",
        ),
        (
            {"network__4__weight__scale": torch.zeros(6)},
            r"scales of network\.4\.weight must be pos",
        ),
        ({"network__0__weight": torch.full((8, 4), -128, dtype=torch.int8)}, "holds the code -128"),
        ({"network__1__bias": torch.full((8,), torch.nan)}, r"network\.1\.bias holds NaN"),
        ({"network__8__bias": None}, r"expected network\.8\.bias, but it is missing"),
        ({"network__0__bias": torch.zeros(8, dtype=torch.int8)}, r"network\.0\.bias must be float"),
    ],
)
def test_int8_files_with_other_tensors_are_refused(tmp_path, changes, message):
    path = tmp_path / "student_int8.pt"
    int8_file(path, **changes)
    with pytest.raises(TeacherError, match=message):
        load_network(path)


def test_an_int8_file_with_nan_is_let_through_as_float(tmp_path):
    path = tmp_path / "student_int8.pt"
    int8_file(path, network__1__bias=torch.full((8,), torch.nan))
    checkpoint = read_checkpoint(path, allow_non_finite=True)
    assert checkpoint.genome is None
    assert np.isnan(checkpoint.weights["network.1.bias"]).all()
    assert np.isfinite(checkpoint.weights["network.0.weight"]).all()


def test_a_float_file_is_no_genome(tmp_path):
    torch.save(state_dict(), tmp_path / "student.pt")
    with pytest.raises(TeacherError, match=r"student\.pt: expected an int8 network, but its"):
        load_genome_file(tmp_path / "student.pt")


def test_a_genome_of_evolve_is_read_like_an_int8_file(tmp_path):
    genome = genome_of().with_lineage(Lineage("child", 3, 1, basis="abc"))
    save_genome(tmp_path / "champion.safetensors", genome)
    loaded = load_genome_file(tmp_path / "champion.safetensors")
    assert (loaded.id, loaded.lineage) == (genome.id, genome.lineage)
    _, weights = load_network(tmp_path / "champion.safetensors")
    for name, tensor in genome.to_weights().items():
        np.testing.assert_array_equal(weights[name], tensor)


class WritesAFile:
    """Pickles of it write a file when they are loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the attack leaves it open
def test_code_in_a_file_runs_only_where_it_is_allowed(tmp_path):
    path, written = tmp_path / "evil.pt", tmp_path / "written"
    torch.save(WritesAFile(written), path)
    with pytest.raises(TeacherError, match=r"evil\.pt: .* run code .*--allow-unsafe-unpickle"):
        load_network(path)
    assert not written.exists()
    with pytest.raises(TeacherError, match=r"expected a state dict, not TextIOWrapper"):
        load_network(path, allow_unsafe=True)
    assert written.exists()  # so the file would have done it


def test_only_files_that_need_it_count_as_unsafe(tmp_path):
    torch.save(state_dict(), tmp_path / "plain.pt")
    torch.save(nn.Sequential(nn.Linear(4, 2)), tmp_path / "module.pt")
    assert not read_checkpoint(tmp_path / "plain.pt", allow_unsafe=True).unsafe
    assert read_checkpoint(tmp_path / "module.pt", allow_unsafe=True).unsafe


def test_a_pickled_module_whose_class_is_gone_is_not_called_damaged(tmp_path, monkeypatch):
    home = types.ModuleType("gone_home")
    theirs = type("TheirNet", (nn.Linear,), {"__module__": home.__name__})
    home.TheirNet = theirs
    monkeypatch.setitem(sys.modules, home.__name__, home)
    torch.save(theirs(4, 2), tmp_path / "theirs.pt")
    expected = r"theirs\.pt: loading this file needs gone_home\.TheirNet, which is not here"
    del home.TheirNet
    with pytest.raises(TeacherError, match=expected):
        load_network(tmp_path / "theirs.pt", allow_unsafe=True)
    monkeypatch.delitem(sys.modules, home.__name__)
    with pytest.raises(TeacherError, match=expected):
        load_network(tmp_path / "theirs.pt", allow_unsafe=True)
