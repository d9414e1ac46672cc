"""Results and rows: through JSON and back, and the numbers of a row by their formulas."""

import json
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import (
    birth_row,
    member_row,
    result_from_event,
    result_to_event,
    row_from_event,
    row_to_event,
    scores,
)
from populations.genome import Genome, Lineage
from populations.leaderboard import Columns, LeaderboardWriter, Row
from populations.network import NetworkSpec
from populations.plans import ChildPlan, FineTune, Result
from populations.population import LARGEST_RETURN, Member, Record
from populations.storage import save_genome
from strategies.crossover.weighted import WeightedCrossover
from strategies.mutation import GaussianMutation

FINETUNE = FineTune("teachers", 100, 3e-3, 1.5, 0.1, (0.25, 0.75), repair=True)


def make_genome(seed: int, hidden: tuple[int, ...], norm: Any, vector_dtype: Any) -> Genome:
    spec = NetworkSpec((3,), hidden, 2, norm=norm)
    rng = np.random.default_rng(seed)
    weights = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in spec.shapes.items()}
    lineage = Lineage("child", 2, 5, ("aaaaaaaaaaaa", "bbbbbbbbbbbb"), "weighted", "cccccccccccc")
    return Genome.from_weights(spec, weights, lineage, vector_dtype)


GENOMES = st.builds(
    make_genome,
    st.integers(0, 1000),
    st.lists(st.integers(1, 5), max_size=2).map(tuple),
    st.sampled_from(["none", "layer"]),
    st.sampled_from(["float32", "float16"]),
)
NUMBERS = st.floats(-LARGEST_RETURN, LARGEST_RETURN)
SHARES = st.floats(0, 1)
RESULTS = st.builds(
    Result,
    phase=st.sampled_from(["ancestor", "students", "children", "elites", "holdout"]),
    generation=st.integers(0, 10_000),
    index=st.integers(0, 10_000),
    status=st.sampled_from(["ok", "rejected", "failed", "lost"]),
    reason=st.text(),
    genome=st.none() | GENOMES,
    returns=st.lists(NUMBERS, max_size=5).map(tuple),
    mean_before=st.none() | NUMBERS,
    tuned=st.booleans(),
    agreements=st.lists(SHARES, max_size=4).map(tuple),
    kl=st.none() | NUMBERS,
    attempts=st.integers(1, 9),
    node=st.text(max_size=9),
    wall_s=st.floats(0, 1e6),
    cpu_s=st.floats(0, 1e6),
)


def through_json(event: Any) -> Any:
    return json.loads(json.dumps(event, allow_nan=False))


@given(RESULTS)
def test_a_result_survives_the_journal(result: Result) -> None:
    back = result_from_event(through_json(result_to_event(result)))
    for field in fields(Result):
        if field.name != "genome":
            assert getattr(back, field.name) == getattr(result, field.name), field.name
            assert type(getattr(back, field.name)) is type(getattr(result, field.name))
    if result.genome is None:
        assert back.genome is None
    else:
        assert back.genome is not None
        assert back.genome.id == result.genome.id
        assert back.genome.lineage == result.genome.lineage
        assert back.genome.vector_dtype == result.genome.vector_dtype


def test_an_event_names_its_type() -> None:
    assert result_to_event(Result("children", 1, 2, "ok"))["type"] == "result"


# --- rows --------------------------------------------------------------------------------------


def make_plan(**changes: Any) -> ChildPlan:
    values: dict[str, Any] = {
        "kind": "child",
        "generation": 2,
        "index": 5,
        "parents": ("aaaaaaaaaaaa", "bbbbbbbbbbbb"),
        "fitness": (20.0, 10.0),
        "operator": WeightedCrossover(0.25, 0.75),
        "align": "auto",
        "mutation": GaussianMutation(0.5, 0.1),
        "finetune": FINETUNE,
        "seed": (0, 7, 2, 5),
        "rescale": True,
        "preset": "short",
    }
    return ChildPlan(**{**values, **changes})


def make_result(**changes: Any) -> Result:
    values: dict[str, Any] = {
        "status": "ok",
        "genome": make_genome(0, (4,), "none", "float32"),
        "returns": (10.0, 20.0, 60.0),
        "mean_before": 12.5,
        "tuned": True,
        "agreements": (0.5, 0.75),
        "kl": 0.125,
        "attempts": 2,
        "node": "here",
    }
    return Result("children", 2, 5, **{**values, **changes})


def test_the_row_of_a_birth_tells_everything_about_it(tmp_path: Any) -> None:
    result = make_result()
    row = birth_row("mine", make_plan(), result)
    assert result.genome is not None
    save_genome(tmp_path / "genome", result.genome)
    assert row.genome == result.genome.id
    assert row.size_bytes == (tmp_path / "genome").stat().st_size
    assert row.parameters == (3 * 4 + 4) + (4 * 2 + 2)
    assert (row.run, row.kind, row.generation, row.child) == ("mine", "child", 2, 5)
    assert (row.status, row.reason, row.parents) == ("ok", "", ("aaaaaaaaaaaa", "bbbbbbbbbbbb"))
    assert (row.operator, row.operator_params) == (
        "weighted",
        {
            "low": 0.25,
            "high": 0.75,
            "n_parents": 2,
        },
    )
    assert (row.rescale, row.preset) == (True, "short")
    assert (row.align, row.mutation) == (
        "auto",
        {"name": "gaussian", "scale": 0.5, "share": 0.1},
    )
    assert row.finetune == {
        "target": "teachers",
        "steps": 100,
        "learning_rate": 3e-3,
        "temperature": 1.5,
        "hard_weight": 0.1,
        "teacher_weights": (0.25, 0.75),
        "repair": True,
        "kept": True,
    }
    assert (row.fitness, row.episodes, row.return_min, row.return_max) == (30.0, 3, 10.0, 60.0)
    # Deviations -20, -10, 30: variance 1400 / 2 = 700.
    assert row.fitness_sem == pytest.approx((700 / 3) ** 0.5)
    assert (row.fitness_before_finetune, row.delta_vs_better_parent) == (12.5, 10.0)
    assert (row.agreements, row.kl) == ((0.5, 0.75), 0.125)
    assert (row.attempts, row.node) == (2, "here")
    assert row.created_at is not None


@pytest.mark.parametrize("status", ["failed", "rejected", "lost"])
def test_the_row_of_what_was_not_born_has_no_fitness(status: Any) -> None:
    result = Result("children", 2, 5, status, "it broke")
    row = birth_row("mine", make_plan(mutation=None), result)
    assert (row.status, row.reason, row.genome, row.mutation) == (status, "it broke", None, None)
    empty = (
        *(row.fitness, row.fitness_sem, row.episodes, row.return_min, row.return_max),
        *(row.fitness_before_finetune, row.delta_vs_better_parent, row.kl),
        *(row.size_bytes, row.parameters),
    )
    assert set(empty) == {None}


def test_only_children_and_controls_are_compared_with_a_parent() -> None:
    student = make_plan(kind="student", fitness=(float("nan"),), parents=("aaaaaaaaaaaa",))
    assert birth_row("mine", student, make_result()).delta_vs_better_parent is None
    control = make_plan(kind="control", fitness=(25.0,), parents=("aaaaaaaaaaaa",))
    assert birth_row("mine", control, make_result()).delta_vs_better_parent == 5.0
    for row in (birth_row("mine", plan, make_result()) for plan in (student, control)):
        trained_as_a_child = row.kind == "control"
        assert row.preset == ("short" if trained_as_a_child else None)
        assert row.rescale == (True if trained_as_a_child else None)
    fresh = make_plan(kind="control", fitness=(), parents=())
    assert birth_row("mine", fresh, make_result()).delta_vs_better_parent is None


def test_the_row_of_a_member_has_its_pooled_fitness() -> None:
    genome = make_genome(1, (4,), "none", "float32")
    member = Member(genome, FINETUNE, Record.of((10.0, 20.0))).pooled_with([60.0])
    row = member_row("mine", member, 9, Result("elites", 9, 0, "ok", returns=(60.0,)))
    assert (row.kind, row.generation, row.child, row.genome) == ("child", 9, None, genome.id)
    assert (row.fitness, row.episodes, row.fitness_holdout) == (30.0, 3, None)
    assert row.parents == genome.lineage.parents
    assert row.operator == "weighted"
    held_out = member_row("mine", member, 9, Result("holdout", 9, 0, "ok"), Record.of((5.0, 7.0)))
    assert (held_out.fitness, held_out.fitness_holdout) == (30.0, 6.0)
    assert held_out.fitness_holdout_sem == pytest.approx(1.0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_scores_are_mean_standard_error_and_range(returns: list[float]) -> None:
    found = scores(Record.of(returns))
    n = len(returns)
    mean = sum(returns) / n
    assert found["fitness"] == pytest.approx(mean, abs=1e-6)
    spread = (sum((r - mean) ** 2 for r in returns) / max(n - 1, 1)) ** 0.5
    assert found["fitness_sem"] == pytest.approx(spread / n**0.5, abs=1e-6)
    assert found["episodes"] == n
    assert (found["return_min"], found["return_max"]) == (min(returns), max(returns))


def test_scores_of_nothing_are_empty() -> None:
    assert set(scores(None).values()) == {None}


def in_csv(tmp_path: Any, row: Row) -> bytes:
    path = tmp_path / "leaderboard.csv"
    with LeaderboardWriter(path, Columns(teachers=["a", "b"])) as writer:
        writer.rewrite([row])
    return bytes(path.read_bytes())


@pytest.mark.parametrize(
    "row",
    [
        birth_row("mine", make_plan(), make_result()),
        birth_row("mine", make_plan(), Result("children", 2, 5, "failed", 'a "quoted" reason')),
        birth_row("mine", make_plan(), Result("children", 2, 5, "failed", "no file b\udcffd")),
        birth_row("mine", make_plan(kind="control", parents=(), fitness=()), make_result()),
        member_row(
            "mine",
            Member(make_genome(1, (), "none", "float16"), FINETUNE, Record.of((1.0, 2.0))),
            3,
            Result("holdout", 3, 1, "ok", returns=(5.0,)),
            Record.of((5.0,)),
        ),
        Row(run="mine", kind="ensemble", generation=0, fitness=1e-17, agreements=(None, 0.5)),
    ],
)
def test_a_row_survives_the_journal(tmp_path: Any, row: Row) -> None:
    back = row_from_event(through_json(row_to_event(row)))
    assert through_json(asdict(back)) == through_json(asdict(row))
    assert in_csv(tmp_path, back) == in_csv(tmp_path, row)
