import numpy as np
import pytest
import torch

from engine.errors import StageError
from engine.stages.cartpole.tuning import (
    Tuning,
    Variant,
    dual_metrics,
    scaled_kl,
    tune,
)
from engine.stages.networks import Network, initial_weights, student_spec, teacher_spec
from engine.stages.recombination.finetuning_config import FineTuningConfig

TEACHER = teacher_spec(4, 2, 32)
STUDENT = student_spec(TEACHER)
STATES = np.random.default_rng(0).normal(0, 0.3, (200, 4)).astype(np.float32)


def network(seed: int, spec=STUDENT) -> Network:
    return Network(spec, initial_weights(spec, seed))


def tuning(**changes) -> Tuning:
    settings = {
        "teachers": (network(1, TEACHER), network(2, TEACHER)),
        "config": FineTuningConfig(epochs=2, batch_size=64, seed=0, max_grad_norm=None),
        "weight_a": 0.5,
        "n_variants": 6,
        "episodes": 3,
        "seed": 0,
        "dropout": 0.05,
        "calibration": STATES[:64],
    }
    return Tuning(**(settings | changes))


def test_the_first_variant_is_the_documented_one() -> None:
    assert tuning(n_variants=1, weight_a=0.3).variants() == [Variant(3.0, 0.3)]
    assert tuning().variants() == [
        Variant(3.0, 0.5),
        Variant(1.0, 0.5),
        Variant(3.0, 0.75),
        Variant(1.0, 0.75),
        Variant(3.0, 0.25),
        Variant(1.0, 0.25),
    ]


def test_a_weight_at_its_end_gives_no_variant_twice() -> None:
    variants = tuning(weight_a=1.0).variants()
    assert variants == [Variant(3.0, 1.0), Variant(1.0, 1.0), Variant(3.0, 0.5), Variant(1.0, 0.5)]


def test_the_best_of_the_worse_returns_is_kept_and_the_first_of_equals() -> None:
    done = tune({"x": network(3), "y": network(4)}, tuning(), STATES)
    for tuned in done.values():
        worse = [min(one["mean_return"], one["int8_mean_return"]) for one in tuned.tried]
        kept = [one["kept"] for one in tuned.tried]
        assert kept.index(True) == worse.index(max(worse))
        assert kept.count(True) == 1
        row = tuned.tried[kept.index(True)]
        assert tuned.variant == Variant(row["temperature"], row["teacher_weight_a"])
        assert tuned.outcome.child.shares == (tuned.variant.weight_a, 1 - tuned.variant.weight_a)
        assert tuned.outcome.child.config.temperature == tuned.variant.temperature


def test_what_becomes_of_a_network_does_not_depend_on_its_neighbors() -> None:
    both = tune({"x": network(3), "y": network(4)}, tuning(), STATES)
    alone = tune({"y": network(4)}, tuning(), STATES)
    assert alone["y"].tried == both["y"].tried
    for name, tensor in alone["y"].outcome.network.weights.items():
        np.testing.assert_array_equal(both["y"].outcome.network.weights[name], tensor)


def test_the_divergence_is_that_of_torch() -> None:
    rng = np.random.default_rng(5)
    reference, query = rng.normal(0, 3, (2, 40, 2)).astype(np.float32)
    expected = 9 * torch.nn.functional.kl_div(
        torch.log_softmax(torch.from_numpy(query) / 3, dim=1),
        torch.softmax(torch.from_numpy(reference) / 3, dim=1),
        reduction="batchmean",
    )
    assert scaled_kl(reference, query, 3.0) == pytest.approx(float(expected), rel=1e-5)


def test_a_teacher_agrees_with_itself_and_the_loss_is_weighted() -> None:
    settings = tuning(weight_a=0.25)
    metrics = dual_metrics(settings.teachers[0], settings, STATES)
    assert (metrics["agree_a"], metrics["kl_a"]) == (1.0, pytest.approx(0, abs=1e-9))
    assert metrics["dual_loss"] == pytest.approx(0.75 * metrics["kl_b"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_a": 1.5}, "--finetune-teacher-weight-a must be from 0 to 1, not 1.5"),
        ({"n_variants": 0}, "--finetune-variants must be from 1 to 6, not 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message) -> None:
    with pytest.raises(StageError, match=message):
        tuning(**changes)
