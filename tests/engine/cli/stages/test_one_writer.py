"""Two runs of a stage do not write into one folder at once."""

from __future__ import annotations

import pytest

from engine.cli import main
from engine.run_lock import take_lock

WRITERS = (
    "distill",
    "quantize",
    "qat",
    "finetune",
    "train-cartpole-parents",
    "cartpole-recombination",
    "dual-teacher-cartpole",
)


@pytest.mark.parametrize("command", WRITERS)
def test_a_folder_that_another_run_writes_is_refused_by_name(capsys, tmp_path, command) -> None:
    with take_lock(tmp_path), pytest.raises(SystemExit) as exited:
        main.main([command, "--output-dir", str(tmp_path)])
    assert exited.value.code == 2
    error = capsys.readouterr().err
    assert f"{tmp_path} is in use by process" in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


def test_a_folder_is_free_again_when_a_run_is_over(capsys, tmp_path) -> None:
    arguments = ["distill", "--n-states", "70", "--epochs", "1", "--output-dir", str(tmp_path)]
    for _ in range(2):
        with pytest.raises(SystemExit) as exited:
            main.main(arguments)
        assert exited.value.code == 0, capsys.readouterr().err
    assert not (tmp_path / "run.lock").exists()


def test_a_run_that_comes_to_nothing_leaves_no_folder(tmp_path) -> None:
    for folder in (tmp_path / "new", tmp_path / "old"):
        (tmp_path / "old").mkdir(exist_ok=True)
        with pytest.raises(SystemExit) as exited:
            main.main(["distill", "--parent-a-ckpt", "none.pt", "--output-dir", str(folder)])
        assert exited.value.code == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "old"]
    assert not list((tmp_path / "old").iterdir())
