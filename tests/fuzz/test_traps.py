"""Files that once crashed a reader, hung it, or filled the memory; one test for each of them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from fuzzing import samples, stage_files, zips
from fuzzing.mutations import resealed

from engine.champion import _read_summary, crowned
from engine.cli.leaderboard import print_finish
from engine.config import RunConfig
from engine.config_file import load_config
from engine.errors import ConfigError, RunDirectoryError, StageError, StatesError, TeacherError
from engine.layout import teacher_path
from engine.learning.agentfarm import is_pickled_module, read_pickled_module
from engine.learning.checkpoints import read_checkpoint
from engine.learning.pickles import check_pickle
from engine.learning.states import load_states
from engine.preparation import _reload, _reread
from engine.recipe_table import read_table
from engine.record_checks import check_teachers
from engine.run_directory import RunDirectory
from engine.run_record import read_run
from engine.stages.search.reproduction import described_child
from engine.stages.state_sets import _read_archive
from populations.errors import (
    LONGEST,
    CultivarError,
    GenomeFileError,
    JournalError,
    LeaderboardError,
)
from populations.journal import read_journal
from populations.leaderboard import load_leaderboard
from populations.leaderboard_columns import FIXED, SCHEMA_VERSION
from populations.regular_files import sha256_of
from populations.storage import load_genome, load_pack, save_weights
from populations.tensor_file import file_content

GIGABYTE = 2**30


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def with_events(*events: bytes) -> bytes:
    return resealed(events)


def torch_archive(pickled: bytes) -> bytes:
    return zips.pack([zips.plain("x/data.pkl", pickled), zips.plain("x/version", b"3\n")])


# --- messages ---


def test_a_message_quotes_no_control_characters_and_has_an_end() -> None:
    assert str(CultivarError("a \x1b[31m\x00\ud800 b\nc é")) == "a \\x1b[31m\\x00\\ud800 b\nc é"
    assert len(str(CultivarError("x" * 10**6))) == LONGEST


# --- genomes ---


@pytest.mark.found_in("genome", "pack of genomes", "float weights", "teacher, .safetensors")
@pytest.mark.parametrize("shape", [[0, 2**62, 2**62], [0] * 200, [2**63, 0]])
def test_an_empty_tensor_cannot_claim_a_shape_that_no_array_has(tmp_path, shape) -> None:
    header = {"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    path = written(tmp_path / "g", len(text).to_bytes(8, "little") + text)
    with pytest.raises(GenomeFileError, match="damaged"):
        load_genome(path)


@pytest.mark.found_in("genome", "pack of genomes", "float weights", "genome in a journal")
def test_the_description_of_a_network_cannot_keep_a_reader_busy(tmp_path) -> None:
    genome = samples.genome_of(samples.SPECS[0])
    for spec in ({"hidden": [1] * 20_000}, {"observation_shape": [2**62] * 2000}):
        described = genome.spec.to_dict() | spec
        fields = {"id": genome.id, "spec": described, "lineage": genome.lineage.to_dict()}
        path = written(tmp_path / "g", file_content("genome", fields, genome.tensors()))
        with pytest.raises(GenomeFileError, match="at most 1000 whole numbers"):
            load_genome(path)


@pytest.mark.found_in("pack of genomes")
def test_a_pack_of_very_many_architectures_is_read_in_linear_time(tmp_path) -> None:
    genome = samples.genome_of(samples.SPECS[0])
    entry = {"id": genome.id, "spec": 0, "lineage": genome.lineage.to_dict()}
    fields = {"specs": [genome.spec.to_dict()] * 3_000, "genomes": [entry] * 3_000}
    tensors = {f"0/{name}": tensor[None] for name, tensor in genome.tensors().items()}
    with pytest.raises(GenomeFileError, match="must hold 3000 genomes"):
        load_pack(written(tmp_path / "p", file_content("pack", fields, tensors)))


# --- teachers ---


@pytest.mark.found_in("teacher, .safetensors")
def test_an_int8_vector_with_scales_does_not_become_a_matrix(tmp_path) -> None:
    arrays = {"a.0.weight": np.ones(10**5, np.int8), "a.0.weight.scale": np.ones(10**5, np.float32)}
    path = written(tmp_path / "t.safetensors", safetensors.numpy.save(arrays))
    with pytest.raises(TeacherError, match="is int8 and must be a matrix"):
        read_checkpoint(path)


@pytest.mark.found_in("teacher, .pt")
@pytest.mark.parametrize("shape", [(2**16, 2**16), (2**61,), (1,) * 70])
def test_one_number_cannot_stand_for_a_tensor_of_many(tmp_path, shape) -> None:
    content = io.BytesIO()
    torch.save({"0.weight": torch.zeros(1).expand(shape)}, content)
    path = written(tmp_path / "t.pt", content.getvalue())
    with pytest.raises(TeacherError, match=r"claim to hold|damaged|one or two dimensions"):
        read_checkpoint(path)


@pytest.mark.found_in("teacher, .pt")
def test_a_tensor_without_numbers_is_refused(tmp_path) -> None:
    content = io.BytesIO()
    torch.save({"0.weight": torch.empty((2, 2), device="meta")}, content)
    with pytest.raises(TeacherError, match="must be a dense floating-point tensor"):
        read_checkpoint(written(tmp_path / "t.pt", content.getvalue()))


@pytest.mark.found_in("teacher, .pt", "module of AgentFarm")
@pytest.mark.parametrize("read", [read_checkpoint, read_pickled_module, is_pickled_module])
def test_a_zip_bomb_is_refused_before_it_is_opened(tmp_path, read) -> None:
    entries = [zips.bomb("x/data.pkl", 2**20), zips.plain("x/version", b"3\n")]
    with pytest.raises(TeacherError, match="is compressed, which such a file never is"):
        read(written(tmp_path / "t.pt", zips.pack(entries)))
    stored = zips.Member("x/data.pkl", b"\x80\x02}.", GIGABYTE, 0)
    with pytest.raises(TeacherError, match="claims to hold 1,073,741,82"):
        read(written(tmp_path / "t.pt", zips.pack([stored])))
    locked = zips.Member("x/data.pkl", b"\x80\x02}.", 4, 0, flags=1)
    with pytest.raises(TeacherError, match="is encrypted"):
        read(written(tmp_path / "t.pt", zips.pack([locked])))


@pytest.mark.found_in("teacher, .pt")
def test_a_name_cannot_keep_torch_busy_with_its_own_message(tmp_path) -> None:
    pickled = b"\x80\x02cos\n" + b"x" * 10**5 + b"\n."
    with pytest.raises(TeacherError, match="asks for a name of 100,00"):
        read_checkpoint(written(tmp_path / "t.pt", torch_archive(pickled)))


@pytest.mark.found_in("teacher, .pt", "teacher, .pt before torch 1.6", "module of AgentFarm")
def test_tuples_that_hold_one_another_twice_are_refused(tmp_path) -> None:
    laughs = b"\x80\x02}(" + b"N" + b"2\x86" * 60 + b"Nu."  # a key that takes 2**60 steps to hash
    for read in (read_checkpoint, read_pickled_module):
        with pytest.raises(TeacherError, match="hold one another too often"):
            read(written(tmp_path / "t.pt", torch_archive(laughs)))


def test_what_a_pickle_holds_is_counted_as_it_is() -> None:
    for value in ({"a": [1, 2, (3, 4)]}, [[]] * 100, {"x": {1: 2}, "y": "z" * 999}):
        for protocol in range(5):
            pickled = pickle.dumps(value, protocol)
            check_pickle(io.BytesIO(pickled), len(pickled))
    loop: list[object] = []
    loop.append(loop)
    check_pickle(io.BytesIO(pickle.dumps(loop, 2)), 100)


@pytest.mark.found_in("module of AgentFarm")
def test_a_module_in_itself_many_times_is_refused(tmp_path) -> None:
    farm = b"cfarm.core.decision.base_dqn\nBaseQNetwork\n)R"
    state = b"}(X\x0b\x00\x00\x00_parameters}X\x08\x00\x00\x00_modules}(X\x01\x00\x00\x00a%b"
    state += b"X\x01\x00\x00\x00b%buu"
    module = farm + b"q\x01" + state.replace(b"%b", b"h\x01") + b"b."
    path = written(tmp_path / "m.pt", torch_archive(b"\x80\x02" + module))
    with pytest.raises(TeacherError, match="modules in one another"):
        read_pickled_module(path)


# --- states ---


@pytest.mark.found_in("states, .npy")
def test_a_shape_of_more_numbers_than_can_be_counted_is_refused(tmp_path) -> None:
    good = samples.states()[0]
    header = good[10:128].replace(b"(64, 4), }", b"(4294967296, 4294967296), }")[:118]
    path = written(tmp_path / "s.npy", good[:10] + header[:-1] + b"\n" + good[128:])
    with pytest.raises(StatesError, match="cannot be read"):
        load_states(path, 4)


@pytest.mark.found_in("states of a stage, .npz", "states of a run, .npz")
@pytest.mark.parametrize("method", [8, 12, 14])
def test_states_in_an_archive_are_not_larger_than_they_can_be(tmp_path, method) -> None:
    member = zips.bomb("train.npy", 2**27) if method == 8 else None
    member = member or zips.Member("train.npy", b"x", 1, 0, method)
    path = written(tmp_path / "s.npz", zips.pack([member]))
    with pytest.raises(StageError, match=r"claims to hold|is compressed"):
        _read_archive(path)
    with pytest.raises(RunDirectoryError, match=r"claims to hold|is compressed"):
        _reread(path, 4)


@pytest.mark.found_in("states of a stage, .npz", "states of a run, .npz")
def test_the_header_of_an_array_cannot_claim_more_than_there_is(tmp_path) -> None:
    npy = samples.states()[0].replace(b"(64, 4), }      ", b"(64000000, 4), }")
    path = tmp_path / "s.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.npy", npy)
        archive.writestr("heldout.npy", npy)
    with pytest.raises(StageError, match="has 256 numbers"):
        _read_archive(path)


@pytest.mark.found_in("states, .npy", "states of a stage, .npz", "states of a run, .npz")
def test_a_header_of_python_2_is_read_without_a_word(tmp_path) -> None:
    npy = samples.states()[0].replace(b"(64, 4), } ", b"(64L, 4), }")
    assert load_states(written(tmp_path / "s.npy", npy), 4).shape == (64, 4)
    archive = zips.pack([zips.plain("states.npy", npy)])
    assert _reread(written(tmp_path / "s.npz", archive), 4).shape == (64, 4)


# --- runs ---


@pytest.mark.found_in("journal")
@pytest.mark.parametrize(
    "event", [b"{", b"[" * 5000, b"5", b"[]", b"\xff", b"9" * 5000], ids=range(6)
)
def test_a_sealed_line_that_is_no_event_is_told(tmp_path, event) -> None:
    with pytest.raises(JournalError, match="holds an event that is no"):
        list(read_journal(written(tmp_path / "j", with_events(event))))


@pytest.mark.found_in("journal")
def test_deep_nesting_in_a_half_written_line_is_no_crash(tmp_path) -> None:
    path = written(tmp_path / "j", with_events(b"{}") + b"[" * 100_000 + b"\n")
    assert list(read_journal(path)) == [{}]


@pytest.mark.found_in("journal, as resume reads it")
@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/b", "..", "", "a\0", 5])
def test_the_name_of_a_teacher_cannot_lead_out_of_the_run(name) -> None:
    with pytest.raises(ValueError, match="a teacher is called"):
        check_teachers([{"name": name, "sha256": "0", "source": ""}])


@pytest.mark.found_in("journal, as status reads it", "journal, as resume reads it")
@pytest.mark.parametrize(
    "event",
    [
        {"type": "stage", "stage": "x", "rows": [{"run": "r", "kind": "child", "generation": "1"}]},
        {"type": "stage", "stage": "x", "rows": [{"x": 1}]},
        {"type": "stage", "stage": "x", "rows": 5},
        {"type": "stage", "rows": []},
        {"type": "stage", "stage": "teachers", "rows": [], "teachers": [{"name": "../x"}]},
        {"type": "result", "phase": "children"},
    ],
)
def test_an_event_of_other_types_is_told(tmp_path, event) -> None:
    for name, content in samples.run().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "journal.jsonl").write_bytes(with_events(json.dumps(event).encode()))
    with pytest.raises(JournalError, match="does not understand"):
        read_run(tmp_path)


@pytest.mark.found_in("champion.json")
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 10**5, b'{"genome": 5}'])
def test_a_damaged_summary_is_as_good_as_none(tmp_path, content) -> None:
    assert _read_summary(written(tmp_path / "champion.json", content)) is None
    good = samples.summaries()[0]
    assert _read_summary(written(tmp_path / "champion.json", good)) is not None
    odd = good.replace(b'"kind":"child"', b'"kind":"\\ud800"')
    assert _read_summary(written(tmp_path / "champion.json", odd)) is None


@pytest.mark.found_in("journal, as resume reads it")
def test_billions_of_generations_are_not_looked_for_all_at_once(tmp_path) -> None:
    config = RunConfig.model_validate({"evolution": {"generations": 10**12}})
    with RunDirectory.open(tmp_path / "run", config) as directory:
        assert crowned(directory) is None


@pytest.mark.found_in("recipes.csv")
@pytest.mark.parametrize("cell", [b"x" * 200_000, b"nan", b""])
def test_cells_of_recipes_that_hold_no_number_are_told(tmp_path, cell) -> None:
    content = samples.recipes()[0].replace(b"0.875", cell)
    with pytest.raises(RunDirectoryError, match="is damaged"):
        read_table(written(tmp_path / "recipes.csv", content))


@pytest.mark.found_in("leaderboard")
def test_a_leaderboard_of_very_many_columns_is_told(tmp_path) -> None:
    header = ",".join(["schema_version", *(f"c{i}" for i in range(100_000))])
    path = written(tmp_path / "leaderboard.csv", f"{header}\n".encode())
    with pytest.raises(LeaderboardError, match="at most 1,000 columns"):
        load_leaderboard([path])


@pytest.mark.found_in("leaderboard")
def test_rows_without_a_kind_or_a_status_are_shown(tmp_path, capsys) -> None:
    names = [*FIXED, "agreement_0"]
    cells = {"schema_version": str(SCHEMA_VERSION), "genome": "3f9c1a7be210"}
    row = cells | {"fitness_holdout": "3.5", "fitness": "2.5"}
    lines = [",".join(names), ",".join(row.get(name, "") for name in names)]
    path = written(tmp_path / "leaderboard.csv", ("\n".join(lines) + "\n").encode())
    print_finish(path)
    assert "3f9c1a7be210" in capsys.readouterr().out


@pytest.mark.found_in("configuration")
def test_a_configuration_holds_whole_characters_and_is_no_book(tmp_path) -> None:
    path = written(tmp_path / "c.yaml", b'name: "\\ud800"\n')
    with pytest.raises(ConfigError, match="surrogates not allowed"):
        load_config(path)
    path = written(tmp_path / "c.yaml", b"# long\n" * 200_000)
    with pytest.raises(ConfigError, match="at most 1,000,000 characters"):
        load_config(path)


@pytest.mark.found_in("teacher of a run")
def test_a_teacher_of_a_run_without_its_source_is_told(tmp_path) -> None:
    spec = samples.SPECS[0]
    for extra in ({}, {"source": "x"}, {"source": "x", "steps": None}, {"source": 5, "steps": 5}):
        path = teacher_path(tmp_path, "t")
        save_weights(path, spec, samples.weights_of(spec), extra)
        with pytest.raises(RunDirectoryError, match="expected the source and steps of a teacher"):
            _reload(tmp_path, {"name": "t", "sha256": sha256_of(path)})


# --- stages ---


def with_a_search(folder: Path) -> Path:
    for name, content in stage_files.files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.found_in("report of a child, eval_report.json")
@pytest.mark.parametrize(
    "report", [{}, {"returns": 5}, {"returns": {}, "reason": 5}, {"returns": {"values": 3}}]
)
def test_a_report_without_what_rows_are_made_of_is_made_again(tmp_path, report) -> None:
    path = with_a_search(tmp_path) / stage_files.child_file("eval_report.json")
    stage_files.go_on_with_report(path)
    path.write_text(json.dumps(report))
    with pytest.raises(StageError, match="a child is to be made again"):
        stage_files.go_on_with_report(path)


@pytest.mark.found_in("child of a search, run_config.json")
@pytest.mark.parametrize("changed", [{"crossover": {"x": 1}}, {"finetune": 5}, {"states": None}])
def test_a_child_whose_description_lacks_a_field_is_told(tmp_path, changed) -> None:
    path = with_a_search(tmp_path) / stage_files.child_file("run_config.json")
    assert described_child(path)[1].index == 0
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changed))
    with pytest.raises(StageError, match="a field is missing or of another type"):
        described_child(path)


@pytest.mark.found_in("search_config.json")
def test_settings_of_any_length_are_refused_in_a_few_words(tmp_path) -> None:
    path = with_a_search(tmp_path) / stage_files.SETTINGS
    settings = json.loads(path.read_bytes())
    path.write_text(json.dumps(dict.fromkeys(settings, "x" * 5000) | {"y" * 5000: 1}))
    with pytest.raises(StageError, match="holds a search with other settings") as caught:
        stage_files.go_on(path)
    assert len(str(caught.value)) < LONGEST


# --- float weights ---


def test_weights_may_keep_a_few_levels_of_values(tmp_path) -> None:
    spec = samples.SPECS[0]
    nested: list[object] = []
    for _ in range(50):
        nested = [nested]
    save_weights(tmp_path / "w", spec, samples.weights_of(spec), {"nested": nested})
