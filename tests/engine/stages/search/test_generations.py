"""Generations follow each other, every child has an id of its own, and the first parents judge."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.dispatch.serial import SerialExecutor
from engine.errors import StageError
from engine.layout import LOCK
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.roles import load_role, save_role, sidecar
from engine.stages.search.generation_settings import Generations
from engine.stages.search.generations import ORIGINALS, multi_generation_search
from engine.stages.search.output import Search
from engine.stages.search.setup import Workers
from engine.stages.search.space import Recipe, Regime, SearchSpace
from engine.stages.state_sets import training_states

SPACE = SearchSpace(
    "custom", (Recipe("random", seed=0), Recipe("weighted")), (Regime("quick", 1, 1e-3),)
)
N_CHILDREN = 2


def make_search(folder: Path, space: SearchSpace = SPACE) -> Search:
    spec = teacher_spec(4, 2, 16)
    parents = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed in (("parent_A", 0), ("parent_B", 1)):
        path = folder / f"{name}.pt"
        network = Network(spec, initial_weights(spec, seed))
        save_role(path, network, sidecar("teacher", spec, 0.1))
        parents.append(load_role(name, path))
    return Search(*parents, states=training_states(96, 4, 42), space=space)


def run(folder: Path, space: SearchSpace = SPACE, **settings: object) -> tuple[list, list]:
    generations = Generations(**{"n_generations": 3} | settings)
    done = multi_generation_search(
        make_search(folder, space), generations, folder / "run", SerialExecutor(Workers())
    )
    summaries = json.loads((folder / "run/multi_gen_summary.json").read_text())
    lineage = json.loads((folder / "run/lineage.json").read_text())
    assert (summaries, lineage) == (done.summaries, done.lineage)
    return summaries, lineage


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, list, list]:
    folder = tmp_path_factory.mktemp("generations")
    return folder, *run(folder)


def test_every_child_has_an_id_of_its_own_and_comes_after_its_parents(done) -> None:
    _, _, lineage = done
    assert len(lineage) == len({row["child_id"] for row in lineage}) == 3 * N_CHILDREN
    known = set(ORIGINALS)
    for number in range(3):
        rows = [row for row in lineage if row["generation"] == number]
        assert len(rows) == N_CHILDREN
        assert all({row["parent_a_id"], row["parent_b_id"]} <= known for row in rows)
        known |= {row["child_id"] for row in rows}


def test_the_two_best_children_are_the_next_parents(done) -> None:
    folder, summaries, lineage = done
    for before, after in itertools.pairwise(summaries):
        rows = json.loads((folder / "run" / before["run_dir"] / "leaderboard.json").read_text())
        names = [row["child_id"] for row in rows if not row["is_parent_baseline"]]
        ids = {r["name"]: r["child_id"] for r in lineage if r["generation"] == before["generation"]}
        promoted = [before["promoted_parent_a_id"], before["promoted_parent_b_id"]]
        assert promoted == [ids[name] for name in names[:2]]
        children = [r for r in lineage if r["generation"] == after["generation"]]
        assert {(r["parent_a_id"], r["parent_b_id"]) for r in children} == {tuple(promoted)}
    assert summaries[-1]["promoted_parent_a_id"] is None


def test_both_scores_are_those_of_their_parents(done) -> None:
    folder, summaries, lineage = done
    states = training_states(96, 4, 42).heldout

    def actions(path: Path) -> np.ndarray:
        return load_role("", path).network.q_values(states).argmax(axis=1)

    originals = [actions(folder / f"parent_{name}.pt") for name in "AB"]
    by_id = {row["child_id"]: row for row in lineage}
    for row in lineage:
        child = actions(folder / "run" / row["child_pt_path"])
        against = [float((child == original).mean()) for original in originals]
        assert row["primary_metric_vs_original"] == min(against)
        parents = [
            originals[ORIGINALS.index(row[key])]
            if row[key] in ORIGINALS
            else actions(folder / "run" / by_id[row[key]]["child_pt_path"])
            for key in ("parent_a_id", "parent_b_id")
        ]
        assert row["primary_metric"] == min(float((child == p).mean()) for p in parents)
    first = summaries[0]
    assert first["best_primary_metric"] == first["best_primary_metric_vs_original"]


def test_each_generation_draws_with_seeds_of_its_own(done) -> None:
    folder, *_ = done
    seeds = [
        json.loads((folder / f"run/gen_{g}/manifest.json").read_text())[0]["crossover_seed"]
        for g in range(3)
    ]
    assert seeds == [0, 1, 2]


def test_the_same_search_again_gives_the_same_files(done, tmp_path) -> None:
    _, summaries, lineage = done
    assert run(tmp_path) == (summaries, lineage)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("child.pt")}
    assert run(tmp_path) == (summaries, lineage)  # goes on where nothing is left to do
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("child.pt")}


@pytest.mark.parametrize("settings", [{"selection": "best_vs_original"}, {"keep_top_k": 1}])
def test_the_second_parent_may_stay_the_original_one(tmp_path, settings) -> None:
    _, lineage = run(tmp_path, n_generations=2, **settings)
    assert {row["parent_b_id"] for row in lineage} == {ORIGINALS[1]}
    assert {row["parent_a_id"] for row in lineage} != {ORIGINALS[0]}


def test_mutation_changes_promoted_children_and_nothing_else(tmp_path) -> None:
    summaries, lineage = run(
        tmp_path, n_generations=2, selection="best_vs_original", mutation_std=0.05
    )
    assert [row["mutation_applied"] for row in lineage] == [False] * 2 + [True] * 2
    assert [row["parent_b_mutated"] for row in lineage] == [False] * 4
    first = summaries[0]["best_child_name"]
    child = load_role("", tmp_path / f"run/gen_0/{first}/child.pt")
    mutant = load_role("", tmp_path / "run/gen_1/parent_A.pt")
    # the noise has a standard deviation of 0.05 times the RMS of a row
    weight = child.network.weights["network.4.weight"]
    change = mutant.network.weights["network.4.weight"] - weight
    relative = change / np.sqrt(np.square(weight).mean(axis=1, keepdims=True))
    assert relative.std() == pytest.approx(0.05, rel=0.2)
    assert mutant.sidecar["sources"]["child"]["sha256"] == child.sha256
    again = tmp_path / "again"
    assert (
        run(again, n_generations=2, selection="best_vs_original", mutation_std=0.05)[1] == lineage
    )


def test_a_child_that_is_a_copy_of_its_parent_is_not_its_own_ancestor(tmp_path) -> None:
    # alpha 1 copies parent A, and no epoch at this rate is better than the start
    space = SearchSpace("custom", (Recipe("weighted", alpha=1.0),), (Regime("idle", 1, 1e-12),))
    _, lineage = run(tmp_path, space)
    assert len({row["child_id"] for row in lineage}) == 3
    assert all(row["child_id"] != row["parent_a_id"] for row in lineage)


def test_the_score_against_the_original_parents_may_select(tmp_path) -> None:
    summaries, lineage = run(tmp_path, n_generations=2, score_against="original")
    last = [row for row in lineage if row["generation"] == 1]
    best = max(row["primary_metric_vs_original"] for row in last)
    assert summaries[1]["best_primary_metric_vs_original"] == best


def files_of(folder: Path) -> dict[Path, bytes]:
    """Return all files but the lock, which tells when it was taken."""
    files = [path for path in folder.rglob("*.*") if path.is_file() and path.name != LOCK]
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"n_generations": 1}, "2 generations there, 1 now"),
        ({"n_generations": 2, "selection": "best_vs_original"}, "selection is best there, best_vs"),
        ({"n_generations": 2, "seed": 5}, "seed is 0 there, 5 now"),
        (
            {"n_generations": 2, "space": replace(SPACE, max_runs=1)},
            "2 children there, 1 now",
        ),
        (
            {
                "n_generations": 2,
                "space": SearchSpace("custom", SPACE.recipes[::-1], SPACE.regimes),
            },
            "children.0. is 000_random_a0p50_s0_quick there, 000_weighted",
        ),
    ],
)
def test_other_generations_in_the_same_folder_are_refused(tmp_path, settings, difference) -> None:
    run(tmp_path, n_generations=2)
    before = files_of(tmp_path / "run")
    with pytest.raises(StageError, match=f"holds a search with other settings: .*{difference}"):
        run(tmp_path, **settings)
    assert before == files_of(tmp_path / "run")


def test_more_generations_go_on(done, tmp_path) -> None:
    _, summaries, lineage = done
    run(tmp_path, n_generations=2)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("child.pt")}
    assert run(tmp_path, n_generations=3) == (summaries, lineage)
    assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_generations": 0}, "--num-generations must be at least 1, not 0"),
        ({"keep_top_k": 0}, "--keep-top-k must be at least 1, not 0"),
        ({"mutation_std": -1.0}, "--mutation-std, --mutation-fraction: scale must be"),
        ({"mutation_fraction": 1.5}, "--mutation-std, --mutation-fraction: share must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message) -> None:
    with pytest.raises(StageError, match=message):
        replace(Generations(), **settings)
