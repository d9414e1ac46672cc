"""Plans of the ancestor and of the students."""

from typing import Any

import pytest

from engine.config import RunConfig
from engine.founders import ancestor_plan, student_plans


def make_config(**sections: Any) -> RunConfig:
    return RunConfig.model_validate(sections)


def test_each_student_imitates_one_teacher_in_turn() -> None:
    config = make_config(distillation={"students": 5, "steps": 33, "learning_rate": [0.1, 0.1]})
    plans = student_plans(config, 2, None)
    assert [plan.finetune.teacher_weights for plan in plans] == [
        *[(1.0, 0.0), (0.0, 1.0)] * 2,
        (1.0, 0.0),
    ]
    for index, plan in enumerate(plans):
        assert (plan.kind, plan.phase, plan.generation, plan.index) == (
            *("student", "students"),
            *(0, index),
        )
        assert (plan.operator.name, plan.parents, plan.mutation) == ("fresh", (), None)
        assert (plan.finetune.steps, plan.finetune.target) == (33, "teachers")
        assert plan.finetune.repair
        assert plan.finetune.learning_rate == pytest.approx(0.1)
    assert len({plan.seed for plan in plans}) == 5
    assert len({plan.finetune.temperature for plan in plans}) == 5


def test_students_of_an_ancestor_are_its_clones() -> None:
    for plan in student_plans(make_config(), 2, "abc"):
        assert (plan.operator.name, plan.parents, len(plan.fitness)) == ("clone", ("abc",), 1)


def test_students_do_not_depend_on_how_many_there_are() -> None:
    few, many = (student_plans(make_config(distillation={"students": n}), 3, None) for n in (4, 9))
    for one, other in zip(few, many, strict=False):
        assert (one.seed, one.finetune) == (other.seed, other.finetune)


def test_the_ancestor_imitates_the_mean_of_the_teachers() -> None:
    plan = ancestor_plan(make_config(distillation={"ancestor_steps": 77}), 4)
    assert (plan.kind, plan.phase, plan.index) == ("ancestor", "ancestor", 0)
    assert plan.finetune.teacher_weights == (0.25,) * 4
    assert plan.finetune.steps == 77
    assert plan.operator.name == "fresh"
    assert plan.seed != student_plans(make_config(), 4, None)[0].seed


def test_founders_depend_on_the_run_seed() -> None:
    first, second = (student_plans(make_config(seed=seed), 2, None)[0] for seed in (0, 1))
    assert first.seed != second.seed
    assert first.finetune != second.finetune
