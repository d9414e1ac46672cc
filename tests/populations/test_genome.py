"""Genomes: what their id covers, what they refuse, and that storing them loses nothing."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from populations.errors import GenomeShapeError, GenomeValueError
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec
from populations.quantization import LARGEST_SCALE

SPEC = NetworkSpec((4,), (8, 8), 2)
LAYER_NORM = NetworkSpec((3,), (5,), 2, norm="layer", dropout_slots=True)
LINEAGES = st.builds(
    Lineage,
    kind=st.sampled_from(["ancestor", "student", "child", "control"]),
    generation=st.integers(0, 10**6),
    index=st.integers(0, 10**6),
    parents=st.lists(st.text(max_size=12), max_size=3).map(tuple),
    operator=st.text(max_size=20),
    basis=st.text(max_size=12),
)


def random_genome(spec: NetworkSpec = SPEC, seed: int = 0, vector_dtype="float32") -> Genome:
    rng = np.random.default_rng(seed)
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in spec.shapes.items()}
    return Genome.from_weights(spec, weights, Lineage("student", 0, seed), vector_dtype)


@given(LINEAGES)
def test_the_id_does_not_depend_on_the_lineage(lineage) -> None:
    genome = random_genome()
    assert genome.with_lineage(lineage).id == genome.id
    assert genome.with_lineage(lineage).lineage == lineage


@pytest.mark.parametrize("name", random_genome(LAYER_NORM).tensors())
def test_the_id_changes_with_any_tensor(name) -> None:
    genome = random_genome(LAYER_NORM)
    changed = {key: tensor.copy() for key, tensor in genome.tensors().items()}
    flat = changed[name].reshape(-1)
    flat[-1] = flat[-1] + 1 if flat[-1] < 100 else flat[-1] - 1
    other = Genome(
        LAYER_NORM,
        {n: changed[n] for n in LAYER_NORM.matrices},
        {n: changed[f"{n}.scale"] for n in LAYER_NORM.matrices},
        {n: changed[n] for n in LAYER_NORM.vectors},
        genome.lineage,
    )
    assert other.id != genome.id


def test_the_id_changes_with_the_spec_and_with_the_vector_dtype() -> None:
    square = NetworkSpec((2, 2), (8, 8), 2)
    genome = random_genome()
    assert replace(genome, spec=square).id != genome.id
    halves = {name: vector.astype(np.float16) for name, vector in genome.vectors.items()}
    assert replace(genome, vectors=halves).id != genome.id


def test_the_id_has_12_hex_digits() -> None:
    genome = random_genome()
    assert len(genome.id) == 12
    assert set(genome.id) <= set("0123456789abcdef")


def test_a_genome_travels_with_its_id(monkeypatch) -> None:
    genome = random_genome()
    genome_id, arrived = genome.id, pickle.loads(pickle.dumps(random_genome()))
    monkeypatch.setattr("hashlib.sha256", None)  # nobody needs to hash it again
    assert arrived.id == genome_id
    for name, tensor in genome.tensors().items():
        np.testing.assert_array_equal(arrived.tensors()[name], tensor)


def test_the_id_does_not_depend_on_memory_layout() -> None:
    genome = random_genome()
    codes = {name: np.asfortranarray(codes) for name, codes in genome.codes.items()}
    assert replace(genome, codes=codes).id == genome.id


@given(
    hnp.arrays(np.float32, (5, 3), elements=st.floats(-100, 100, width=32)),
    st.sampled_from(["float32", "float16"]),
)
def test_quantizing_a_genomes_own_weights_gives_the_same_genome(weight, vector_dtype) -> None:
    weights = {name: np.ones(s, np.float32) / 3 for name, s in LAYER_NORM.shapes.items()}
    weights["network.0.weight"] = weight
    genome = Genome.from_weights(LAYER_NORM, weights, Lineage("student", 0, 0), vector_dtype)
    again = Genome.from_weights(LAYER_NORM, genome.to_weights(), genome.lineage, vector_dtype)
    assert again.id == genome.id


def test_weights_come_back_as_float32_in_the_order_of_the_spec() -> None:
    genome = random_genome(LAYER_NORM, vector_dtype="float16")
    weights = genome.to_weights()
    LAYER_NORM.check(weights, "genome")
    assert list(weights) == list(LAYER_NORM.shapes)


def test_a_genome_without_basis_is_its_own_basis() -> None:
    genome = random_genome()
    assert genome.lineage.basis == genome.id
    weights = genome.to_weights()
    child = Genome.from_weights(SPEC, weights, Lineage("child", 1, 0, basis="b81d04c2aa97"))
    assert child.lineage.basis == "b81d04c2aa97"


@given(LINEAGES)
def test_a_lineage_survives_its_dictionary(lineage) -> None:
    assert Lineage.from_dict(lineage.to_dict()) == lineage


@pytest.mark.parametrize(
    "change", [{"generation": "x"}, {"generation": float("inf")}, {"parents": 3}, {"index": None}]
)
def test_a_damaged_lineage_is_refused(change) -> None:
    with pytest.raises(GenomeValueError, match="not a lineage"):
        Lineage.from_dict(Lineage("child", 1, 2).to_dict() | change)


def test_a_code_of_minus_128_is_refused() -> None:
    genome = random_genome()
    genome.codes["network.0.weight"][0, 0] = -128
    with pytest.raises(GenomeValueError, match=r"network\.0\.weight holds the code -128"):
        replace(genome)


@pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf, LARGEST_SCALE * 1.001])
def test_a_scale_that_is_not_positive_or_overflows_is_refused(scale) -> None:
    genome = random_genome()
    genome.scales["network.2.weight"][3] = scale
    with pytest.raises(GenomeValueError, match=r"scales of network\.2\.weight must be positive"):
        replace(genome)


def test_a_vector_that_is_not_finite_is_refused() -> None:
    genome = random_genome()
    genome.vectors["network.2.bias"][3] = np.nan
    with pytest.raises(GenomeValueError, match=r"network\.2\.bias holds NaN"):
        replace(genome)


def test_a_vector_too_large_for_float16_is_refused() -> None:
    weights = random_genome().to_weights()
    weights["network.0.bias"][0] = 1e6
    with pytest.raises(GenomeValueError, match=r"network\.0\.bias holds NaN or infinity"):
        Genome.from_weights(SPEC, weights, Lineage("student", 0, 0), "float16")


def test_wrong_names_shapes_and_dtypes_are_refused() -> None:
    genome = random_genome()
    codes, vectors = dict(genome.codes), dict(genome.vectors)
    with pytest.raises(GenomeShapeError, match="codes must be exactly"):
        replace(genome, codes={"network.0.weight": codes["network.0.weight"]})
    transposed = codes | {"network.0.weight": codes["network.0.weight"].T}
    with pytest.raises(GenomeShapeError, match=r"must be int8 of shape \(8, 4\), not int8 of"):
        replace(genome, codes=transposed)
    wide = vectors | {"network.0.bias": vectors["network.0.bias"].astype(np.float64)}
    with pytest.raises(GenomeShapeError, match="float32 or float16"):
        replace(genome, vectors=wide)
    swapped = vectors | {"network.0.bias": vectors["network.0.bias"].astype(">f4")}
    with pytest.raises(GenomeShapeError, match="float32 or float16"):
        replace(genome, vectors=swapped)
    mixed = vectors | {"network.4.bias": vectors["network.4.bias"].astype(np.float16)}
    with pytest.raises(GenomeShapeError, match="all vectors must be float32"):
        replace(genome, vectors=mixed)
