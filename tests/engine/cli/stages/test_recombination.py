from __future__ import annotations

import csv

import pytest

from engine.cli import main


def run(capsys, *arguments: str) -> tuple[object, str, str]:
    """Return exit code, output and errors of the command."""
    with pytest.raises(SystemExit) as exited:
        main.main(["benchmark-crossover", *arguments])
    captured = capsys.readouterr()
    return exited.value.code, captured.out, captured.err


def test_the_documented_command_prints_and_writes_the_documented_table(capsys, tmp_path) -> None:
    path = tmp_path / "new" / "figures.csv"
    code, out, err = run(capsys, "--n-repeats", "20", "--output-csv", str(path))
    assert (code, err) == (0, "")
    printed = [line.split() for line in out.splitlines()[1:4]]
    written = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    # Source: the table "Crossover Results" of the pipeline document.
    expected = [
        ("random", "0.5", "0.8350", "3.2098", "0.3828"),
        ("layer", "", "0.8350", "3.2098", "0.3828"),
        ("weighted", "0.5", "0.6045", "2.7700", "0.4609"),
    ]
    for (strategy, alpha, *figures), shown, row in zip(expected, printed, written, strict=True):
        assert [shown[0], shown[1], *shown[3:]] == [strategy, alpha or "-", *figures]
        assert (row["strategy"], row["alpha"]) == (strategy, alpha)
        names = ("mean_q_error", "max_q_error", "action_agreement")
        assert [f"{float(row[name]):.4f}" for name in names] == figures
        assert float(row["mean_time_ms"]) > 0
    assert [row[0] for row in printed] == ["random", "layer", "weighted"]
    assert "random and layer are one child here: the documented seed draws" in out


def test_other_sizes_and_seeds_give_other_figures(capsys) -> None:
    sizes = ("--input-dim", "3", "--output-dim", "2", "--hidden-size", "16", "--n-states", "50")
    code, first, _ = run(capsys, *sizes, "--n-repeats", "1")
    _, other, _ = run(capsys, *sizes, "--n-repeats", "1", "--seed-b", "7", "--alpha", "0.1")
    assert code == 0
    assert "one child" in first
    assert "one child" not in other
    assert first.splitlines()[3].split()[3:] != other.splitlines()[3].split()[3:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alpha", "1.5"], "'--alpha': 1.5 is not in the range 0<=x<=1"),
        (["--alpha", "nan"], "'--alpha': nan is not a finite number"),
        (["--n-states", "0"], "'--n-states': 0 is not in the range x>=1"),
        (["--n-repeats", "0"], "'--n-repeats': 0 is not in the range x>=1"),
        (["--seed-a", "-1"], "'--seed-a': -1 is not a whole number from 0"),
        (["--hidden-size", "many"], "'many' is not a valid integer"),
        (["--seed", "1"], "No such option"),
    ],
)
def test_bad_input_is_refused(capsys, arguments, message) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_csv_that_cannot_be_written_is_one_line(capsys, tmp_path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "figures.csv", tmp_path):
        code, _, err = run(capsys, "--n-repeats", "1", "--output-csv", str(path))
        assert code == 2
        assert err.count("\n") == 1
        assert str(tmp_path) in err
