"""Every command in docs/pipeline.md runs as it is written there, in order, in one empty folder.

By default with small sizes, appended to each command: click takes the last value of a repeated
option. The slow test runs them as they are, and compares exit codes and verdicts with the table.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from engine.cli.main import COMMANDS, STAGES
from engine.stages.networks import Network
from engine.stages.roles import load_role

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
# Number, script, exit code and verdict of the rows of the table of what to expect.
EXPECTED = re.findall(
    r"^\| (\d+) \| `(\w+)\.py`.*? \| ([01]) \| (true|false|-) \|", PAGE, re.MULTILINE
)
# The commands of AgentFarm's pipeline document, which are ours to the letter.
STUDENTS = (
    "--parent-a-ckpt checkpoints/distillation/student_A.pt "
    "--parent-b-ckpt checkpoints/distillation/student_B.pt"
)
DOCUMENTED = (
    "run_dual_teacher_cartpole.py --output-dir checkpoints/issue8_run",
    "run_dual_teacher_cartpole.py --parent-a-ckpt checkpoints/cartpole/parent_A.pt "
    "--parent-b-ckpt checkpoints/cartpole/parent_B.pt --crossover-mode weighted "
    "--crossover-alpha 0.5 --finetune-epochs 15 --finetune-lr 5e-4 "
    "--finetune-teacher-weight-a 0.5 --output-dir checkpoints/issue8_run",
    "run_dual_teacher_cartpole.py --parent-a-ckpt checkpoints/cartpole/parent_A_int8.pt "
    "--parent-b-ckpt checkpoints/cartpole/parent_B_int8.pt --allow-unsafe-unpickle "
    "--output-dir checkpoints/issue8_run",
    "run_distillation.py --temperature 3.0 --alpha 1.0 --epochs 25 --lr 1e-3 --batch-size 64 "
    "--n-states 5000 --seed 42 --output-dir checkpoints/distillation",
    "quantize_distilled.py --checkpoint-dir checkpoints/distillation "
    "--output-dir checkpoints/quantized",
    "qat_distilled.py --checkpoint-dir checkpoints/distillation "
    "--output-dir checkpoints/quantized_qat --epochs 10 --lr 1e-4",
    f"finetune_child.py {STUDENTS} --crossover-mode weighted --crossover-alpha 0.5 "
    "--n-states 5000 --epochs 10 --lr 5e-4 --output-dir checkpoints/crossover",
    "validate_distillation.py --checkpoint-dir checkpoints/distillation "
    "--report-dir reports/distillation",
    "validate_quantized.py --checkpoint-dir checkpoints/quantized --allow-unsafe-unpickle "
    "--report-dir reports/quantized",
    f"validate_recombination.py {STUDENTS} --child-ckpt checkpoints/crossover/child_finetuned.pt "
    "--include-parent-baseline --report-dir reports/recombination",
    f"run_crossover_search.py {STUDENTS} --search-space minimal "
    "--output-dir reports/crossover_search",
    "benchmark_crossover.py --n-repeats 20",
    "compare_distillation_modes.py",
)
SMALL = {
    "run_dual_teacher_cartpole": "--train-episodes 4 --distill-epochs 1 --finetune-epochs 1 "
    "--n-states 64",
    "train_cartpole_parents": "--episodes 4 --eval-episodes 2",
    "run_cartpole_recombination": "--train-episodes 4 --finetune-epochs 1",
    "run_distillation": "--n-states 200 --epochs 2",
    "quantize_distilled": "--n-states 100",
    "qat_distilled": "--epochs 1",
    "finetune_child": "--n-states 200 --epochs 1",
    "validate_distillation": "--n-states 100",
    "validate_quantized": "--n-states 100",
    "validate_recombination": "--n-states 100",
    "run_crossover_search": "--n-states 100 --max-runs 4",
    "run_multi_gen_search": "--n-states 50 --max-runs 3",
    "compare_distillation_modes": "--n-states 200 --epochs 1",
    "benchmark_crossover": "--n-repeats 2",
}
REPORTS = {
    "run_dual_teacher_cartpole": "pipeline_report.json",
    "run_cartpole_recombination": "recombination_validation.json",
    "validate_distillation": "student_*_validation.json",
    "validate_quantized": "student_*_quant_report.json",
    "validate_recombination": "recombination_validation.json",
}


@dataclass(frozen=True)
class Done:
    """A command that has run.

    Attributes:
        line: The command.
        folder: Where it ran.
        code: Its exit code.
        out: What it printed.
        errors: What it printed on standard error.
    """

    line: str
    folder: Path
    code: int
    out: str
    errors: str

    def report(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text(encoding="utf-8"))


def execute(line: str, folder: Path, sizes: str = "") -> Done:
    """Run a line as a reader would, with this Python and the scripts of the checkout."""
    _, *arguments = shlex.split(f"{line} {sizes}")
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        env=inherited | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return Done(line, folder, done.returncode, done.stdout, done.stderr)


def script_of(line: str) -> str:
    return Path(line.split()[1]).stem


def folder_of(number: int) -> str:
    """Return where the table of files says that a command writes; empty for nowhere."""
    return next((where for numbers, where, _ in written() if number in numbers), "")


def written() -> Iterator[tuple[list[int], str, list[str]]]:
    """Yield the rows of the table of files: numbers of commands, folder, names."""
    for numbers, where, names in re.findall(
        r"^\| ([\d, ]+) \| `([\w/]+)` \| (.*) \|$", PAGE, re.MULTILINE
    ):
        plain, _, _ = names.partition(", and ")  # what follows is said in words
        yield (
            [int(one) for one in numbers.split(",")],
            where,
            [
                name.replace("{A,B}", letter)
                for name in re.findall(r"`([^`]+)`", plain)
                for letter in ("AB" if "{A,B}" in name else "A")
            ],
        )


def make_folder(folder: Path) -> Path:
    (folder / "scripts").symlink_to(ROOT / "scripts")
    return folder


class Reader:
    """Somebody who types the commands of the page, one after another, with small sizes."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self._done: list[Done] = []

    def up_to(self, index: int) -> Done:
        """Run what has not run yet, up to a command, and return how that went."""
        while len(self._done) <= index:
            line = LINES[len(self._done)]
            self._done.append(execute(line, self.folder, SMALL[script_of(line)]))
        return self._done[index]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(tmp_path_factory.mktemp("pipeline"))


def test_no_documented_command_is_left_out() -> None:
    ours = [" ".join(line.split()) for line in LINES]
    documented = [f"python scripts/{command}" for command in DOCUMENTED]
    assert [line for line in documented if line not in ours] == []
    assert len(ours) >= len(documented) + 3
    stages = {name for name, module in COMMANDS.items() if module.startswith(STAGES)}
    # Each stage is on the page, as a script that names its command.
    named = set()
    for script in {script_of(line) for line in ours}:
        source = (ROOT / "scripts" / f"{script}.py").read_text(encoding="utf-8")
        named |= set(re.findall(r'run_command\("([\w-]+)"\)', source))
    assert named == stages


def test_the_table_of_what_to_expect_has_a_row_for_each_command() -> None:
    assert [(int(number), script) for number, script, _, _ in EXPECTED] == list(
        enumerate(map(script_of, LINES), start=1)
    )


@pytest.mark.parametrize("index", range(len(LINES)), ids=[f"{script_of(one)}" for one in LINES])
def test_a_command_runs_and_leaves_what_the_page_says(reader, index) -> None:
    done = reader.up_to(index)
    script = script_of(LINES[index])
    assert done.code in (0, 1), done.errors
    assert "Traceback" not in done.errors
    # Only a verdict may make a command fail.
    assert done.code == 0 or script in REPORTS, done.errors
    rows = [(where, names) for numbers, where, names in written() if index + 1 in numbers]
    for where, names in rows:
        assert names
        for name in names:
            assert (done.folder / where / name).is_file(), f"{name} is not in {where}"
            if name.endswith(".pt"):
                assert (done.folder / where / f"{name}.json").is_file()
    if script in REPORTS:
        verdict = passed(done.folder, index)
        assert done.code == (0 if verdict else 1)
    if script in AFTER:
        AFTER[script](done)


def passed(folder: Path, index: int) -> bool:
    """Return what the reports of a validator say."""
    files = sorted((folder / folder_of(index + 1)).glob(REPORTS[script_of(LINES[index])]))
    assert files
    verdicts = [json.loads(file.read_text(encoding="utf-8"))["passed"] for file in files]
    assert all(isinstance(verdict, bool) for verdict in verdicts)
    return all(verdicts)


AFTER: dict[str, Callable[[Done], None]] = {}


def after(script: str) -> Callable[[Callable[[Done], None]], Callable[[Done], None]]:
    """Return a decorator for what is checked after a command, whatever its sizes."""

    def enter(check: Callable[[Done], None]) -> Callable[[Done], None]:
        AFTER[script] = check
        return check

    return enter


@after("run_dual_teacher_cartpole")
def the_canonical_run_reports_the_returns_of_every_network(done: Done) -> None:
    report = done.report("checkpoints/issue8_run/pipeline_report.json")
    is_allowed = "--allow-unsafe-unpickle" in done.line
    assert report["config"]["allow_unsafe_unpickle"] is is_allowed
    assert report["config"]["unsafe_unpickle_needed_by"] == []
    returns = report["returns"]["roles"]
    assert {"parent_A", "parent_B", "student_A_int8", "child", "child_int8"} <= set(returns)
    for played in returns.values():
        low, high = played["ci95"]
        assert low <= played["mean"] <= high
    better = max(returns[name]["mean"] for name in ("parent_A", "parent_B"))
    assert math.isclose(report["child_return_share"], returns["child"]["mean"] / better)
    assert report["passed"] == (report["distillation_passed"] and report["recombination_passed"])
    for letter, file in re.findall(r"--parent-(\w)-ckpt (\S+)", done.line):
        recorded = done.folder / report["artifacts"][f"parent_{letter.upper()}"]
        assert recorded.resolve() == (done.folder / file).resolve()


@after("train_cartpole_parents")
def int8_parents_have_the_environment_in_their_sidecars(done: Done) -> None:
    for label in "AB":
        sidecar = done.report(f"checkpoints/cartpole/parent_{label}_int8.pt.json")
        assert sidecar["environment"] == "CartPole-v1"


@after("run_cartpole_recombination")
def the_short_form_plays_too(done: Done) -> None:
    report = done.report("checkpoints/cartpole/recombination_validation.json")
    assert {"parent_a", "parent_b", "child", "ensemble"} <= set(report["returns"]["roles"])


@after("run_distillation")
def students_have_half_the_width_and_the_page_s_tensor_names(done: Done) -> None:
    for label in "AB":
        folder = done.folder / "checkpoints/distillation"
        student = torch.load(folder / f"student_{label}.pt", weights_only=True)
        teacher = torch.load(folder / f"parent_{label}.pt", weights_only=True)
        assert teacher["network.0.weight"].shape == (64, 8)
        assert student["network.0.weight"].shape == (32, 8)
        assert list(student) == [
            f"network.{place}.{kind}" for place in (0, 1, 4, 5, 8) for kind in ("weight", "bias")
        ]


@after("quantize_distilled")
def int8_students_are_plain_int8_tensors(done: Done) -> None:
    for label in "AB":
        file = done.folder / f"checkpoints/quantized/student_{label}_int8.pt"
        tensors = torch.load(file, weights_only=True)
        for layer in (0, 4, 8):
            codes = tensors[f"network.{layer}.weight"]
            assert codes.dtype == torch.int8
            assert tensors[f"network.{layer}.weight.scale"].shape == codes.shape[:1]
        assert tensors["network.1.weight"].dtype == torch.float32
        float_file = done.folder / f"checkpoints/distillation/student_{label}.pt"
        assert file.stat().st_size < float_file.stat().st_size


@after("qat_distilled")
def the_export_of_qat_is_int8(done: Done) -> None:
    tensors = torch.load(
        done.folder / "checkpoints/quantized_qat/student_A_qat_int8.pt", weights_only=True
    )
    assert tensors["network.4.weight"].dtype == torch.int8
    assert done.report("checkpoints/quantized_qat/qat_report_A.json")["gain_of_qat"]


@after("finetune_child")
def the_child_before_is_the_mean_of_its_parents(done: Done) -> None:
    a, b = (
        torch.load(done.folder / f"checkpoints/distillation/student_{one}.pt", weights_only=True)
        for one in "AB"
    )
    child = torch.load(done.folder / "checkpoints/crossover/child.pt", weights_only=True)
    for name, tensor in child.items():
        torch.testing.assert_close(tensor, 0.5 * a[name] + 0.5 * b[name])


@after("validate_distillation")
def students_are_judged_on_states_that_nothing_was_trained_on(done: Done) -> None:
    report = done.report("reports/distillation/student_A_validation.json")
    assert report == done.report("reports/distillation/distillation_validation_A.json")
    assert report["states"]["held_out"] is True
    assert report["states"]["count"] == 100
    assert report["returns"]["environment"] is None
    assert "give --env" in report["returns"]["reason"]
    kept = np.load(done.folder / "checkpoints/distillation/states.npz")
    both = {row.tobytes() for row in kept["train"]} & {row.tobytes() for row in kept["heldout"]}
    assert not both


@after("validate_quantized")
def our_int8_files_never_need_the_flag(done: Done) -> None:
    report = done.report("reports/quantized/student_A_quant_report.json")
    assert report["allow_unsafe_unpickle"] is True
    assert report["unpickled"] == []
    assert report["fidelity"]["action_agreement"] > 0.9
    assert report["size"]["size_ratio"] < 1


@after("validate_recombination")
def the_child_is_judged_against_both_parents_and_these_against_each_other(done: Done) -> None:
    report = done.report("reports/recombination/recombination_validation.json")
    compared = report["comparisons"]
    assert list(compared) == ["child_vs_parent_a", "child_vs_parent_b", "parent_a_vs_parent_b"]
    assert report["states"]["held_out"] is True
    # The triangle of agreements: where A and B disagree, the child cannot agree with both.
    shares = [comparison["action_agreement"] for comparison in compared.values()]
    assert shares[0] + shares[1] <= 1 + shares[2] + 1e-9


@after("run_crossover_search")
def every_child_of_a_search_is_ranked_and_explained(done: Done) -> None:
    folder = done.folder / "reports/crossover_search"
    children = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert len(children) == 4
    for child in children:
        for key in ("child_pt_path", "eval_report_path", "run_config_path"):
            assert (folder / child[key]).is_file()
        lowest = min(child["child_vs_parent_a_agreement"], child["child_vs_parent_b_agreement"])
        assert math.isclose(child["primary_metric"], lowest)
    with (folder / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        ranked = list(csv.DictReader(file))
    metrics = [float(row["primary_metric"]) for row in ranked]
    assert metrics == sorted(metrics, reverse=True)
    assert {row["child_id"] for row in ranked} == {
        "parent_a",
        "parent_b",
        *(child["child_id"] for child in children),
    }


@after("run_multi_gen_search")
def lineages_have_no_cycles(done: Done) -> None:
    folder = done.folder / "runs/multi_gen_search"
    born = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
    assert {row["generation"] for row in born} == {0, 1}
    generation = {row["child_id"]: row["generation"] for row in born}
    for row, key in itertools.product(born, ("parent_a_id", "parent_b_id")):
        assert generation.get(row[key], -1) < row["generation"]


@after("benchmark_crossover")
def the_documented_figures_of_crossover_come_out(done: Done) -> None:
    # Mean and maximal error of Q-values and agreement with A, as documented.
    assert re.search(r"^random .* 0\.8350 +3\.2098 +0\.3828$", done.out, re.MULTILINE)
    assert re.search(r"^layer .* 0\.8350 +3\.2098 +0\.3828$", done.out, re.MULTILINE)
    assert re.search(r"^weighted .* 0\.6045 +2\.7700 +0\.4609$", done.out, re.MULTILINE)


def test_the_example_for_python_makes_a_child_of_a_float_and_an_int8_file(
    reader, monkeypatch
) -> None:
    reader.up_to(next(i for i, line in enumerate(LINES) if "quantize_distilled" in line))
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(reader.folder)
    names: dict = {}
    exec(code, names)
    states = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    a, b = (
        load_role(name, reader.folder / path).network
        for name, path in (
            ("a", "checkpoints/distillation/student_A.pt"),
            ("b", "checkpoints/quantized/student_B_int8.pt"),
        )
    )
    mean = {name: 0.5 * a.weights[name] + 0.5 * b.weights[name] for name in a.weights}
    expected = Network(a.spec, mean).q_values(states)
    with torch.no_grad():
        found = names["child"](torch.from_numpy(states)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_tables_of_flags_are_current() -> None:
    done = execute(f"python {ROOT / 'scripts' / 'document_flags.py'} --check", ROOT)
    assert done.code == 0, done.out + done.errors


def test_every_stage_has_a_table_of_its_flags() -> None:
    facts = yaml.safe_load((ROOT / "docs/pipeline-flags.yaml").read_text(encoding="utf-8"))
    stages = {name for name, module in COMMANDS.items() if module.startswith(STAGES)}
    assert set(facts) - {"shared"} == stages
    assert sum(len(about["defaults"]) for name, about in facts.items() if name != "shared") == 336


@pytest.mark.slow
def test_every_command_ends_as_the_table_says(tmp_path) -> None:
    folder = make_folder(tmp_path)
    found = []
    for index, line in enumerate(LINES):
        done = execute(line, folder)
        script = script_of(line)
        verdict = str(passed(folder, index)).lower() if script in REPORTS else "-"
        found.append((str(index + 1), script, str(done.code), verdict))
        assert "Traceback" not in done.errors
        if script == "run_dual_teacher_cartpole":
            report = done.report("checkpoints/issue8_run/pipeline_report.json")
            assert report["child_return_share"] >= 0.99
            assert report["child_int8_return_share"] >= 0.99
    assert found == EXPECTED
