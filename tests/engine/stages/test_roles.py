"""Networks with their sidecars: written, read, followed to their sources, and damaged."""

import hashlib
import json
import platform
from importlib.metadata import version

import numpy as np
import pytest
import torch

from engine.errors import StageError, TeacherError
from engine.stages import roles
from engine.stages.networks import STUDENT_DROPOUT, Network, initial_weights, student_spec
from engine.stages.networks import teacher_spec as make_teacher_spec
from engine.stages.roles import (
    Role,
    environment_of,
    lineage,
    load_role,
    load_source,
    save_role,
    sidecar,
)
from populations.errors import GenomeValueError
from populations.genome import Genome, Lineage
from populations.network import NetworkSpec

torch.set_num_threads(1)

SPEC = student_spec(make_teacher_spec(8, 4, 64))


def network(seed=0, spec=SPEC):
    return Network(spec, initial_weights(spec, seed))


def saved(path, seed=0, **fields):
    """Write a student and return it as read."""
    save_role(path, network(seed), sidecar("student", SPEC, STUDENT_DROPOUT, **fields))
    return load_role(path.stem, path)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_sidecar_tells_architecture_and_versions():
    assert sidecar("student", SPEC, 0.05, seed=3) == {
        "format": "cultivar-pipeline",
        "schema_version": 1,
        "kind": "student",
        "architecture": {
            "observation_shape": [8],
            "hidden": [32, 32],
            "n_actions": 4,
            "norm": "layer",
            "dropout_slots": True,
            "dropout": 0.05,
            "input_dim": 8,
            "output_dim": 4,
            "hidden_size": 32,
        },
        "versions": {
            "python": platform.python_version(),
            "cultivar": version("cultivar"),
            "torch": version("torch"),
            "numpy": version("numpy"),
        },
        "seed": 3,
    }


@pytest.mark.parametrize(("hidden", "size"), [((), None), ((3, 4), None), ((5,), 5)])
def test_sidecar_names_one_hidden_size_only_where_there_is_one(hidden, size):
    spec = NetworkSpec((2,), hidden, 2)
    assert sidecar("teacher", spec, 0.1)["architecture"]["hidden_size"] == size


def test_a_saved_network_is_read_back_with_its_sidecar(tmp_path):
    path = tmp_path / "new" / "student_A.pt"
    written = sidecar("student", SPEC, 0.05, seed=1, metrics={"loss": float("nan")})
    save_role(path, network(), written)
    role = load_role("student_A", path)
    assert (role.name, role.path, role.format, role.genome) == ("student_A", path, "float32", None)
    assert role.network.spec == SPEC
    for name, tensor in network().weights.items():
        np.testing.assert_array_equal(role.network.weights[name], tensor)
    assert role.sha256 == sha256(path)
    assert role.sidecar == {**written, "metrics": {"loss": None}, "sha256": sha256(path)}
    assert json.loads((tmp_path / "new" / "student_A.pt.json").read_text()) == role.sidecar
    assert not role.unsafe


def test_a_saved_genome_is_read_back_as_int8(tmp_path):
    genome = Genome.from_weights(SPEC, network().weights, Lineage("student", 0, 0))
    path = tmp_path / "student_A_int8.pt"
    save_role(path, genome, sidecar("quantized", SPEC, 0.05))
    role = load_role("student_A", path)
    assert role.format == "int8"
    assert role.genome.id == genome.id
    for name, tensor in genome.to_weights().items():
        np.testing.assert_array_equal(role.network.weights[name], tensor)


def test_equal_networks_have_equal_files_and_sidecars_in_any_folder(tmp_path):
    for folder in ("one", "two"):
        teacher = saved(tmp_path / folder / "parents" / "parent_A.pt")
        directory = tmp_path / folder / "students"
        saved(directory / "student_A.pt", 1, sources={"teacher": teacher.source(directory)})
    for file in ("student_A.pt", "student_A.pt.json"):
        first, second = (tmp_path / folder / "students" / file for folder in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()


def test_nan_is_read_for_validators_but_never_written(tmp_path):
    weights = network().weights | {"network.0.bias": np.full(32, np.nan, np.float32)}
    path = tmp_path / "child.pt"
    torch.save({name: torch.from_numpy(tensor) for name, tensor in weights.items()}, path)
    assert np.isnan(load_role("child", path).network.weights["network.0.bias"]).all()
    with pytest.raises(GenomeValueError, match=r"out\.pt: network\.0\.bias holds NaN"):
        save_role(tmp_path / "out.pt", Network(SPEC, weights), {})


@pytest.mark.parametrize("step", ["write_json", "write_atomically"])
def test_a_kill_between_the_two_files_is_mended_by_writing_again(tmp_path, monkeypatch, step):
    path = tmp_path / "student_A.pt"
    saved(path, 0)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(roles, step, killed)
        with pytest.raises(KeyboardInterrupt):
            saved(path, 1)
    with pytest.raises(TeacherError, match="but there is none"):
        load_role("student_A", path)
    assert saved(path, 1).sidecar["sha256"] == sha256(path)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StageError, match=r"file/student_A\.pt: cannot be written: "):
        save_role(tmp_path / "file" / "student_A.pt", network(), {})


@pytest.mark.parametrize("content", ['{"config": {"epochs": 3}, "metrics": {}}', "[1, 2]"])
def test_sidecars_of_others_count_as_none(tmp_path, content):
    path = tmp_path / "student_A.pt"
    saved(path)
    (tmp_path / "student_A.pt.json").write_text(content)
    assert load_role("student_A", path).sidecar == {}


def test_a_network_without_a_sidecar_has_an_empty_one(tmp_path):
    saved(tmp_path / "student_A.pt")
    (tmp_path / "student_A.pt.json").unlink()
    assert load_role("student_A", tmp_path / "student_A.pt").sidecar == {}


def changed(**fields):
    return lambda text: json.dumps(json.loads(text) | fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:40], r"expected the JSON sidecar of student_A\.pt, but it is damaged"),
        (lambda text: "", "it is damaged"),
        (lambda text: "[" * 100_000, "it is damaged"),
        (changed(schema_version=2), "expected schema_version 1, not 2; read it with the version"),
        (
            changed(sha256="abc"),
            r"a file with SHA-256 abc, but student_A\.pt has [0-9a-f]{64}; one",
        ),
        (changed(sha256=None), "a file with SHA-256 None"),
        (changed(sources=[1]), r"expected sources to be an object, not \[1\]; it was changed"),
        (changed(sources={"teacher": "a.pt"}), r"sources\.teacher to be an object, not 'a\.pt'"),
        (changed(sources={"teacher": {"path": 3}}), r"sources\.teacher\.path to be a text, not 3"),
        (
            changed(sources={"teacher": {"path": "a.pt", "sha256": []}}),
            r"sources\.teacher\.sha256 to be a text, not \[\]",
        ),
        (changed(states=5), "states to be an object, not 5"),
        (changed(environment=["CartPole-v1"]), "environment to be a text, not "),
        (changed(architecture=[]), r"architecture to be an object, not \[\]"),
        (changed(architecture=None), "architecture to be an object, not None"),
        (changed(architecture={"dropout": "x"}), r"architecture\.dropout to be a number from 0 to"),
        (changed(architecture={"dropout": None}), r"architecture\.dropout .*, not None"),
        (changed(architecture={"dropout": 1}), r"architecture\.dropout .*less than 1, not 1"),
        (changed(architecture={"dropout": float("nan")}), r"architecture\.dropout .*, not nan"),
        (changed(states={"train_sha256": [1]}), r"states\.train_sha256 to be a text, not \[1\]"),
        (
            changed(states={"source": "synthetic", "n_train": 10**13}),
            r"states\.n_train to be a whole number from 0 to 10000000, not 10000000000000",
        ),
        (changed(states={"n_heldout": -1}), r"states\.n_heldout to be a whole number from 0, not"),
        (changed(states={"n_inputs": True}), r"states\.n_inputs to be a whole number"),
        (changed(states={"seed": 1.5}), r"states\.seed to be a whole number"),
        (changed(seed="7"), "seed to be a whole number from 0, not '7'"),
        (changed(config="x"), "config to be an object"),
        (changed(replay_states={"file": 1}), r"replay_states\.file to be a text, not 1"),
    ],
)
def test_a_damaged_sidecar_is_named_with_what_to_do(tmp_path, change, message):
    path, file = tmp_path / "student_A.pt", tmp_path / "student_A.pt.json"
    saved(path, environment="CartPole-v1", sources={}, states=None)
    file.write_text(change(file.read_text()))
    with pytest.raises(StageError, match=rf"student_A\.pt\.json: .*{message}") as caught:
        load_role("student_A", path)
    assert "remove" in str(caught.value) or "read it with" in str(caught.value)


def test_a_replaced_network_does_not_go_with_the_old_sidecar(tmp_path):
    saved(tmp_path / "student_A.pt", 0)
    saved(tmp_path / "student_B.pt", 1)
    (tmp_path / "student_B.pt").replace(tmp_path / "student_A.pt")
    with pytest.raises(StageError, match="one of them was replaced: remove the sidecar"):
        load_role("student_A", tmp_path / "student_A.pt")


def test_missing_and_truncated_networks_are_refused(tmp_path):
    with pytest.raises(TeacherError, match=r"student_A\.pt: expected the file of a trained"):
        load_role("student_A", tmp_path / "student_A.pt")
    saved(tmp_path / "student_A.pt")
    content = (tmp_path / "student_A.pt").read_bytes()
    (tmp_path / "student_A.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(TeacherError, match=r"student_A\.pt: .*(truncated|damaged)"):
        load_role("student_A", tmp_path / "student_A.pt")


def test_whole_modules_need_the_flag_and_are_marked(tmp_path):
    path = tmp_path / "parent_A.pt"
    torch.save(torch.nn.Sequential(torch.nn.Linear(4, 2)), path)
    with pytest.raises(TeacherError, match="--allow-unsafe-unpickle"):
        load_role("parent_A", path)
    assert load_role("parent_A", path, allow_unsafe=True).unsafe


def test_sources_are_found_from_the_folder_of_the_sidecar(tmp_path, monkeypatch):
    teacher = saved(tmp_path / "parents" / "parent_A.pt")
    monkeypatch.chdir(tmp_path)
    student = saved(
        tmp_path / "students" / "student_A.pt",
        1,
        sources={"teacher": teacher.source(tmp_path / "students")},
    )
    assert student.sidecar["sources"]["teacher"]["path"] == "../parents/parent_A.pt"
    found = load_source(student, "teacher", "parent_A")
    assert (found.name, found.sha256) == ("parent_A", teacher.sha256)
    assert load_source(student, "float", "float") is None
    assert load_source(teacher, "teacher", "parent_A") is None


def test_the_path_of_a_source_has_no_detour_in_it_but_goes_through_links(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    teacher = saved(tmp_path / "a" / "parent_A.pt", 1)
    folder = tmp_path / "b"
    student = saved(folder / "student_A.pt", 2, sources={"teacher": teacher.source(folder)})
    assert load_source(student, "teacher", "parent_A").path == tmp_path / "a" / "parent_A.pt"
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "link").symlink_to(folder)
    linked = load_role("student_A", tmp_path / "deep" / "er" / "link" / "student_A.pt")
    assert load_source(linked, "teacher", "parent_A").sha256 == teacher.sha256


def test_sources_that_are_gone_or_replaced_are_refused(tmp_path):
    teacher = saved(tmp_path / "parent_A.pt")
    student = saved(tmp_path / "student_A.pt", 1, sources={"teacher": teacher.source(tmp_path)})
    saved(tmp_path / "parent_A.pt", 2)
    with pytest.raises(StageError, match=r"parent_A\.pt: expected the teacher .* it was replaced"):
        load_source(student, "teacher", "parent_A")
    (tmp_path / "parent_A.pt").unlink()
    with pytest.raises(StageError, match=r"teacher that .*student_A\.pt\.json names, but there is"):
        load_source(student, "teacher", "parent_A")


def test_lineage_goes_through_all_sources_and_tells_what_is_missing(tmp_path):
    teacher = saved(tmp_path / "a" / "parent_A.pt", 0)
    imported = tmp_path / "b" / "parent_B.pt"
    saved(imported, 1)
    (tmp_path / "b" / "parent_B.pt.json").unlink()  # as if it came from elsewhere
    folder = tmp_path / "c"
    sources = {
        "a": teacher.source(folder),
        "b": load_role("b", imported).source(folder),
    }
    child = saved(folder / "child.pt", 2, sources=sources)
    tuned = saved(folder / "tuned.pt", 3, sources={"child": child.source(folder), **sources})
    found, missing = lineage(tuned)
    assert [(path.resolve().name, entry["sha256"]) for path, entry in found] == [
        ("c", tuned.sha256),
        ("c", child.sha256),
        ("a", teacher.sha256),
    ]
    assert missing == [f"{imported} has no sidecar"]
    saved(tmp_path / "a" / "parent_A.pt", 5)
    imported.unlink()
    found, missing = lineage(tuned)
    assert [entry["sha256"] for _, entry in found] == [tuned.sha256, child.sha256]
    assert len(missing) == 2
    assert missing[0].endswith("parent_A.pt was replaced")
    assert missing[1].endswith("parent_B.pt is not there any more")


def test_environment_is_the_one_that_all_who_name_one_agree_on():
    def role(environment):
        fields = {} if environment == "none" else {"environment": environment}
        return Role("x", None, network(), sidecar=fields)

    assert environment_of() is None
    assert environment_of(role("none"), role(None)) is None
    assert environment_of(role("CartPole-v1"), role(None), role("none")) == "CartPole-v1"
    assert environment_of(role("CartPole-v1"), role("CartPole-v1")) == "CartPole-v1"
    assert environment_of(role("CartPole-v1"), role("Acrobot-v1")) is None
