"""Files of genomes: nothing is lost, equal content gives equal bytes, damage is named."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from populations import storage, tensor_file
from populations.errors import GenomeFileError, GenomeShapeError
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parents[2]
SPEC = NetworkSpec((4,), (8, 8), 2)
SPECS = st.sampled_from(
    [
        SPEC,
        NetworkSpec((3,), (5,), 2, norm="layer", dropout_slots=True),
        NetworkSpec((2, 2), (), 1),
    ]
)
LINEAGE = Lineage("child", 3, 7, ("3f9c1a7be210", "b81d04c2aa97"), "weighted", "0123456789ab")


def random_genome(spec: NetworkSpec = SPEC, seed: int = 0, vector_dtype="float32") -> Genome:
    rng = np.random.default_rng(seed)
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in spec.shapes.items()}
    return Genome.from_weights(spec, weights, LINEAGE, vector_dtype)


GENOMES = st.builds(
    random_genome, SPECS, st.integers(0, 10**6), st.sampled_from(["float32", "float16"])
)


def assert_same(genome: Genome, other: Genome) -> None:
    assert (genome.spec, genome.lineage, genome.id) == (other.spec, other.lineage, other.id)
    assert list(genome.tensors()) == list(other.tensors())
    for name, tensor in genome.tensors().items():
        assert tensor.dtype == other.tensors()[name].dtype
        assert tensor.tobytes() == other.tensors()[name].tobytes()


def rewrite(path: Path, change, tensors=None) -> None:
    """Change the fields or tensors of one of our files and make its checksum right again."""
    old, metadata = tensor_file.read_tensors(path)
    fields = json.loads(metadata["cultivar"])
    what = fields.pop("what")
    del fields["format"], fields["sha256"]
    change(fields)
    tensor_file.save_tensors(path, what, fields, old | (tensors or {}))


# --- what is saved is what is loaded ---


@given(genome=GENOMES)
def test_a_genome_file_loses_nothing(tmp_path_factory, genome) -> None:
    path = tmp_path_factory.getbasetemp() / "genome.safetensors"
    storage.save_genome(path, genome)
    assert_same(storage.load_genome(path), genome)


@given(genome=GENOMES, operator=st.text(max_size=40), n_parents=st.integers(0, 9))
def test_the_size_of_a_file_is_known_before_it_is_written(
    tmp_path_factory, genome, operator, n_parents
) -> None:
    lineage = replace(LINEAGE, operator=operator, parents=("3f9c1a7be210",) * n_parents)
    genome = genome.with_lineage(lineage)
    path = tmp_path_factory.getbasetemp() / "sized.safetensors"
    storage.save_genome(path, genome)
    assert storage.genome_file_size(genome) == path.stat().st_size


@given(genome=GENOMES)
def test_genome_bytes_lose_nothing(genome) -> None:
    assert_same(storage.genome_from_bytes(storage.genome_to_bytes(genome)), genome)


@given(genomes=st.lists(GENOMES, max_size=6))
def test_a_pack_keeps_all_genomes_in_order(tmp_path_factory, genomes) -> None:
    path = tmp_path_factory.getbasetemp() / "pack.safetensors"
    storage.save_pack(path, genomes)
    loaded = storage.load_pack(path)
    assert list(loaded) == list(dict.fromkeys(genome.id for genome in genomes))
    for genome in genomes:
        assert_same(loaded[genome.id], genome)


def test_of_equal_genomes_in_a_pack_the_first_birth_is_kept(tmp_path) -> None:
    first = random_genome()
    second = first.with_lineage(Lineage("child", 9, 9))
    storage.save_pack(tmp_path / "pack", [first, second])
    assert storage.load_pack(tmp_path / "pack")[first.id].lineage == first.lineage


def test_weights_and_what_is_kept_with_them_come_back(tmp_path) -> None:
    rng = np.random.default_rng(0)
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in SPEC.shapes.items()}
    extra = {"task": "CartPole-v1", "fitness": 211.5, "seeds": [1, 2], "name": "Lehrer-ü"}
    storage.save_weights(tmp_path / "teacher", SPEC, weights, extra)
    spec, loaded, kept = storage.load_weights(tmp_path / "teacher")
    assert (spec, kept) == (SPEC, extra)
    assert list(loaded) == list(SPEC.shapes)
    for name, weight in weights.items():
        assert loaded[name].tobytes() == weight.tobytes()
        assert loaded[name].flags.writeable  # torch.from_numpy warns about read-only arrays


def test_a_transposed_tensor_is_written_in_its_own_order(tmp_path) -> None:
    weights = {n: np.zeros(s, np.float32) for n, s in SPEC.shapes.items()}
    weights["network.0.weight"] = np.arange(32, dtype=np.float32).reshape(4, 8).T
    storage.save_weights(tmp_path / "teacher", SPEC, weights, {})
    loaded = storage.load_weights(tmp_path / "teacher")[1]
    np.testing.assert_array_equal(loaded["network.0.weight"], weights["network.0.weight"])


# --- bytes ---


def test_equal_content_gives_equal_bytes_in_another_process(tmp_path) -> None:
    storage.save_genome(tmp_path / "here", random_genome())
    code = (
        "import sys; from populations import storage; "
        "storage.save_genome(sys.argv[2], storage.load_genome(sys.argv[1]))"
    )
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code, tmp_path / "here", tmp_path / "there"]
        subprocess.run(command, check=True, env=environment)
        assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()


def test_the_golden_genome_is_read_and_written_bit_for_bit(tmp_path) -> None:
    golden = DATA / "golden.safetensors"
    genome = storage.load_genome(golden)
    assert genome.id == "7d5e4f02e2c9"
    storage.save_genome(tmp_path / "again", genome)
    assert (tmp_path / "again").read_bytes() == golden.read_bytes()


def test_the_golden_files_are_those_of_the_script() -> None:
    command = [sys.executable, ROOT / "scripts" / "make_golden.py", "--check"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_small_student_is_a_small_file(tmp_path) -> None:
    storage.save_genome(tmp_path / "genome", random_genome())
    assert (tmp_path / "genome").stat().st_size < 1500
    assert len(storage.genome_to_bytes(random_genome())) < 600


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch) -> None:
    path = tmp_path / "genome"
    storage.save_genome(path, random_genome(seed=1))
    before = path.read_bytes()

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        storage.save_genome(path, random_genome(seed=2))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- damage ---


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(GenomeFileError, match=r"nowhere\.safetensors: .* missing"):
        storage.load_genome(tmp_path / "nowhere.safetensors")


def test_a_folder_is_named(tmp_path) -> None:
    with pytest.raises(GenomeFileError, match="cannot be read: Is a directory"):
        storage.load_genome(tmp_path)


@given(data=st.data())
def test_a_truncated_file_is_refused(tmp_path_factory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "truncated"
    storage.save_genome(path, random_genome())
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(GenomeFileError, match=r"truncated: .*truncated or"):
        storage.load_genome(path)


@given(data=st.data())
def test_no_flipped_bit_changes_what_is_loaded(tmp_path_factory, data) -> None:
    genome = random_genome()
    path = tmp_path_factory.getbasetemp() / "flipped"
    storage.save_genome(path, genome)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        loaded = storage.load_genome(path)
    except GenomeFileError:
        return
    assert_same(loaded, genome)  # for example a space of the header that became a tab


@given(data=st.data())
def test_no_flipped_bit_of_genome_bytes_changes_the_network(data) -> None:
    genome = random_genome()
    content = bytearray(storage.genome_to_bytes(genome))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        loaded = storage.genome_from_bytes(bytes(content))
    except GenomeFileError:
        return
    assert loaded.id == genome.id  # the lineage was hit, which is not part of the id


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(tmp_path_factory, content) -> None:
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_bytes(content)
    with pytest.raises(GenomeFileError, match="random"):
        storage.load_genome(path)
    with pytest.raises(GenomeFileError, match="genome in memory"):
        storage.genome_from_bytes(content)


def test_a_header_larger_than_the_file_is_refused_before_it_is_read(tmp_path) -> None:
    path = tmp_path / "huge"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(GenomeFileError, match=f"header of {2**62} bytes, but the file has 10"):
        storage.load_genome(path)


def test_tensors_larger_than_the_file_are_refused(tmp_path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
    path = tmp_path / "huge"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(GenomeFileError, match="truncated or damaged"):
        storage.load_genome(path)


def test_a_file_of_another_program_is_refused(tmp_path) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(2, np.float32)}, {"format": "pt"}))
    with pytest.raises(GenomeFileError, match="metadata key 'cultivar', but the file has format"):
        storage.load_genome(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("[1]", r"expected a mapping in the metadata, not \[1\]"),
        ('{"format":2}', "expected format 1, not 2"),
        ('{"format":1,"what":"pack"}', "expected a genome file, not 'pack'"),
        ('{"format":1,"what":"genome"}', "expected the SHA-256 None"),
    ],
)
def test_unusable_metadata_is_named(tmp_path, metadata, message) -> None:
    path = tmp_path / "genome"
    path.write_bytes(safetensors.numpy.save({}, {"cultivar": metadata}))
    with pytest.raises(GenomeFileError, match=message):
        storage.load_genome(path)


def test_altered_bytes_are_found_by_the_checksum(tmp_path) -> None:
    path = tmp_path / "genome"
    storage.save_genome(path, random_genome())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(GenomeFileError, match="altered: expected the SHA-256"):
        storage.load_genome(path)


def test_an_altered_lineage_is_found_by_the_checksum(tmp_path) -> None:
    path = tmp_path / "genome"
    storage.save_genome(path, random_genome())
    path.write_bytes(path.read_bytes().replace(b"3f9c1a7be210", b"3f9c1a7be211"))
    with pytest.raises(GenomeFileError, match="altered"):
        storage.load_genome(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("id", "0" * 12, "expected the genome 000000000000, but the content is"),
        ("spec", None, "not the description of a network"),
        ("spec", NetworkSpec((4,), (8, 9), 2).to_dict(), r"must be int8 of shape \(9, 8\)"),
        ("spec", NetworkSpec((4,), (8,), 2).to_dict(), "codes|vectors"),
        ("spec", SPEC.to_dict() | {"hidden": [10**12, 10**12]}, "must be int8 of shape"),
        ("lineage", {}, "not a lineage"),
    ],
)
def test_fields_that_do_not_fit_the_tensors_are_named(tmp_path, field, value, message) -> None:
    path = tmp_path / "genome"
    storage.save_genome(path, random_genome())
    rewrite(path, lambda fields: fields.update({field: value}))
    with pytest.raises(GenomeFileError, match=f"genome: .*({message})"):
        storage.load_genome(path)


def test_a_missing_field_is_named(tmp_path) -> None:
    path = tmp_path / "genome"
    storage.save_genome(path, random_genome())
    rewrite(path, lambda fields: fields.pop("spec"))
    with pytest.raises(GenomeFileError, match="expected the field 'spec'"):
        storage.load_genome(path)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("network.0.weight", np.full((8, 4), -128, np.int8), "code -128"),
        ("network.0.weight", np.zeros((4, 8), np.int8), r"not int8 of shape \(4, 8\)"),
        ("network.0.weight", np.zeros((8, 4), np.int16), "not int16"),
        ("network.0.bias", np.full(8, np.nan, np.float32), r"network\.0\.bias holds NaN"),
        ("network.0.weight.scale", np.full(8, np.inf, np.float32), "positive and at most"),
        ("network.9.bias", np.zeros(8, np.float32), r"vectors must be exactly .*network\.9"),
    ],
)
def test_tensors_that_no_genome_can_have_are_named(tmp_path, name, tensor, message) -> None:
    path = tmp_path / "genome"
    storage.save_genome(path, random_genome())
    rewrite(path, lambda fields: None, {name: tensor})
    with pytest.raises(GenomeFileError, match=message):
        storage.load_genome(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields["genomes"].pop(),
        lambda fields: fields["genomes"].append(fields["genomes"][0]),
        lambda fields: fields["genomes"].reverse(),
        lambda fields: fields["genomes"][0].update(spec=5),
        lambda fields: fields["genomes"][0].update(spec="0"),
        lambda fields: fields.update(specs=3),
        lambda fields: fields.update(genomes=[1, 2]),
    ],
)
def test_a_pack_whose_list_does_not_fit_its_tensors_is_refused(tmp_path, change) -> None:
    path = tmp_path / "pack"
    storage.save_pack(path, [random_genome(seed=1), random_genome(seed=2)])
    rewrite(path, change)
    with pytest.raises(GenomeFileError, match="pack: "):
        storage.load_pack(path)


def test_weights_that_are_not_those_of_the_spec_are_refused(tmp_path) -> None:
    path = tmp_path / "teacher"
    weights = {n: np.zeros(s, np.float32) for n, s in SPEC.shapes.items()}
    with pytest.raises(GenomeShapeError, match="missing: network"):
        storage.save_weights(path, NetworkSpec((4,), (8, 8, 8), 2), weights, {})
    storage.save_weights(path, SPEC, weights, {})
    rewrite(path, lambda fields: None, {"network.0.bias": np.full(8, np.nan, np.float32)})
    with pytest.raises(GenomeFileError, match=r"teacher: .*network\.0\.bias holds NaN"):
        storage.load_weights(path)


# --- files of others ---


def test_tensors_of_another_program_are_read_with_their_metadata(tmp_path) -> None:
    path = tmp_path / "foreign.safetensors"
    tensors = {
        "q.network.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "steps": np.array([7], np.int64),
        "double": np.array([0.1]),
    }
    path.write_bytes(safetensors.numpy.save(tensors, {"format": "pt"}))
    loaded, metadata = storage.read_tensors(path)
    assert metadata == {"format": "pt"}
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype


def write_one_tensor(path: Path, dtype: str, data: bytes) -> None:
    header = json.dumps({"a": {"dtype": dtype, "shape": [2], "data_offsets": [0, len(data)]}})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + data)


def test_bfloat16_is_widened_to_float32(tmp_path) -> None:
    write_one_tensor(tmp_path / "bf16", "BF16", b"\x80\x3f\x20\xc0")  # 0x3f80 and 0xc020
    loaded, _ = storage.read_tensors(tmp_path / "bf16")
    np.testing.assert_array_equal(loaded["a"], np.array([1, -2.5], np.float32))


def test_a_dtype_that_numpy_lacks_is_named(tmp_path) -> None:
    write_one_tensor(tmp_path / "f8", "F8_E4M3", b"\0\0")
    with pytest.raises(GenomeFileError, match=r"a must be one of F64, .*, not F8_E4M3"):
        storage.read_tensors(tmp_path / "f8")
