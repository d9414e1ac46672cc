"""A search does the same wherever and however often it is done, and one bad child ends nothing."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from engine.dispatch.serial import SerialExecutor
from engine.errors import RunDirectoryError, RunInterruptedError, StageError
from engine.learning.checkpoints import load_network, read_checkpoint
from engine.run_lock import take_lock
from engine.stages.networks import Network, initial_weights, teacher_spec
from engine.stages.roles import Role, load_role, save_role, sidecar
from engine.stages.search.child import ChildPlan, Judging, SearchContext
from engine.stages.search.output import Search
from engine.stages.search.ranking import LEADERBOARD_COLUMNS, MANIFEST_COLUMNS
from engine.stages.search.reproduction import reproduce
from engine.stages.search.run import batches, crossover_search
from engine.stages.search.setup import Workers
from engine.stages.search.space import Recipe, Regime, SearchSpace, search_space
from engine.stages.state_sets import training_states
from populations.genome import Genome, Lineage

QUICK = Regime("quick", epochs=1, lr=1e-3)
QUICK_QAT = Regime("quick_qat", epochs=1, lr=1e-3, quantization_applied="ptq_dynamic")
SPACE = SearchSpace(
    "custom",
    (Recipe("random", seed=0), Recipe("layer"), Recipe("weighted")),
    (QUICK, QUICK_QAT),
)
N_CHILDREN = 6


def make_parent(folder: Path, name: str, seed: int, n_inputs: int = 4, n_actions: int = 2) -> Role:
    spec = teacher_spec(n_inputs, n_actions, 16)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    save_role(path, Network(spec, initial_weights(spec, seed)), sidecar("teacher", spec, 0.1))
    return load_role(name, path)


def make_search(folder: Path, **fields: object) -> Search:
    parents = (make_parent(folder, "parent_A", 0), make_parent(folder, "parent_B", 1))
    return Search(*parents, **{"states": training_states(96, 4, 42), "space": SPACE} | fields)


def content(run_dir: Path) -> dict[str, object]:
    """Return every file of a search without what is a time, or a hash of a file with times."""
    found: dict[str, object] = {}
    for path in sorted(run_dir.rglob("*")):
        if path.is_dir() or path.name == "run.lock":
            continue
        name = str(path.relative_to(run_dir))
        if path.suffix == ".json":
            found[name] = without_times(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes()
    return found


def without_times(value: object) -> object:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not is_time(k)}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def is_time(name: str) -> bool:
    return name.endswith("_ms") or name == "eval_report.json"


@dataclass
class Counting(SerialExecutor):
    """Counts what is made, stops after so many batches, and spoils children."""

    stop_after: int = 10**9
    spoil: int | None = None

    def __post_init__(self) -> None:
        super().__init__(Workers(attempts=1))
        self.made: list[str] = []

    def run(self, context, batches: Sequence, stop: threading.Event) -> Iterator[list]:
        for number, results in enumerate(super().run(context, batches, stop), 1):
            plans = {plan.trial.index: plan for batch in batches for plan in batch.plans}
            self.made += [plans[result.index].trial.child_id for result in results]
            if number >= self.stop_after:
                stop.set()
            yield [
                plans[r.index].abandoned("failed", "bad luck", 1) if r.index == self.spoil else r
                for r in results
            ]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    crossover_search(make_search(folder), folder / "run", Counting())
    return folder


def test_every_child_has_its_files_and_every_table_its_rows(done) -> None:
    run = done / "run"
    manifest = json.loads((run / "manifest.json").read_text())
    assert [row["child_id"] for row in manifest] == [trial.child_id for trial in SPACE.trials()]
    assert all(set(row) == set(MANIFEST_COLUMNS) for row in manifest)
    for row in manifest:
        files = {path.name for path in (run / row["child_id"]).iterdir()}
        assert files >= {"child.pt", "child.pt.json", "eval_report.json", "run_config.json"}
        for column in ("child_pt_path", "eval_report_path", "run_config_path"):
            assert (run / row[column]).is_file()
    with (run / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == N_CHILDREN + 2
    assert tuple(rows[0]) == LEADERBOARD_COLUMNS
    assert [row["rank"] for row in rows] == [str(i + 1) for i in range(len(rows))]
    names = [row["child_id"] for row in rows]
    assert names == [row["child_id"] for row in json.loads((run / "leaderboard.json").read_text())]
    assert (
        names[next(i for i, row in enumerate(rows) if row["is_parent_baseline"] == "False")]
        in (run / "recommendation.txt").read_text()
    )


def test_parents_are_ranked_by_score_among_the_children(done) -> None:
    rows = json.loads((done / "run/leaderboard.json").read_text())
    order = [(-row["primary_metric"], row["child_id"]) for row in rows]
    assert order == sorted(order)
    parents = [row for row in rows if row["is_parent_baseline"]]
    summary = json.loads((done / "run/search_summary.json").read_text())
    assert {row["child_id"] for row in parents} == {"parent_a", "parent_b"}
    assert all(row["primary_metric"] == summary["parents_agree"] for row in parents)


def test_the_primary_metric_is_that_of_the_evaluation_report(done) -> None:
    for row in json.loads((done / "run/manifest.json").read_text()):
        report = json.loads((done / "run" / row["eval_report_path"]).read_text())
        assert row["primary_metric"] == pytest.approx(report["summary"]["min_agreement"])
        assert row["min_agreement_gain"] == pytest.approx(report["summary"]["min_agreement_gain"])
        assert row["oracle_agreement"] == pytest.approx(report["summary"]["oracle_agreement"])
        share, n = row["child_vs_parent_a_agreement"], report["states"]["count"]
        assert row["child_vs_parent_a_agreement_se"] == pytest.approx(
            (share * (1 - share) / n) ** 0.5
        )


def test_children_are_judged_on_states_that_they_were_not_trained_on(done) -> None:
    report = json.loads((done / "run/000_random_a0p50_s0_quick/eval_report.json").read_text())
    assert report["states"]["held_out"] is True
    states = training_states(96, 4, 42)
    assert report["states"]["sha256"] == states.record()["heldout_sha256"]


def test_files_say_which_parent_is_int8(tmp_path) -> None:
    parent_a, parent_b = make_search(tmp_path).parent_a, make_parent(tmp_path, "parent_B", 1)
    spec = parent_a.network.spec
    genome = Genome.from_weights(spec, parent_a.network.weights, Lineage("student", 0, 0))
    save_role(tmp_path / "int8.pt", genome, sidecar("student_int8", spec, 0.1))
    int8 = load_role("parent_A", tmp_path / "int8.pt")
    space = SearchSpace("custom", (Recipe("layer"),), (QUICK,))
    search = Search(int8, parent_b, states=training_states(96, 4, 42), space=space)
    with Workers().start(lambda text: None) as (executor, stop):
        crossover_search(search, tmp_path / "run", executor, stop)
    [report] = (json.loads(path.read_text()) for path in tmp_path.glob("run/*/eval_report.json"))
    expected = {"parent_a": "int8", "parent_b": "float32", "child": "float32"}
    assert report["model_formats"] == expected
    rows = json.loads((tmp_path / "run/leaderboard.json").read_text())
    formats = {row["child_id"]: row["scored_format"] for row in rows}
    assert (formats["parent_a"], formats["parent_b"]) == ("int8", "float32")


def test_a_child_trained_for_int8_is_exported_and_scored_as_int8(done) -> None:
    folder = done / "run/005_weighted_a0p50_sNone_quick_qat"
    exported = read_checkpoint(folder / "child_int8.pt")
    assert exported.genome is not None
    report = json.loads((folder / "eval_report.json").read_text())
    assert report["model_formats"]["child"] == "int8"
    assert report["model_paths"]["child"] == "child_int8.pt"
    a = load_network(done / "parent_A.pt")
    states = training_states(96, 4, 42).heldout
    actions = Network(*a).q_values(states).argmax(axis=1)
    for checkpoint, found in (
        (exported, report["comparisons"]),
        (read_checkpoint(folder / "child.pt"), report["float_child"]["comparisons"]),
    ):
        values = Network(checkpoint.spec, checkpoint.weights).q_values(states)
        assert found["child_vs_parent_a"]["action_agreement"] == np.mean(
            values.argmax(axis=1) == actions
        )
    rows = {r["child_id"]: r for r in json.loads((done / "run/manifest.json").read_text())}
    row = rows[folder.name]
    assert (row["scored_format"], row["child_pt_path"].endswith("child_int8.pt")) == ("int8", True)
    assert row["float_primary_metric"] is not None


def test_a_child_does_not_depend_on_what_is_made_beside_it() -> None:
    spec = teacher_spec(4, 2, 16)
    parents = [Network(spec, initial_weights(spec, seed)) for seed in (0, 1)]
    states = training_states(96, 4, 42)
    context = SearchContext(*parents, states, states.heldout, dropout=0.1)
    plans = [ChildPlan(trial) for trial in SPACE.trials()]
    together = context.work(plans, {})
    for plan, beside in zip(plans, together, strict=True):
        (alone,) = context.work([plan], {})
        assert alone.network is not None
        for name, tensor in alone.network.weights.items():
            assert tensor.tobytes() == beside.network.weights[name].tobytes()
        assert without_times(alone.report) == without_times(beside.report)


def test_batches_hold_one_regime_and_fewer_children_where_one_takes_long() -> None:
    trials = search_space("default-qat").trials()
    groups = batches(trials, 1000)
    assert [[t.regime.name for t in group] for group in groups] == [
        ["short"] * 7,
        ["long"] * 7,
        ["short_qat"] * 7,
    ]
    large = [(group[0].regime.name, len(group)) for group in batches(trials, 60_000)]
    # 60,000 states in 5 epochs are 300,000 passes of 1,600,000; in 20 epochs they are 1,200,000
    assert large == [
        *(("short", n) for n in (5, 2)),
        *(("long", n) for n in (4, 3)),
        *(("short_qat", n) for n in (5, 2)),
    ]


def test_a_finished_search_makes_nothing_again(done) -> None:
    before = content(done / "run")
    executor = Counting()
    crossover_search(make_search(done), done / "run", executor)
    assert executor.made == []
    assert content(done / "run") == before


def test_a_search_that_was_stopped_goes_on_to_the_same_files(done, tmp_path) -> None:
    search = make_search(tmp_path)
    first, second = Counting(stop_after=1), Counting()
    with pytest.raises(RunInterruptedError, match="3 of 6 children made; start the same"):
        crossover_search(search, tmp_path / "run", first)
    crossover_search(search, tmp_path / "run", second)
    assert len(first.made) == len(second.made) == N_CHILDREN / 2
    assert content(tmp_path / "run") == content(done / "run")


def spoil_file(run: Path, name: str) -> None:
    path = run / "003_layer_a0p50_sNone_quick_qat" / name
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", ["child.pt", "child_int8.pt", "eval_report.json"])
def test_a_child_with_a_damaged_file_is_made_again(done, name) -> None:
    before = content(done / "run")
    spoil_file(done / "run", name)
    executor = Counting()
    crossover_search(make_search(done), done / "run", executor)
    assert executor.made == ["003_layer_a0p50_sNone_quick_qat"]
    assert content(done / "run") == before


ONE = replace(SPACE, max_runs=1)
OTHER_SEEDS = replace(ONE, regimes=(replace(QUICK, seed=1),))


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"reference": "both"}, "children.0..finetune.reference is parent_a there, both now"),
        ({"states": training_states(80, 4, 42)}, "states.n_train is 96 there, 80 now"),
        ({"states": training_states(96, 4, 43)}, "states.seed is 42 there, 43 now"),
        (
            {"judging": Judging(include_parent_baseline=False)},
            "evaluation.include_parent_baseline is True there, False now",
        ),
        ({"use_training_states": True}, "evaluation.use_training_states is False there, True"),
        ({"space": OTHER_SEEDS}, "children.0..finetune.seed is 42 there, 1 now"),
    ],
)
def test_a_folder_with_a_search_of_other_settings_is_refused(tmp_path, fields, difference) -> None:
    crossover_search(make_search(tmp_path, space=ONE), tmp_path / "run", Counting())
    before = content(tmp_path / "run")
    search = make_search(tmp_path, **{"space": ONE} | fields)
    with pytest.raises(StageError, match=f"holds a search with other settings: .*{difference}"):
        crossover_search(search, tmp_path / "run", Counting())
    assert content(tmp_path / "run") == before


def test_other_parents_are_other_settings(tmp_path) -> None:
    crossover_search(make_search(tmp_path, space=ONE), tmp_path / "run", Counting())
    search = replace(make_search(tmp_path, space=ONE), parent_b=make_parent(tmp_path, "another", 7))
    with pytest.raises(StageError, match=r"parents.parent_b is \w{12}\.\.\. there, .* --run-dir"):
        crossover_search(search, tmp_path / "run", Counting())


def test_a_larger_grid_goes_on_and_a_smaller_one_is_refused(done, tmp_path) -> None:
    crossover_search(make_search(tmp_path, space=ONE), tmp_path / "run", Counting())
    executor = Counting()
    crossover_search(make_search(tmp_path), tmp_path / "run", executor)
    assert len(executor.made) == N_CHILDREN - 1
    assert content(tmp_path / "run") == content(done / "run")
    with pytest.raises(StageError, match=r"other settings: 6 children there, 1 now; give another"):
        crossover_search(make_search(tmp_path, space=ONE), tmp_path / "run", Counting())
    assert content(tmp_path / "run") == content(done / "run")


def test_the_same_children_can_be_ranked_by_something_else(done) -> None:
    executor = Counting()
    search = make_search(done, primary_metric="min_agreement_gain")
    crossover_search(search, done / "run", executor)
    assert executor.made == []
    assert "min_agreement_gain" in (done / "run/recommendation.txt").read_text()
    crossover_search(make_search(done), done / "run", executor)


@pytest.mark.parametrize("name", ["manifest.json", "leaderboard.csv", "states.npz"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, name) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(StageError, match=f"run holds a {name} that is not of a search; give"):
        crossover_search(make_search(tmp_path, space=ONE), tmp_path / "run", Counting())
    assert (tmp_path / "run" / name).read_text() == "mine"


def test_each_batch_is_told_when_it_begins(tmp_path) -> None:
    told: list[str] = []
    crossover_search(make_search(tmp_path), tmp_path / "run", Counting(), tell=told.append)
    begins = "training 3 children side by side: regime {}, 1 epochs of 96 states"
    assert told[0] == begins.format("quick")
    assert told[4] == begins.format("quick_qat")
    assert len(told) == N_CHILDREN + 2


def test_a_search_that_is_stopped_at_once_says_how_to_go_on(tmp_path) -> None:
    class Interrupted(SerialExecutor):
        def run(self, context, batches: Sequence, stop: threading.Event) -> Iterator[list]:
            yield next(super().run(context, batches, stop))
            raise KeyboardInterrupt

    with pytest.raises(
        RunInterruptedError,
        match=r"stopped at once with 3 of 6 children made; start the same command again to go on",
    ):
        crossover_search(make_search(tmp_path), tmp_path / "run", Interrupted(Workers()))


def test_a_child_that_fails_gets_a_row_and_ends_nothing(tmp_path) -> None:
    found = crossover_search(make_search(tmp_path), tmp_path / "run", Counting(spoil=2))
    last = json.loads((tmp_path / "run/leaderboard.json").read_text())[-1]
    assert (last["child_id"], last["status"], last["reason"], last["rank"]) == (
        "002_layer_a0p50_sNone_quick",
        "failed",
        "bad luck",
        None,
    )
    assert last["primary_metric"] is None
    assert len(found.best_first) == N_CHILDREN - 1
    assert "6, of which 1 failed" in (tmp_path / "run/recommendation.txt").read_text()


def test_a_search_of_which_nothing_came_says_why_and_leaves_its_tables(tmp_path) -> None:
    search = make_search(tmp_path, space=replace(SPACE, max_runs=1))
    with pytest.raises(StageError, match=r"none of the 1 children could be made; .* bad luck"):
        crossover_search(search, tmp_path / "run", Counting(spoil=0))
    assert "leaderboard says why" in (tmp_path / "run/recommendation.txt").read_text()
    assert json.loads((tmp_path / "run/manifest.json").read_text())[0]["status"] == "failed"


def test_a_run_configuration_alone_makes_the_same_child_again(done) -> None:
    for child, names in (
        ("000_random_a0p50_s0_quick", ["child.pt"]),
        ("005_weighted_a0p50_sNone_quick_qat", ["child.pt", "child_int8.pt"]),
    ):
        assert reproduce(done / "run" / child / "run_config.json") == dict.fromkeys(names, True)


def test_what_cannot_be_reproduced_says_why(done, tmp_path) -> None:
    with pytest.raises(StageError, match=r"expected the run_config.json of a child"):
        reproduce(tmp_path / "run_config.json")
    search = make_search(tmp_path, space=replace(SPACE, max_runs=1))
    crossover_search(search, tmp_path / "run", Counting())
    make_parent(tmp_path, "parent_A", 7)
    with pytest.raises(StageError, match=r"parent_A.pt: expected parent_a with .* was replaced"):
        reproduce(tmp_path / "run/000_random_a0p50_s0_quick/run_config.json")


def test_states_of_a_file_are_kept_beside_each_child(tmp_path) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    np.save(tmp_path / "states.npy", rows)
    states = training_states(None, 4, 0, tmp_path / "states.npy")
    space = replace(SPACE, max_runs=1)
    crossover_search(
        make_search(tmp_path, states=states, space=space), tmp_path / "run", Counting()
    )
    child = tmp_path / "run/000_random_a0p50_s0_quick"
    assert (child / "states.npz").read_bytes() == (tmp_path / "run/states.npz").read_bytes()
    assert reproduce(child / "run_config.json") == {"child.pt": True}


def test_imitating_both_parents_keeps_more_of_the_second_one(tmp_path) -> None:
    regime = (replace(QUICK, epochs=20),)
    space = SearchSpace("custom", (Recipe("weighted"),), regime)
    agreements = {}
    for reference in ("parent_a", "both"):
        search = make_search(tmp_path, reference=reference, space=space)
        row = crossover_search(search, tmp_path / reference, Counting()).entries[0].row
        agreements[reference] = row["child_vs_parent_b_agreement"]
    assert agreements["both"] > agreements["parent_a"]


def test_children_can_be_ranked_by_the_return_of_their_episodes(tmp_path) -> None:
    judging = Judging(environment="CartPole-v1", episodes=4)
    search = make_search(
        tmp_path, primary_metric="return", judging=judging, space=replace(SPACE, max_runs=2)
    )
    found = crossover_search(search, tmp_path / "run", Counting())
    for row in json.loads((tmp_path / "run/manifest.json").read_text()):
        report = json.loads((tmp_path / "run" / row["eval_report_path"]).read_text())
        assert row["primary_metric"] == row["return_mean"] == np.mean(report["returns"]["values"])
        assert row["primary_metric_se"] == pytest.approx(
            np.std(report["returns"]["values"], ddof=1) / 2
        )
    assert [row["return_mean"] for row in found.rows] == sorted(
        (row["return_mean"] for row in found.rows), reverse=True
    )
    text = (tmp_path / "run/recommendation.txt").read_text()
    assert "Returns over 4 other episodes of CartPole-v1" in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"primary_metric": "return"}, "--primary-metric return needs an environment.*--env"),
        ({"judging": Judging(environment="Acrobot-v1")}, "Acrobot-v1 has 6 inputs and 3 actions"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_made(
    tmp_path, fields, message
) -> None:
    with pytest.raises(StageError, match=message):
        crossover_search(make_search(tmp_path, **fields), tmp_path / "run", Counting())
    assert not (tmp_path / "run").exists()


def test_parents_of_different_architecture_are_refused(tmp_path) -> None:
    search = make_search(tmp_path)
    spec = teacher_spec(4, 2, 24)
    wide = Role("parent_B", None, Network(spec, initial_weights(spec, 0)))
    with pytest.raises(StageError, match=r"parents must share one architecture .*\(16, 4\)"):
        crossover_search(replace(search, parent_b=wide), tmp_path / "run", Counting())


def test_parents_with_nan_are_refused_by_name(tmp_path) -> None:
    search = make_search(tmp_path)
    broken = dict(search.parent_b.network.weights)
    broken["network.4.bias"] = np.full_like(broken["network.4.bias"], np.nan)
    network = Network(search.parent_b.network.spec, broken)
    with pytest.raises(StageError, match=r"parent_B.pt: network.4.bias holds NaN"):
        crossover_search(
            replace(search, parent_b=replace(search.parent_b, network=network)),
            tmp_path / "run",
            Counting(),
        )


def test_two_searches_do_not_share_a_directory(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    with take_lock(tmp_path / "run"), pytest.raises(RunDirectoryError, match="is in use"):
        crossover_search(make_search(tmp_path), tmp_path / "run", Counting())


@pytest.mark.ray
def test_ray_workers_write_the_same_files(done, tmp_path, ray_cluster) -> None:
    from engine.dispatch.ray_executor import RayExecutor

    crossover_search(make_search(tmp_path), tmp_path / "run", RayExecutor(Workers()))
    assert content(tmp_path / "run") == content(done / "run")
