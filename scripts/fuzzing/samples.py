"""Good files of every kind, small, to be damaged."""

from __future__ import annotations

import functools
import io
import sys
import tempfile
import types
import warnings
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from torch import nn

from engine.config import RunConfig
from engine.config_file import dump_config, load_config, presets_folder
from engine.layout import CHAMPION, JOURNAL, RECIPES, SUMMARY
from engine.recipe_table import RecipeRow, table_bytes
from engine.run_directory import RunDirectory
from populations.genome import Genome, Lineage
from populations.leaderboard import FILE_NAME, Columns, Row
from populations.network import NetworkSpec
from populations.plans import Result
from populations.storage import genome_to_bytes, save_genome, save_pack, save_weights
from populations.tensor_file import canonical_json

SPECS = (
    NetworkSpec((4,), (8, 8), 2),
    NetworkSpec((2, 2), (5,), 3, norm="layer", dropout_slots=True),
)
FARM = "farm.core.decision.base_dqn"


def weights_of(spec: NetworkSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random weights."""
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in spec.shapes.items()}


def genome_of(spec: NetworkSpec, seed: int = 0, kind: str = "student") -> Genome:
    """Return a random genome."""
    lineage = Lineage(kind, 0, seed, ("3f9c1a7be210",), "weighted", "")
    return Genome.from_weights(spec, weights_of(spec, seed), lineage)


@functools.cache
def genomes() -> list[bytes]:
    """Return files of one genome."""
    return [_written(lambda path, s=spec: save_genome(path, genome_of(s))) for spec in SPECS]


@functools.cache
def packs() -> list[bytes]:
    """Return packs of genomes of one and of two architectures."""
    one, other = ([genome_of(spec, seed) for seed in range(3)] for spec in SPECS)
    return [_written(lambda path, g=some: save_pack(path, g)) for some in (one, one + other)]


@functools.cache
def weights() -> list[bytes]:
    """Return files of float weights."""
    extra = {"source": "trained", "steps": 100}
    return [
        _written(lambda path, s=spec: save_weights(path, s, weights_of(s), extra)) for spec in SPECS
    ]


@functools.cache
def genome_lines() -> list[bytes]:
    """Return genomes as they lie in a journal."""
    return [genome_to_bytes(genome_of(spec)) for spec in SPECS]


@functools.cache
def state_dicts() -> list[bytes]:
    """Return safetensors files of somebody else, float and int8."""
    return [
        *(safetensors.numpy.save(weights_of(spec)) for spec in SPECS),
        safetensors.numpy.save(genome_of(SPECS[0]).tensors()),
    ]


@functools.cache
def torch_files() -> list[bytes]:
    """Return what ``torch.save`` writes today."""
    states = [*(weights_of(spec) for spec in SPECS), genome_of(SPECS[0]).tensors()]
    return [_torch_saved(state) for state in states]


@functools.cache
def old_torch_files() -> list[bytes]:
    """Return what ``torch.save`` wrote before version 1.6."""
    return [_torch_saved(weights_of(spec), _use_new_zipfile_serialization=False) for spec in SPECS]


@functools.cache
def pickled_modules() -> list[bytes]:
    """Return whole modules under AgentFarm's names, float and dynamically quantized."""

    class BaseQNetwork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    BaseQNetwork.__qualname__, BaseQNetwork.__module__ = "BaseQNetwork", FARM
    parts = FARM.split(".")
    names = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    modules = {name: types.ModuleType(name) for name in names}
    modules[FARM].BaseQNetwork = BaseQNetwork  # type: ignore[attr-defined]
    sys.modules.update(modules)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.ao is about to go
            module = BaseQNetwork().eval()
            saved = [_saved(module)]
            quantize = getattr(getattr(torch, "ao", None), "quantization", None)
            if quantize is not None:
                saved.append(_saved(quantize.quantize_dynamic(module, dtype=torch.qint8)))
    finally:
        for name in names:
            del sys.modules[name]
    return saved


@functools.cache
def states() -> list[bytes]:
    """Return arrays of states ``(64, 4)``."""
    array = np.random.default_rng(0).standard_normal((64, 4))
    return [_npy(array.astype(dtype)) for dtype in ("<f4", "<f8", ">f2")]


@functools.cache
def state_sets() -> list[bytes]:
    """Return the states of a stage, two arrays in one archive."""
    array = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    content = io.BytesIO()
    np.savez(content, train=array, heldout=array[:32])
    return [content.getvalue()]


def read_array(content: bytes) -> np.ndarray:
    """Return the array of a good ``.npy`` file."""
    return np.load(io.BytesIO(content))


@functools.cache
def run_states() -> list[bytes]:
    """Return the states of a run, one compressed array in an archive."""
    content = io.BytesIO()
    np.savez_compressed(content, states=read_array(states()[0]))
    return [content.getvalue()]


@functools.cache
def finetunings() -> list[bytes]:
    """Return settings of a fine-tuning, and some beside other sections."""
    section = b"crossover_child_finetune:\n  epochs: 5\n  learning_rate: 1e-3\n  loss_fn: kl\n"
    return [section, b"other: [1, 2]\n" + section + b"  batch_size: 32\n"]


@functools.cache
def configurations() -> list[bytes]:
    """Return the presets, and one of them in full."""
    files = [file for file in presets_folder().iterdir() if file.name.endswith(".yaml")]
    return [*(file.read_bytes() for file in files), dump_config(_config()).encode()]


@functools.cache
def recipes() -> list[bytes]:
    """Return tables of recipes."""
    head = (0, "weighted", {"low": 0.1}, "auto", "default", True, 0.25, 3, 2)
    rows = [
        RecipeRow(*head, -0.5, 1.0, 0.25, 1.5, 2.5, 0.375, 0.125),
        RecipeRow(*head, None, None, None, None, None, None, 0.875),
    ]
    return [table_bytes(rows)]


@functools.cache
def run() -> dict[str, bytes]:
    """Return the files of a small finished run, by name."""
    teacher, student, child = (genome_of(SPECS[0], seed) for seed in range(3))
    common = {"run": "r", "wall_s": 0.1, "cpu_s": 0.1, "attempts": 1, "node": "n"}
    common["created_at"] = "2026-01-01T00:00:00+00:00"
    scored = {"fitness": 9.5, "fitness_sem": 0.5, "episodes": 8, "return_min": 8.0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with RunDirectory.open(path, _config()) as directory:
            names = [f"teacher-{i}" for i in range(2)]
            directory.open_leaderboard(Columns(teachers=names))
            entries = [{"name": name, "source": "x", "steps": 3, "sha256": "0"} for name in names]
            directory.finish_stage("teachers", tuple, {"teachers": entries})
            directory.finish_stage("states", tuple, {"sha256": "0", "n_states": 64})
            baselines = [
                Row(kind="teacher", generation=0, child=i, fitness_holdout=9.0, **common)
                for i in range(2)
            ]
            directory.finish_stage("baselines", lambda: baselines)
            for number, (kind, genome) in enumerate((("student", student), ("child", child))):
                phase = "students" if number == 0 else "children"
                result = Result(
                    phase, number, 0, "ok", "", genome, (9.0, 10.0), 1.0, True, (0.5,) * 2
                )
                directory.record([result])
                row = Row(
                    kind=kind, generation=number, child=0, genome=genome.id, agreements=(0.5, 0.5),
                    parents=genome.lineage.parents, operator="weighted",
                    operator_params={"low": 0.1},
                    mutation={"name": "gaussian"}, finetune={"steps": 3}, **scored, **common,
                )  # fmt: skip
                directory.finish_stage(f"generation-{number}", lambda row=row: [row])
            final = Row(
                kind="child",
                generation=1,
                genome=child.id,
                fitness_holdout=9.25,
                **scored,
                **common,
            )
            directory.finish_stage("champion", lambda: [final])
            pending = Result("children", 1, 1, "failed", "unit: ValueError: no")
            directory.record([pending])
        files = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    summary = {
        "genome": child.id, "kind": "child", "generation": 1, "parents": [student.id],
        "operator": "weighted", "fitness": 9.5, "fitness_sem": 0.5, "episodes": 8,
        "fitness_holdout": 9.25, "fitness_holdout_sem": 0.5, "episodes_holdout": 8,
        "size_bytes": 1000, "parameters": child.spec.n_parameters, "environment": "CartPole-v1",
        "network": child.spec.to_dict(), "file": CHAMPION,
        "teachers": [{"name": name, "fitness_holdout": 9.0, "size_bytes": 9} for name in names],
    }  # fmt: skip
    files[SUMMARY] = canonical_json(summary).encode()
    files[RECIPES] = recipes()[0]
    del teacher
    return files


def journals() -> list[bytes]:
    """Return the journal of a run."""
    return [run()[JOURNAL]]


def leaderboards() -> list[bytes]:
    """Return the leaderboard of a run."""
    return [run()[FILE_NAME]]


def summaries() -> list[bytes]:
    """Return the ``champion.json`` of a run."""
    return [run()[SUMMARY]]


def _config() -> RunConfig:
    return load_config("smoke", ["evolution.generations=1", "dispatch.workers=0"])


def _written(write) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()


def _torch_saved(arrays, **options) -> bytes:
    return _saved({name: torch.from_numpy(array) for name, array in arrays.items()}, **options)


def _saved(content: object, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()
