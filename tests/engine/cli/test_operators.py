from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.cli import main
from engine.cli.operators import operators
from engine.errors import ConfigError
from strategies import crossovers, mutations, plugins, selections
from strategies.errors import OperatorParameterError, PluginError, UnknownOperatorError

FILE = '''
import numpy as np
from strategies import CrossoverOperator, Mutation

class Mean(CrossoverOperator):
    """Average two parents.

    Args:
        share: Weight of the first parent.
    """

    name = "mean"

    def __init__(self, share: float = 0.5, power: int = 0) -> None:
        self.share, self.power = share, power

    def cross(self, parents, rng):
        a, b = parents
        return {n: np.float32(self.share) * a[n] + np.float32(1 - self.share) * b[n] for n in a}

class Broken(Mean):
    name = "broken"

    def cross(self, parents, rng):
        if parents.spec.norm == "layer":
            raise RuntimeError("no LayerNorm here")
        return {n: t.astype(float) for n, t in super().cross(parents, rng).items()}
'''


@pytest.fixture(autouse=True)
def _undo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start with the built-in operators, and keep what a test loads from the other tests."""
    for registry in (crossovers, mutations, selections):
        classes = {n: c for n, c in registry._classes.items() if c.__module__.startswith("strateg")}
        monkeypatch.setattr(registry, "_classes", classes)
        monkeypatch.setattr(registry, "_entry_points", {})
    monkeypatch.setattr(plugins, "_loaded", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("cultivar_plugin_"):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ops.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(operators, arguments, catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    assert "\x1b" not in result.output
    return result


def lines_of(*arguments: str, exit_code: int = 0) -> list[str]:
    return run(*arguments, exit_code=exit_code).stdout.splitlines()


def test_all_operators_are_listed_by_kind_with_what_they_take() -> None:
    lines = lines_of()
    heads = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert heads == [
        *("CROSSOVER", *crossovers.available()),
        *("MUTATION", *mutations.available()),
        *("SELECTION", *selections.available()),
    ]
    i = next(i for i, line in enumerate(lines) if line.startswith("ties "))
    assert lines[i].split()[:4] == ["ties", "2+", "ancestor", "density=0.5"]
    about = " ".join(" ".join(lines[i : i + 5]).split())
    assert "Merge the changes since the common ancestor without those that" in about
    assert next(line for line in lines if line.startswith("clone")).split() == ["clone", "1"]
    assert "safe           states  change=0.1" in lines


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_lists_pages_and_checks_fit_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    texts = [
        lines_of(),
        lines_of("check", "ops.py:Broken", exit_code=1),
        *(lines_of("show", name) for name in ("ties", "unit", "rank")),
    ]
    for lines in texts:
        assert len(lines) > 5
        assert all(line == line.rstrip() for line in lines)
        # A path is longer than that, and is not broken.
        words = [line for line in lines if " " in line.strip() and not line.startswith("file")]
        assert max(map(len, words)) <= int(columns)


def test_a_list_without_a_terminal_has_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert 70 < max(map(len, lines_of())) <= 80


def test_one_kind_is_listed_alone() -> None:
    lines = lines_of("--kind", "selection")
    assert lines[0].split() == ["SELECTION", "PARAMETERS"]
    assert "gaussian" not in "".join(lines)


def test_operators_of_a_file_are_listed_with_the_others_and_its_name() -> None:
    lines = lines_of("--plugin", "ops.py")
    i = lines.index("mean             2                     share=0.5 power=0")
    assert lines[i + 1] == "  Average two parents. [ops.py]"
    assert any(line.startswith("weighted") for line in lines)


def test_a_broken_installed_plugin_is_told_behind_the_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("gone", "no_such_module:X", "cultivar.mutation")
    monkeypatch.setattr(mutations, "_entry_points", {"gone": point})
    result = run("--kind", "mutation", exit_code=2)
    assert "gaussian" in result.stdout
    assert result.stderr.startswith("cannot import the mutation no_such_module:X")
    assert result.stderr.count("\n") == 1


ODD = """
import math
from strategies import CrossoverOperator

class Odd(CrossoverOperator):
    name = "odd"
    needs = None

    def cross(self, parents, rng): ...

class Pairs(CrossoverOperator):
    name = "pairs"

    def __init__(self, n_pairs: int = 1, top: float = math.inf, file: str = "x\\udce9") -> None:
        self.n_pairs, self.top, self.file = n_pairs, top, file

    @property
    def n_parents(self):
        return 2 * self.n_pairs

    def cross(self, parents, rng): ...
"""


def test_odd_classes_are_listed_as_far_as_possible() -> None:
    Path("odd.py").write_text(ODD)
    result = run("--plugin", "odd.py", exit_code=2)
    assert "weighted" in result.stdout
    (pairs,) = (line for line in result.stdout.splitlines() if line.startswith("pairs"))
    assert pairs.split()[1:4] == ["varies", "n_pairs=1", "top=inf"]
    assert result.stderr.startswith("cannot read the crossover 'odd' of ")
    assert result.stderr.count("\n") == 1
    words = " ".join(run("--plugin", "odd.py", "show", "pairs").stdout.split())
    assert "parents varies with its parameters needs weights only" in words


def test_json_is_json_whatever_the_defaults() -> None:
    Path("odd.py").write_text(ODD)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = run("--plugin", "odd.py", "show", "pairs", "--json").stdout
    (pairs,) = json.loads(text, parse_constant=refuse)
    assert [each["default"] for each in pairs["parameters"]] == [1, "inf", "x\udce9"]
    assert pairs["n_parents"] == "varies"
    result = run("--plugin", "odd.py", "--json", exit_code=2)
    assert "pairs" in {one["name"] for one in json.loads(result.stdout, parse_constant=refuse)}


def test_a_page_shows_the_choices_that_a_parameter_leaves() -> None:
    assert "  shares=equal (equal | random)" in lines_of("show", "ties")


def test_json_has_all_facts() -> None:
    found = json.loads(run("--json", "--plugin", "ops.py").stdout)
    mean = next(one for one in found if one["name"] == "mean")
    assert mean["kind"] == "crossover"
    assert mean["summary"] == "Average two parents."
    assert mean["n_parents"] == 2
    assert mean["needs"] == []
    assert mean["same_widths"] is True
    assert mean["parameters"][0] == {
        "name": "share",
        "required": False,
        "default": 0.5,
        "type": "float",
        "meaning": "Weight of the first parent.",
    }
    assert mean["class"] == f"{Path('ops.py').resolve()}:Mean"
    assert mean["origin"] == mean["file"] == str(Path("ops.py").resolve())
    weighted = next(one for one in found if one["name"] == "weighted")
    assert weighted["origin"] == "built in"
    assert "arXiv:2203.05482" in weighted["source"]


def test_a_page_has_formula_parameters_needs_source_and_place() -> None:
    text = run("show", "ties").stdout
    assert text.startswith("ties  crossover, built in\nMerge the changes since")
    words = " ".join(text.split())
    for part in (
        "tau_i = parent_i - ancestor",
        "parents 2, another number with n_parents",
        "needs ancestor",
        "source Yadav et al. 2023",
        "class strategies.crossover.ties:TiesCrossover",
        "density=0.5 (float) Part of each tensor's entries",
        "use it evolution.recipes: [{operator: ties}]",
        "check it cultivar operators check ties",
    ):
        assert part in words
    assert "``" not in text


def test_a_page_of_a_file_says_how_to_use_it() -> None:
    words = " ".join(run("show", "ops.py:Mean").stdout.split())
    assert words.startswith("mean crossover, ops.py Average two parents.")
    assert "class ops.py:Mean" in words
    assert "use it evolution.recipes: [{operator: mean}], plugins: [ops.py]" in words
    assert "check it cultivar operators check ops.py:Mean" in words


def test_pages_of_other_kinds_say_where_they_belong() -> None:
    words = " ".join(run("show", "safe").stdout.split())
    assert "use it evolution.mutation: {name: safe}" in words
    assert "step size change, which evolution.mutation.adapt lets evolve" in words
    assert "evolution.selection: {name: rank}" in run("show", "rank").stdout
    assert json.loads(run("show", "rank", "--json").stdout)[0]["kind"] == "selection"


def test_what_passes_all_checks_ends_with_0() -> None:
    lines = lines_of("check", "ops.py:Mean", "--set", "share=0.25")
    assert lines[0] == "crossover ops.py:Mean, share=0.25"
    assert "ok      pickling       gives an equal child after pickling" in lines
    assert lines[-1] == "all 17 checks passed"
    assert sum(line.startswith("ok ") for line in lines) == 17


def test_every_failed_check_is_told_with_a_way_to_mend_it() -> None:
    lines = lines_of("check", "ops.py:Broken", exit_code=1)
    failed = [line.split()[1] for line in lines if line.startswith("FAILED")]
    assert failed == ["errors", "dtype"]
    words = " ".join(" ".join(lines).split())
    number = FILE[: FILE.index("raise RuntimeError")].count("\n") + 1
    assert f"it raises RuntimeError in line {number}: no LayerNorm here (given 2 unrelated" in words
    assert "to mend: end with .astype(numpy.float32)" in words
    assert lines[-1] == "2 of 17 checks failed, 1 not asked"


def test_checks_that_cannot_be_asked_are_told_together_before_what_failed() -> None:
    body = 'raise KeyError("fc9")'
    Path("ops.py").write_text(FILE.replace("return {n: np", f"{body}\n        return {{n: np"))
    lines = lines_of("check", "ops.py:Mean", exit_code=1)
    marks = [line.split()[0] for line in lines[1:-1] if not line.startswith(" ")]
    assert marks == ["ok"] * 10 + ["-", "-", "FAILED"]
    words = " ".join(" ".join(lines).split())
    skipped = "tensors, dtype, finite, new arrays, repeatable, equal parents"
    assert f"- not asked: {skipped} (it gives nothing that could be checked) - not asked: " in words
    assert "- not asked: widths (it takes parents of one architecture: same_widths = T" in words
    assert lines[-1] == "1 of 11 checks failed, 7 not asked"


@pytest.mark.parametrize("target", ["gaussian", "tournament", "strategies.selection:RankSelection"])
def test_every_kind_and_every_way_to_name_it_is_checked(target: str) -> None:
    assert lines_of("check", target)[-1].startswith("all ")


def test_all_operators_of_a_file_are_checked_together() -> None:
    lines = lines_of("check", "ops.py", exit_code=1)
    assert [line for line in lines if line.startswith("crossover")] == [
        "crossover ops.py:Mean",
        "crossover ops.py:Broken",
    ]


def test_an_operator_whose_name_is_taken_is_told_by_whom() -> None:
    Path("ops.py").write_text(FILE.replace('"mean"', '"weighted"'))
    lines = lines_of("check", "ops.py:Mean", exit_code=1)
    assert [line.split()[1] for line in lines if line.startswith("FAILED")] == ["name"]
    assert "has the name 'weighted', which is taken by strategies.crossover.weighted:Weight" in (
        " ".join(" ".join(lines).split())
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["check", "ops.py:Mean", "--set", "shar=1"], OperatorParameterError, "mean 'share'"),
        (["check", "weighted", "--set", "low=x"], OperatorParameterError, "low must be a"),
        (["check", "weighted", "--set", "low"], ConfigError, "expected a parameter such as"),
        (["check", "ops.py:Man"], PluginError, "Did you mean 'Mean'"),
        (["check", "weigthed"], UnknownOperatorError, "Did you mean 'weighted'"),
        (["show", "weigthed"], UnknownOperatorError, "Did you mean 'weighted'.*--plugin FILE$"),
        (["check", "ops"], UnknownOperatorError, "Did you mean 'ops.py'"),
        (["show", "ops"], UnknownOperatorError, "Did you mean 'ops.py'"),
        (["--plugin", "none.py"], PluginError, "expected a plug-in file"),
        (["--plugin", "none.py", "show", "unit"], PluginError, "expected a plug-in file"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("typed", "meant"), [("shwo", "show"), ("chek", "check")])
def test_a_mistyped_command_is_told_which_one_is_meant(typed: str, meant: str) -> None:
    result = run(typed, "ties", exit_code=2)
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in result.stderr


def test_exit_codes_reach_the_shell() -> None:
    for arguments, code in (
        (["check", "ops.py:Mean"], 0),
        (["check", "ops.py:Broken"], 1),
        (["check", "nobody"], 2),
        ([], 0),
    ):
        with pytest.raises(SystemExit) as exited:
            main.main(["operators", *arguments])
        assert exited.value.code == code


def test_help_has_examples() -> None:
    for arguments in ([], ["show"], ["check"]):
        text = run(*arguments, "--help").stdout
        assert "Examples:" in text
        assert max(map(len, text.splitlines())) <= 80


def test_neither_list_nor_page_nor_check_imports_torch_or_ray() -> None:
    code = (
        "import sys\n"
        "from engine.cli.main import cli\n"
        "for arguments in ([], ['show', 'ties'], ['check', 'weighted']):\n"
        "    cli.main(['operators', *arguments], standalone_mode=False)\n"
        "    heavy = {'torch', 'ray', 'gymnasium', 'pandas', 'scipy', 'engine.config'}\n"
        "    print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n" * 3
