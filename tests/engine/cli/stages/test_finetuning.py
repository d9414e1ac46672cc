from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.cli import main
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.roles import save_role, sidecar
from engine.stages.state_sets import StateSet, save_state_set

SPEC = teacher_spec(8, 4, 16)
SHORT = ("--n-states", "200", "--epochs", "1")
# Source: the sixteen fields that AgentFarm's sidecar keeps.
# fmt: off
FIELDS = {
    "learning_rate", "epochs", "batch_size", "max_grad_norm", "val_fraction", "seed", "loss_fn",
    "temperature", "temp_decay", "alpha", "lr_schedule_patience", "lr_schedule_factor",
    "quantization_applied", "optimizer", "optimizer_kwargs", "early_stopping_patience",
}
# fmt: on


def run(capsys, *arguments: object) -> tuple[object, str, str]:
    """Return exit code, output and errors of the command."""
    with pytest.raises(SystemExit) as exited:
        main.main(["finetune", *map(str, arguments)])
    captured = capsys.readouterr()
    return exited.value.code, captured.out, captured.err


def parent(path: Path, seed: int, spec=SPEC, broken: bool = False, **about: object) -> Path:
    """Write a network with its sidecar, or, where it is broken, with NaN and without one."""
    weights = initial_weights(spec, seed)
    path.parent.mkdir(exist_ok=True)
    if broken:
        weights["network.0.bias"][0] = np.nan
        torch.save({name: torch.from_numpy(tensor) for name, tensor in weights.items()}, path)
    else:
        save_role(path, Network(spec, weights), sidecar("student", spec, 0.05, **about))
    return path


@pytest.fixture
def parents(tmp_path: Path) -> list[object]:
    """Return the flags of two parents."""
    a, b = (parent(tmp_path / "parents" / f"{name}.pt", i) for i, name in enumerate("ab"))
    return ["--parent-a-ckpt", a, "--parent-b-ckpt", b]


def content(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_child_is_written_before_and_after_with_its_states(capsys, tmp_path, parents) -> None:
    out = tmp_path / "out"
    code, text, err = run(capsys, *parents, *SHORT, "--output-dir", out)
    assert (code, err) == (0, "")
    assert {path.name for path in out.iterdir()} == {
        "child.pt",
        "child.pt.json",
        "child_finetuned.pt",
        "child_finetuned.pt.json",
        "states.npz",
    }
    a, b = (torch.load(parents[i], weights_only=True) for i in (1, 3))
    raw = torch.load(out / "child.pt", weights_only=True)
    for name, tensor in raw.items():
        torch.testing.assert_close(tensor, (a[name] + b[name]) / 2)  # weighted crossover, 0.5
    about = content(out / "child_finetuned.pt.json")
    assert FIELDS | {"final_temperature"} <= set(about["config"])
    assert about["config"]["seed"] == about["seed"] == 42
    assert about["crossover"] == {"mode": "weighted", "alpha": 0.5, "seed": 42, "align": "none"}
    assert about["architecture"]["dropout"] == 0.05
    for name, path in {"parent_a": parents[1], "parent_b": parents[3]}.items():
        recorded = about["sources"][name]
        assert (out / recorded["path"]).resolve() == path.resolve()
        assert recorded["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert about["sources"]["reference_a"] == about["sources"]["parent_a"]
    with np.load(out / "states.npz") as states:
        expected = np.random.default_rng(42).standard_normal((200, 8)).astype(np.float32)
        np.testing.assert_array_equal(states["train"], expected)
    heldout = about["metrics"]["heldout"]
    assert heldout["states"]["held_out"] is True
    assert set(heldout["reference_a"]) == {"before", "after", "int8"}
    assert heldout["int8_retention"] > 0.9
    assert "agreement" in text
    assert f"wrote {out / 'child_finetuned.pt'}" in text


def test_the_same_command_writes_the_same_bytes(capsys, tmp_path, parents) -> None:
    written = []
    for name in ("one", "other"):
        flags = ("--crossover-mode", "random", "--quantization-applied", "ptq_dynamic")
        code, _, _ = run(capsys, *parents, *SHORT, *flags, "--output-dir", tmp_path / name)
        assert code == 0
        written.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert len(written[0]) == 7
    assert written[0] == written[1]


def test_without_files_the_parents_are_random_and_written(capsys, tmp_path) -> None:
    sizes = ("--input-dim", "3", "--output-dim", "2", "--hidden-size", "16")
    code, _, _ = run(capsys, *SHORT, *sizes, "--output-dir", tmp_path)
    assert code == 0
    about = content(tmp_path / "child_finetuned.pt.json")
    assert about["sources"]["parent_a"]["path"] == "parent_A.pt"
    assert content(tmp_path / "parent_B.pt.json")["architecture"]["hidden"] == [16, 16]
    assert about["architecture"]["input_dim"] == 3
    assert about["architecture"]["dropout"] == 0.1


@pytest.mark.parametrize(
    ("applied", "files", "measured_as"),
    [
        ("qat_float", set(), "int8"),
        ("ptq_dynamic", {"child_finetuned_int8.pt", "child_finetuned_int8.pt.json"}, "int8"),
    ],
)
def test_int8_is_in_the_loop_and_exported(
    capsys, tmp_path, parents, applied, files, measured_as
) -> None:
    out = tmp_path / "out"
    flags = ("--quantization-applied", applied, "--output-dir", out)
    code, _, _ = run(capsys, *parents, *SHORT, *flags)
    assert code == 0
    assert {path.name for path in out.iterdir() if "int8" in path.name} == files
    assert content(out / "child_finetuned.pt.json")["metrics"]["measured_as"] == measured_as
    assert torch.load(out / "child_finetuned.pt")["network.0.weight"].dtype == torch.float32
    if files:
        tensors = torch.load(out / "child_finetuned_int8.pt", weights_only=True)
        assert tensors["network.0.weight"].dtype == torch.int8
        sources = content(out / "child_finetuned_int8.pt.json")["sources"]
        assert sources["float"]["path"] == "child_finetuned.pt"


def test_static_quantization_writes_int8_activations_too(capsys, tmp_path, parents) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    out = tmp_path / "out"
    flags = ("--quantization-applied", "ptq_static", "--output-dir", out)
    code, text, err = run(capsys, *parents, *SHORT, *flags)
    assert (code, err) == (0, "")
    assert f"wrote {out / 'child_finetuned_int8.onnx'}" in text
    graph = onnx.load(str(out / "child_finetuned_int8.onnx")).graph
    assert "QuantizeLinear" in {node.op_type for node in graph.node}
    heldout = content(out / "child_finetuned.pt.json")["metrics"]["heldout"]
    assert heldout["reference_a"]["static"]["action_agreement"] > 0


def test_the_child_may_imitate_both_or_others(capsys, tmp_path, parents) -> None:
    teacher = parent(tmp_path / "teacher.pt", 5, teacher_spec(8, 4, 32))
    both = ("--reference", "both", "--teacher-weight-a", "0.25", "--reference-a-ckpt", teacher)
    code, text, _ = run(capsys, *parents, *SHORT, *both, "--output-dir", tmp_path / "out")
    assert code == 0
    about = content(tmp_path / "out" / "child_finetuned.pt.json")
    assert about["shares"] == [0.25, 0.75]
    assert about["sources"]["reference_a"]["path"] == "../teacher.pt"
    assert about["sources"]["reference_b"] == about["sources"]["parent_b"]
    assert {"reference_a", "reference_b"} <= set(about["metrics"]["heldout"])
    assert "against reference_b" in text


def test_flags_win_over_yaml_and_yaml_over_defaults(capsys, tmp_path, parents) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "crossover_child_finetune: {epochs: 3, batch_size: 50, temperature: 2, max_grad_norm: 5}",
        encoding="utf-8",
    )
    flags = ("--config-yaml", path, "--epochs", "2", "--max-grad-norm", "0", "--n-states", "100")
    code, _, _ = run(capsys, *parents, *flags, "--output-dir", tmp_path / "out")
    assert code == 0
    config = content(tmp_path / "out" / "child_finetuned.pt.json")["config"]
    found = [config[name] for name in ("epochs", "batch_size", "temperature", "max_grad_norm")]
    assert found == [2, 50, 2.0, None]
    assert config["learning_rate"] == 1e-3


def test_a_mistake_in_yaml_is_one_line(capsys, tmp_path, parents) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("crossover_child_finetune: {learning_rat: 5.0}", encoding="utf-8")
    code, _, err = run(capsys, *parents, "--config-yaml", path, "--output-dir", tmp_path / "out")
    assert code == 2
    assert err.count("\n") == 1
    assert "settings.yaml: crossover_child_finetune.learning_rat is not a setting" in err


def test_the_states_of_the_parents_are_used_and_kept_apart(capsys, tmp_path) -> None:
    rng = np.random.default_rng(3)
    train, heldout = (rng.standard_normal((n, 8)).astype(np.float32) for n in (150, 40))
    states = StateSet(train, heldout, "replay.npy", 42)
    flags = []
    for i, name in enumerate("ab"):
        path = parent(tmp_path / "parents" / f"{name}.pt", i, states=states.record())
        flags += [f"--parent-{name}-ckpt", path]
    save_state_set(tmp_path / "parents", states)
    code, text, _ = run(capsys, *flags, "--epochs", "1", "--output-dir", tmp_path / "out")
    assert code == 0
    assert "states: replay.npy, 150 to train, 40 held out" in text
    recorded = content(tmp_path / "out" / "child_finetuned.pt.json")["states"]
    assert recorded == states.record()
    # Other states than theirs would replace those beside them.
    np.save(tmp_path / "other.npy", rng.standard_normal((100, 8)).astype(np.float32))
    other = ("--states-file", tmp_path / "other.npy", "--output-dir", tmp_path / "parents")
    code, _, err = run(capsys, *flags, "--epochs", "1", *other)
    assert code == 2
    assert "would be overwritten with others; choose another --output-dir" in err


def test_a_child_of_an_environment_learns_from_what_its_parents_see(capsys, tmp_path) -> None:
    spec = teacher_spec(4, 2, 16)
    flags: list[object] = []
    for i, name in enumerate("ab"):
        path = parent(tmp_path / f"{name}.pt", i, spec, environment="CartPole-v1")
        flags += [f"--parent-{name}-ckpt", path]
    code, text, _ = run(capsys, *flags, *SHORT, "--output-dir", tmp_path / "out")
    assert code == 0
    assert "states: CartPole-v1: played by parent_A, parent_B, 200 to train" in text
    assert content(tmp_path / "out" / "child_finetuned.pt.json")["environment"] == "CartPole-v1"


def test_aligned_parents_have_another_child(capsys, tmp_path, parents) -> None:
    children = []
    for align in ("none", "auto"):
        out = tmp_path / align
        code, _, _ = run(capsys, *parents, *SHORT, "--align", align, "--output-dir", out)
        assert code == 0
        assert content(out / "child.pt.json")["crossover"]["align"] == align
        children.append((out / "child.pt").read_bytes())
    assert children[0] != children[1]


def test_parents_that_do_not_fit_are_refused(capsys, tmp_path, parents) -> None:
    out = ("--output-dir", tmp_path / "out")
    others = {
        "network.0.weight": parent(tmp_path / "wide.pt", 1, teacher_spec(8, 4, 32)),
        "give teachers of one task": parent(tmp_path / "task.pt", 1, teacher_spec(7, 4, 16)),
        "LayerNorm": parent(tmp_path / "plain.pt", 1, replace(SPEC, norm="none")),
        "network.0.bias holds NaN": parent(tmp_path / "nan.pt", 1, broken=True),
    }
    for message, path in others.items():
        code, _, err = run(capsys, *parents[:3], path, *SHORT, *out)
        assert code == 2
        assert message in err
        assert str(path) in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--crossover-alpha", "1.5"], "is not in the range 0<=x<=1"),
        (["--crossover-mode", "slerp"], "is not one of"),
        (["--epochs", "0"], "is not in the range x>=1"),
        (["--lr", "0"], "is not in the range x>0"),
        (["--lr", "nan"], "is not a finite number"),
        (["--lr-factor", "1"], "'--lr-factor': 1.0 is not in the range 0<x<1"),
        (["--val-fraction", "1"], "'--val-fraction': 1.0 is not in the range 0<=x<1"),
        (["--n-states", "1"], "--n-states: expected at least 2"),
        (["--hidden-size", "64"], "--hidden-size (--parent-hidden) is 64, but parent_A"),
        (["--teacher-weight-a", "0.5"], "need --reference both"),
        (["--reference-b-ckpt", "x.pt"], "need --reference both"),
        (["--reference-a-ckpt", "none.pt"], "none.pt: expected the file of a trained Q-network"),
        (["--states-file", "none.npy"], "none.npy"),
        (["--env", "CartPole-v1"], "CartPole-v1 has 4 inputs and 2 actions, but parent_A"),
    ],
)
def test_bad_flags_are_one_error(capsys, tmp_path, parents, flags, message) -> None:
    code, _, err = run(capsys, *parents, *flags, "--output-dir", tmp_path / "out")
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()
    _, _, err = run(capsys, *parents[:2])
    assert "give both --parent-a-ckpt and --parent-b-ckpt, or neither" in err


@pytest.mark.parametrize("n_rows", [0, 1])
def test_a_states_file_without_enough_rows_is_refused(capsys, tmp_path, parents, n_rows) -> None:
    np.save(tmp_path / "s.npy", np.zeros((n_rows, 8), np.float32))
    flags = ("--states-file", tmp_path / "s.npy", "--output-dir", tmp_path / "out")
    code, _, err = run(capsys, *parents, *flags)
    assert code == 2
    assert str(tmp_path / "s.npy") in err
    assert err.count("\n") == 1


def test_a_parent_is_not_overwritten(capsys, tmp_path) -> None:
    flags = []
    for i, name in enumerate(("child_finetuned", "other")):
        flags += [f"--parent-{'ab'[i]}-ckpt", parent(tmp_path / f"{name}.pt", i)]
    before = flags[1].read_bytes()
    code, _, err = run(capsys, *flags, *SHORT, "--output-dir", tmp_path)
    assert code == 2
    assert "child_finetuned.pt) would be overwritten; choose another --output-dir" in err
    assert flags[1].read_bytes() == before
