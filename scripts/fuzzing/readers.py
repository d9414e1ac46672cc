"""Every reader of files that may come from others, with good files of its kind and ways to harm."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.champion import crowned
from engine.cli.leaderboard import print_finish
from engine.cli.run import _print_champion
from engine.config_file import load_config
from engine.layout import CHAMPION, JOURNAL, RECIPES, SUMMARY, pack_path
from engine.learning.agentfarm import is_pickled_module, read_pickled_module
from engine.learning.checkpoints import read_checkpoint
from engine.learning.states import load_states
from engine.preparation import _reload as _reload_teacher
from engine.preparation import _reread
from engine.run_directory import RunDirectory
from engine.run_record import find_genome, read_run
from engine.run_status import run_status
from engine.stages.recombination.finetuning_config import read_finetuning_config
from engine.stages.state_sets import _read_archive
from fuzzing import mutations, samples, stage_files
from fuzzing.mutations import BLIND, Mutation
from populations.journal import Journal, read_journal
from populations.leaderboard import FILE_NAME, load_leaderboard
from populations.lineage import parents_from_rows
from populations.regular_files import is_regular, sha256_of
from populations.storage import genome_from_bytes, load_genome, load_pack, load_weights

LARGE_BOMB = 2**29


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        name: What it reads, for the table.
        file: Name of the file that is damaged.
        samples: Good files.
        read: Reads the file at a path; may raise only errors of ours.
        knowing: Mutations that know the format; half of all files come from them.
        reads_a_path: Whether it opens the file itself.
        beside: What lies beside the file, by relative name.
    """

    name: str
    file: str
    samples: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    knowing: tuple[Mutation, ...] = ()
    reads_a_path: bool = True
    beside: Callable[[], Mapping[str, bytes]] = dict

    @property
    def is_slow(self) -> bool:
        """Whether other files are read with it."""
        return len(self.beside()) > 0

    def mutant(self, seed: int, number: int) -> bytes:
        """Return one damaged file; the same for the same numbers."""
        rng = random.Random(f"{seed}:{self.name}:{number}")
        good = self.samples()
        data = rng.choice(good)
        if self.knowing and rng.random() < 0.6:
            data = rng.choice(self.knowing)(rng, data)
            if rng.random() < 0.8:
                return data
        for _ in range(rng.choice((1, 1, 2, 3))):
            if rng.random() < 0.1:  # one file goes on as another
                other = rng.choice(good)
                data = data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]
            else:
                data = rng.choice(BLIND)(rng, data)
        return data

    def prepare(self, folder: Path) -> Path:
        """Write what lies beside the file, and return where the file goes."""
        for name, content in self.beside().items():
            file = folder / name
            if not file.parent.is_dir():
                file.parent.mkdir(parents=True)
            file.write_bytes(content)
        (folder / self.file).parent.mkdir(exist_ok=True)
        return folder / self.file


def readers(bomb_bytes: int) -> list[Reader]:
    """Return all readers; zip bombs become ``bomb_bytes``."""
    rezip = mutations.rezip(bomb_bytes)
    reseal, header = mutations.reseal, mutations.alter_header
    return [
        Reader("genome", "g.safetensors", samples.genomes, load_genome, (reseal, header)),
        Reader("pack of genomes", "p.safetensors", samples.packs, load_pack, (reseal, header)),
        Reader("float weights", "w.safetensors", samples.weights, load_weights, (reseal, header)),
        Reader(
            "genome in a journal",
            "g",
            samples.genome_lines,
            _genome_line,
            (_alter_line,),
            reads_a_path=False,
        ),
        Reader(
            "teacher, .safetensors",
            "t.safetensors",
            lambda: [*samples.state_dicts(), *samples.weights(), *samples.genomes()],
            read_checkpoint,
            (mutations.rewrite_safetensors, header),
        ),
        Reader(
            "teacher, .pt",
            "t.pt",
            samples.torch_files,
            read_checkpoint,
            (rezip, mutations.alter_pickle, mutations.rewrite_torch),
        ),
        Reader("teacher, .pt before torch 1.6", "t.pt", samples.old_torch_files, read_checkpoint),
        Reader(
            "module of AgentFarm",
            "m.pt",
            samples.pickled_modules,
            _module,
            (rezip, mutations.alter_pickle),
            reads_a_path=False,  # read_checkpoint has looked at the file before
        ),
        Reader("states, .npy", "s.npy", samples.states, _states, (mutations.alter_npy_header,)),
        Reader("states of a stage, .npz", "s.npz", samples.state_sets, _read_archive, (rezip,)),
        Reader("states of a run, .npz", "r.npz", samples.run_states, _run_states, (rezip,)),
        Reader("teacher of a run", "teachers/t.safetensors", samples.weights, _reload, (reseal,)),
        *_run_readers(),
        Reader(
            "configuration", "c.yaml", samples.configurations, load_config, (mutations.alter_lines,)
        ),
        Reader(
            "settings of a fine-tuning",
            "f.yaml",
            samples.finetunings,
            read_finetuning_config,
            (mutations.alter_lines,),
        ),
        *_stage_readers(),
    ]


def _run_readers() -> list[Reader]:
    """Return the readers of files of a run directory."""
    rechain, cell, json_file = (
        (mutations.rechain,),
        (mutations.alter_cell,),
        (mutations.alter_json,),
    )
    of_a_run = [
        ("journal", JOURNAL, samples.journals, _journal, rechain),
        ("journal, as status reads it", JOURNAL, samples.journals, _status, rechain),
        ("journal, as resume reads it", JOURNAL, samples.journals, _resume, rechain),
        ("champion.json", SUMMARY, samples.summaries, _summary, json_file),
        ("recipes.csv", RECIPES, samples.recipes, _status, cell),
        ("leaderboard", FILE_NAME, samples.leaderboards, _board, cell),
    ]
    return [Reader(*fields, beside=samples.run) for fields in of_a_run]


def _stage_readers() -> list[Reader]:
    """Return the readers of JSON files that stages of the pipeline leave."""
    in_the_child = {
        "child of a search, run_config.json": ("run_config.json", stage_files.describe_child),
        "child of a search that goes on": ("run_config.json", stage_files.go_on),
        "report of a child, eval_report.json": ("eval_report.json", stage_files.go_on_with_report),
    }
    files = {
        "sidecar of a network": (f"{stage_files.PARENT}.json", stage_files.read_parent),
        "search_config.json": (stage_files.SETTINGS, stage_files.go_on),
        **{
            name: (stage_files.child_file(file), read)
            for name, (file, read) in in_the_child.items()
        },
    }
    return [
        Reader(
            name,
            file,
            functools.partial(stage_files.sample, file),
            read,
            (mutations.alter_json,),
            beside=stage_files.files,
        )
        for name, (file, read) in files.items()
    ]


def _genome_line(path: Path) -> object:
    return genome_from_bytes(path.read_bytes())


def _alter_line(rng: random.Random, data: bytes) -> bytes:
    """Change the line of JSON that a genome in a journal begins with."""
    head, line_feed, body = data.partition(b"\n")
    return mutations.alter_json(rng, head) + line_feed + body


def _module(path: Path) -> object:
    is_pickled_module(path)
    return read_pickled_module(path)


def _states(path: Path) -> object:
    return load_states(path, 4)


def _run_states(path: Path) -> object:
    return _reread(path, 4)


def _reload(path: Path) -> object:
    """Read a teacher that the run, somebody else's, gives this hash."""
    folder, name = path.parents[1], path.stem
    return _reload_teacher(
        folder, {"name": name, "sha256": sha256_of(path) if is_regular(path) else ""}
    )


def _journal(path: Path) -> object:
    list(read_journal(path))
    journal, events = Journal.open(path)
    with journal:
        return list(events)


def _status(path: Path) -> object:
    run = read_run(path.parent)
    born = [row for row in run.births if row.genome is not None]
    if born:
        find_genome(run, born[-1])
    return json.dumps(dataclasses.asdict(run_status(run)), ensure_ascii=False, allow_nan=False)


def _resume(path: Path) -> object:
    with RunDirectory.resume(path.parent) as directory:
        return list(directory.rows())


def _summary(path: Path) -> object:
    """Read a summary as ``resume`` does with a finished run, and print it."""
    folder = path.parent
    for file in (folder / CHAMPION, pack_path(folder, 0), pack_path(folder, 1)):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    with RunDirectory.resume(folder) as directory:
        champion = crowned(directory)
    if champion is not None:
        _print_champion(champion.summary, folder)
    return _status(path)


def _board(path: Path) -> object:
    table = load_leaderboard([path])
    print_finish(path.parent, 10)
    return parents_from_rows(table)
