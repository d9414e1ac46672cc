from __future__ import annotations

import base64
import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
from click.testing import CliRunner

from engine.cli.inspect import show, status
from engine.cli.leaderboard import leaderboard
from engine.config_file import load_config
from engine.errors import ConfigError, RunDirectoryError
from engine.launch import launch
from engine.layout import CONFIG, JOURNAL, LOCK, RECIPES, SUMMARY, pack_path
from engine.progress import SilentProgress
from engine.run_directory import RunDirectory
from engine.run_record import read_run
from engine.run_status import run_status
from populations.errors import GenomeFileError, JournalError
from populations.journal import Journal
from populations.leaderboard import FILE_NAME
from populations.storage import load_genome, load_pack

CHILDREN_SO_FAR = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; no test changes it."""
    path = tmp_path_factory.mktemp("runs") / "smoke"
    launch(load_config("smoke", ["dispatch.workers=0"]), path, SilentProgress())
    return path


@pytest.fixture
def stopped(run: Path, tmp_path: Path) -> Path:
    """The run, stopped in generation 2 after some of its births."""
    path = tmp_path / "stopped"
    shutil.copytree(run, path)
    lines = (path / JOURNAL).read_bytes().splitlines(keepends=True)
    wanted = (
        number
        for number, event in enumerate(journal(path), start=2)
        if event.get("phase") == "children"
        and event["generation"] == 2
        and event["index"] == CHILDREN_SO_FAR - 1
    )
    (path / JOURNAL).write_bytes(b"".join(lines[: next(wanted)]))
    return path


def test_what_births_were_made_with_is_not_needed_for_a_status(run: Path, stopped: Path) -> None:
    for path in (run, stopped):
        whole, brief = read_run(path), read_run(path, brief=True)
        assert run_status(brief) == run_status(whole)
        assert any(row.finetune for row in whole.rows)
        assert not any(row.finetune for row in brief.rows)


def journal(path: Path) -> list[dict[str, Any]]:
    lines = (path / JOURNAL).read_text().splitlines()
    return [json.loads(line)["event"] for line in lines[1:]]


def births(path: Path) -> list[dict[str, Any]]:
    phases = ("ancestor", "students", "children")
    return [event for event in journal(path) if event.get("phase") in phases]


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path / FILE_NAME, dtype={"genome": str, "parents": str})


def champion_of(path: Path) -> dict[str, Any]:
    summary = json.loads((path / SUMMARY).read_text())
    assert isinstance(summary, dict)
    return summary


def invoke(command: click.Command, *arguments: str | Path) -> str:
    result = CliRunner().invoke(
        command, [str(argument) for argument in arguments], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def status_of(path: Path) -> dict[str, Any]:
    (values,) = json.loads(invoke(status, path, "--format", "json"))
    assert isinstance(values, dict)
    return values


def shown(path: Path, *arguments: str) -> dict[str, Any]:
    values = json.loads(invoke(show, path, *arguments, "--format", "json"))
    assert isinstance(values, dict)
    return values


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, *arguments: Any) -> list[str]:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    return re.sub(r"\x1b\[[0-9;]*m", "", invoke(*arguments)).splitlines()


def test_status_counts_the_births_of_a_finished_run(run: Path) -> None:
    found = status_of(run)
    rows = table(run)
    born = rows[rows["child"].notna() & (rows["kind"] != "teacher")]
    assert (found["state"], found["stage"], found["process"]) == ("finished", None, None)
    assert (found["generation"], found["generations"]) == (2, 2)
    assert found["births_by_kind"] == born["kind"].value_counts().to_dict()
    counts = {name: count for name, count in found["births_by_status"].items() if count}
    assert counts == dict(Counter(event["status"] for event in births(run)))
    assert sum(r["births"] for r in found["reasons"]) == len(born) - counts["ok"]
    assert found["cpu_s"] == pytest.approx(rows["cpu_s"].sum())
    assert found["worker_s"] == pytest.approx(rows["wall_s"].sum())
    assert found["births_per_cpu_s"] == pytest.approx(len(born) / born["cpu_s"].sum())
    assert found["last_record"] == rows["created_at"].max()
    assert found["size_bytes"] == sum(p.stat().st_size for p in run.rglob("*") if p.is_file())


def test_status_sums_up_each_generation(run: Path) -> None:
    found = status_of(run)["by_generation"]
    rows = table(run)
    rows = rows[rows["fitness_holdout"].isna()]
    assert [one["generation"] for one in found] == [0, 1, 2]
    for one in found:
        now = rows[rows["generation"] == one["generation"]]
        bred = now[now["child"].notna() & now["kind"].isin(["student", "child"])]
        fitness = bred["fitness"].dropna()
        assert (one["births"], one["ok"], one["finished"]) == (len(bred), len(fitness), True)
        assert one["best"] == fitness.max()
        assert one["mean"] == pytest.approx(fitness.mean())
        assert one["median"] == pytest.approx(fitness.median())
        elites = now[now["child"].isna() & now["genome"].notna()]["fitness"]
        controls = now[now["kind"] == "control"]["fitness"]
        for name, values in (("elites", elites), ("controls", controls)):
            assert one[name] == (pytest.approx(values.mean()) if len(values.dropna()) else None)


def test_status_compares_operators_with_controls(run: Path) -> None:
    found = {(one["kind"], one["operator"]): one for one in status_of(run)["by_operator"]}
    rows = table(run)
    born = rows[rows["child"].notna() & rows["kind"].isin(["student", "child", "control"])]
    asked = CliRunner().invoke(leaderboard, [str(run), "--by", "operator", "--format", "json"])
    for one in json.loads(asked.stdout):
        same = found[one["kind"], one["operator"]]
        assert (one["count"], one["scored"]) == (same["births"], same["ok"])
        assert (one["mean"], one["best"]) == (pytest.approx(same["mean"]), same["best"])
    groups: dict[Any, pd.DataFrame] = dict(list(born.groupby(["kind", "operator"])))
    groups["child", "all"] = born[born["kind"] == "child"]
    assert set(found) == set(groups)
    assert ("control", "fresh") in groups
    for key, group in groups.items():
        one, deltas = found[key], group["delta_vs_better_parent"].dropna()
        assert (one["births"], one["ok"]) == (len(group), (group["status"] == "ok").sum())
        assert one["mean"] == pytest.approx(group["fitness"].mean())
        assert one["best"] == group["fitness"].max()
        if len(deltas):
            assert one["delta"] == pytest.approx(deltas.mean())
            assert one["beat_parent"] == pytest.approx((deltas > 0).mean())
        else:
            assert (one["delta"], one["beat_parent"]) == (None, None)


def test_status_tells_what_each_recipe_has_come_to(run: Path) -> None:
    found, rows = status_of(run), table(run)
    assert found["draw"] == "mix"
    children = rows[rows["child"].notna() & (rows["kind"] == "child")]
    assert [one["operator"] for one in found["by_recipe"]] == [
        "weighted",
        "unit",
        "layer",
        "random",
    ]
    assert sum(one["births"] for one in found["by_recipe"]) == len(children) == 16
    for number, one in enumerate(found["by_recipe"]):
        mine = children[children["operator"] == one["operator"]]  # there is one recipe of each
        assert (one["recipe"], one["births"]) == (number, len(mine))
        assert one["ok"] == (mine["status"] == "ok").sum()
        deltas = mine["delta_vs_better_parent"].dropna()
        assert one["best_improvement"] == deltas.max()
        assert one["mean_improvement"] == pytest.approx(deltas.mean())
        assert (one["alpha"], one["share"]) == (None, 0.25)
    rewards = [one["mean_reward"] * one["births"] for one in found["by_recipe"]]
    # The ranks of each generation's children have a mean of a half, as all of them were scored.
    assert (children["status"] == "ok").all()
    assert sum(rewards) == pytest.approx(16 / 2)


def test_a_damaged_table_of_recipes_is_told(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(run, path)
    (path / RECIPES).write_text("recipe,operator\n1,unit\n")
    with pytest.raises(RunDirectoryError, match=rf"{RECIPES} is damaged; delete it, and 'cultivar"):
        invoke(status, path)
    (path / RECIPES).unlink()
    assert status_of(path)["by_recipe"] == []
    config = load_config(path / CONFIG, ["dispatch.workers=0"])
    launch(config, path, SilentProgress())  # of a finished run, it is written again
    assert (path / RECIPES).read_bytes() == (run / RECIPES).read_bytes()


def test_status_shows_champion_and_baselines(run: Path) -> None:
    found, summary = status_of(run), champion_of(run)
    assert {**summary, **found["champion"]} == summary
    teachers = {b["name"]: b for b in found["baselines"]}
    assert list(teachers) == ["teacher-0", "teacher-1", "ensemble"]
    for teacher in summary["teachers"]:
        assert {**teachers[teacher["name"]], **teacher} == teachers[teacher["name"]]
    text = invoke(status, run)
    assert f"champion  {summary['genome']}: " in text
    assert "state     finished\n" in text


def test_status_of_a_stopped_run_tells_how_to_go_on(stopped: Path) -> None:
    found = status_of(stopped)
    assert (found["state"], found["stage"], found["generation"]) == ("stopped", "generation-2", 2)
    assert found["champion"] is None
    so_far = sum(event["generation"] == 2 for event in births(stopped))
    config = load_config(stopped / CONFIG)
    assert (found["stage_births"], found["stage_planned"]) == (so_far, 8 + 2)
    assert (config.evolution.children, config.evolution.controls) == (8, 1)
    assert sum(found["births_by_status"].values()) == len(births(stopped))
    last = found["by_generation"][-1]
    scores = [e["returns"] for e in births(stopped) if e["generation"] == 2 and e["returns"]]
    means = [sum(returns) / len(returns) for returns in scores]
    assert (last["births"], last["ok"], last["finished"]) == (so_far, len(means), False)
    assert last["mean"] == pytest.approx(sum(means) / len(means))
    text = invoke(status, stopped)
    assert f"stopped; go on with 'cultivar resume {stopped}'" in text
    assert f"generation 2 of 2, {so_far} of 10 births" in text
    assert "2…" in text


def test_a_resumed_run_has_the_status_of_an_uninterrupted_one(run: Path, stopped: Path) -> None:
    config = load_config(stopped / CONFIG, ["dispatch.workers=0"])
    launch(config, stopped, SilentProgress())
    volatile = ("path", "worker_s", "cpu_s", "births_per_cpu_s", "last_record", "size_bytes")
    before, after = status_of(run), status_of(stopped)
    assert all(before[name] == after[name] for name in before if name not in volatile)


def test_status_tells_the_most_frequent_reasons_first(stopped: Path) -> None:
    last = births(stopped)[-1]
    dead = {**last, "genome": None, "returns": []}
    new = [
        {**dead, "index": 5, "status": "failed", "reason": "unit: ValueError: too warm"},
        {**dead, "index": 6, "status": "failed", "reason": "unit: ValueError: too warm"},
        {**dead, "index": 7, "status": "lost", "reason": "node gone"},
        {**dead, "index": 8, "status": "rejected", "reason": "said so"},
    ]
    known = {(e["generation"], e["index"]) for e in births(stopped)}
    new = [event for event in new if (2, event["index"]) not in known]
    opened, _ = Journal.open(stopped / JOURNAL)
    with opened:
        opened.append(new)
    counts = Counter((e["status"], e["reason"]) for e in births(stopped) if e["status"] != "ok")
    found = status_of(stopped)["reasons"]
    assert {(r["status"], r["reason"]): r["births"] for r in found} == dict(counts)
    assert [r["births"] for r in found] == sorted(counts.values(), reverse=True)
    assert "          1 lost: node gone\n" in invoke(status, stopped)


def test_status_names_the_process_that_works_on_a_run(stopped: Path) -> None:
    with RunDirectory.resume(stopped):
        found = status_of(stopped)
        assert found["state"] == "running"
        assert found["process"] == json.loads((stopped / LOCK).read_text())
        assert found["process"]["pid"] == os.getpid()
        text = invoke(status, stopped)
        assert f"running, process {os.getpid()} on {socket.gethostname()} since 2" in text
        (stopped / LOCK).write_text("half a li")
        assert "running, an unknown process" in invoke(status, stopped)
    assert status_of(stopped)["state"] == "stopped"


def test_status_does_not_mind_a_half_written_line(stopped: Path) -> None:
    before = status_of(stopped)
    with (stopped / JOURNAL).open("ab") as file:
        file.write(b'{"crc":"0000')
    after = status_of(stopped)
    assert after == {**before, "size_bytes": before["size_bytes"] + 12}


@pytest.mark.parametrize("n_lines", [1, 2, 3, 4, 5])
def test_status_works_before_anything_is_born(stopped: Path, n_lines: int) -> None:
    lines = (stopped / JOURNAL).read_bytes().splitlines(keepends=True)
    (stopped / JOURNAL).write_bytes(b"".join(lines[:n_lines]))
    found = status_of(stopped)
    stages = ["teachers", "teachers", "states", "baselines", "generation-0"]
    assert found["stage"] == stages[n_lines - 1]
    assert found["births_per_cpu_s"] is None
    assert "births    none yet" in invoke(status, stopped)


def test_status_of_several_runs_has_a_line_each(run: Path, stopped: Path) -> None:
    (stopped / JOURNAL).unlink()  # stopped between its first two files
    header, *lines = invoke(status, run, stopped).splitlines()
    assert header.split()[:4] == ["run", "state", "generation", "births"]
    assert lines[0].split()[:3] == [str(run), "finished", "2/2"]
    assert lines[1].split() == [str(stopped), "stopped", "0/2", "0", "0", "-", "-", "-", "-"]


def test_status_refuses_what_is_not_a_run(run: Path, stopped: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            invoke(status, stopped)

    with pytest.raises(RunDirectoryError, match=r"is not a run directory: it has no config\.yaml"):
        invoke(status, run, tmp_path)
    content = (stopped / JOURNAL).read_bytes()
    (stopped / JOURNAL).write_bytes(content.replace(b'"stage":"states"', b'"stage":"stotes"'))
    refused(JournalError, "line 4: its checksum does not match")
    (stopped / CONFIG).write_text("evolution: {generation: 3}\n")
    refused(ConfigError, "Did you mean evolution.generations")


def test_a_missing_summary_is_told(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(run, path)
    (path / SUMMARY).write_text('{"genome"')
    with pytest.raises(RunDirectoryError, match=rf"{SUMMARY} is damaged; 'cultivar resume"):
        invoke(status, path)
    (path / SUMMARY).unlink()
    with pytest.raises(RunDirectoryError, match=rf"{SUMMARY} is missing; 'cultivar resume"):
        invoke(show, path, "champion")


@pytest.mark.parametrize("columns", [80, 120])
def test_everything_fits_a_terminal(
    run: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.chdir(run.parent)
    for arguments in (
        (status, "smoke"),
        (status, "smoke", "smoke"),
        (show, "smoke", "champion", "--depth", "9"),
    ):
        lines = on_terminal(monkeypatch, columns, *arguments)
        assert len(lines) > 2
        assert max(map(len, lines)) <= columns


def test_show_tells_how_the_champion_was_born(run: Path) -> None:
    found, summary, rows = shown(run, "champion"), champion_of(run), table(run)
    mine = rows[rows["genome"] == summary["genome"]]
    birth = mine[mine["child"].notna()].iloc[0]
    assert found["is_champion"]
    for name in ("genome", "parents", "parameters", "size_bytes"):
        assert found[name] == summary[name]
    for name in ("fitness_holdout", "fitness_holdout_sem", "episodes_holdout"):
        assert found[name] == summary[name]
    assert found["layers"] == [4, 4, 4, 2]
    for name in ("kind", "generation", "child", "operator", "align", "fitness"):
        assert found["birth"][name] == birth[name]
    for name in ("operator_params", "mutation", "finetune"):
        assert found["birth"][name] == json.loads(birth[name])
    assert found["agreements"] == {
        name: birth[f"agreement_{name}"] for name in ("teacher-0", "teacher-1")
    }
    assert found["best"]["fitness"] == summary["fitness"]
    assert found["best"]["episodes"] == summary["episodes"]
    with (run / FILE_NAME).open(newline="") as file:
        cells = [row for row in csv.DictReader(file) if row["genome"] == summary["genome"]]
    record = [(str(row["generation"]), repr(row["fitness"])) for row in found["rows"]]
    assert record == [(row["generation"], row["fitness"]) for row in cells]
    pack = f"genomes/gen-{birth['generation']:04d}.safetensors"
    assert found["files"] == [pack, "champion.safetensors"]


def test_show_counts_the_children_of_a_genome(run: Path) -> None:
    rows = table(run)
    born = rows[rows["child"].notna() & rows["genome"].notna() & rows["parents"].notna()]
    counts = Counter(p for cell in born["parents"] for p in dict.fromkeys(json.loads(cell)))
    parent, n_children = counts.most_common(1)[0]
    found = shown(run, parent)
    assert found["n_children"] == n_children
    mine = born[[parent in json.loads(cell) for cell in born["parents"]]]
    assert found["best_child"] in set(mine[mine["fitness"] == mine["fitness"].max()]["genome"])


def test_show_prints_a_record_and_a_family_tree(run: Path) -> None:
    summary = champion_of(run)
    text = invoke(show, run, "champion")
    assert re.match(rf"genome +{summary['genome']}, the champion\n", text)
    assert f"over {summary['episodes_holdout']} episodes\n" in text
    _, record, tree = re.split("\n(?:fitness record|family tree)\n", text)
    rows = table(run)
    assert len(record.splitlines()) == 1 + (rows["genome"] == summary["genome"]).sum()
    assert tree.startswith(f"{summary['genome']}  fitness ")
    assert all(parent in tree for parent in summary["parents"])


def test_the_family_tree_is_as_deep_as_asked(run: Path) -> None:
    summary = champion_of(run)
    assert len(shown(run, "champion", "--depth", "0")["family_tree"].splitlines()) == 1
    found = shown(run, "champion", "--depth", "1")
    assert found["ancestors"] == dict.fromkeys(summary["parents"], 1)
    assert len(found["family_tree"].splitlines()) == 1 + len(set(summary["parents"]))


def test_every_genome_is_found_by_its_shortest_prefix_and_exported(
    run: Path, tmp_path: Path
) -> None:
    packed = [pack_path(run, generation) for generation in range(3)]
    genomes = {id_: g for path in reversed(packed) for id_, g in load_pack(path).items()}
    assert len(genomes) > 10
    for id_ in list(genomes)[::5]:
        others = [other for other in genomes if other != id_]
        n = next(n for n in range(13) if not any(o.startswith(id_[:n]) for o in others))
        file = tmp_path / "deep" / f"{id_}.safetensors"
        assert shown(run, id_[:n], "--export", str(file))["genome"] == id_
        exported = load_genome(file)
        assert exported.id == id_
        assert exported.lineage == genomes[id_].lineage


def test_the_exported_champion_is_the_champion_file(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "best.safetensors"
    result = CliRunner().invoke(show, [str(run), "champion", "--export", str(file)])
    assert result.exit_code == 0
    assert file.read_bytes() == (run / "champion.safetensors").read_bytes()
    assert result.stderr == f"wrote {file} ({file.stat().st_size:,} bytes)\n"


def test_a_genome_of_an_unfinished_generation_can_be_exported(
    stopped: Path, tmp_path: Path
) -> None:
    pack_path(stopped, 2).unlink()  # it is written when the generation is finished
    event = next(e for e in reversed(births(stopped)) if e["genome"] is not None)
    assert event["generation"] == 2
    id_ = json.loads(base64.b64decode(event["genome"]).partition(b"\n")[0])["id"]
    file = tmp_path / "new.safetensors"
    found = shown(stopped, id_, "--export", str(file))
    assert found["files"] == []
    assert "in the journal only" in invoke(show, stopped, id_)
    assert found["best"]["fitness"] == pytest.approx(sum(event["returns"]) / len(event["returns"]))
    assert load_genome(file).id == id_


def test_an_ambiguous_or_unknown_id_is_explained(run: Path, stopped: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"'' fits \d+ genomes of .* and \d+ more; write"):
        invoke(show, run, "")
    id_ = champion_of(run)["genome"]
    wrong = f"{id_[:5]}g{id_[6:]}"
    message = f"no genome of .* starts with '{wrong}'.*Did you mean .*{id_}"
    with pytest.raises(RunDirectoryError, match=message):
        invoke(show, run, wrong)
    with pytest.raises(RunDirectoryError, match="has no champion yet: the run is not finished"):
        invoke(show, stopped, "champion")


def test_an_export_that_cannot_be_written_is_explained(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [str(run), "champion", "--export", str(tmp_path / "file" / "x.safetensors")]
    with pytest.raises(GenomeFileError, match=r"cannot write .*x\.safetensors: "):
        CliRunner().invoke(show, command, catch_exceptions=False)


def test_looking_at_a_run_changes_nothing_and_needs_no_torch(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code = (
        "import sys\n"
        "from engine.cli.main import cli\n"
        "cli(['status', sys.argv[1]], standalone_mode=False)\n"
        "cli(['show', sys.argv[1], 'champion'], standalone_mode=False)\n"
        "cli(['settings', 'elites'], standalone_mode=False)\n"
        "cli(['presets'], standalone_mode=False)\n"
        "heavy = {'torch', 'ray', 'gymnasium', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=True, capture_output=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
