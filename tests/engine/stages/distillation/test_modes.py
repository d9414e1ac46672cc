import numpy as np
import pytest

from engine.errors import StageError
from engine.stages.distillation.modes import (
    HELD_OUT,
    ComparisonSettings,
    compare_modes,
)
from engine.stages.imitation.config import ImitationConfig
from engine.stages.imitation.jobs import Job, imitate
from engine.stages.networks import Network, initial_weights, student_spec, teacher_spec

SETTINGS = ComparisonSettings(
    input_dim=5, output_dim=3, parent_hidden=32, n_states=300, epochs=3, batch_size=32
)


def test_modes_differ_in_alpha_alone_and_have_the_documented_seeds():
    report = compare_modes(SETTINGS, seed=7)
    spec = teacher_spec(5, 3, 32)
    teacher = Network(spec, initial_weights(spec, 7))
    start = Network(student_spec(spec), initial_weights(student_spec(spec), 20_007))
    states = np.random.default_rng(10_007).standard_normal((300, 5)).astype(np.float32)
    assert [(run["mode"], run["alpha"]) for run in report["runs"]] == [
        ("hard_only", 0.0),
        ("blended", 0.7),
        ("soft_only", 1.0),
    ]
    for run in report["runs"]:
        config = ImitationConfig(
            alpha=run["alpha"], epochs=3, batch_size=32, seed=30_007, calibration="none"
        )
        [alone] = imitate([Job(start, (teacher,), config, dropout=0.05)], states)
        assert run["best_val_loss"] == alone.best_loss
        assert run["final_action_agreement"] == alone.looks[-1].agreement
        assert run["final_mean_prob_similarity"] == alone.looks[-1].similarity
        low, high = run["heldout_action_agreement_ci95"]
        assert low < run["heldout_action_agreement"] < high < low + 0.02
    assert report["heldout_states"] == HELD_OUT


def test_same_seed_gives_the_same_report():
    assert compare_modes(SETTINGS, 1) == compare_modes(SETTINGS, 1)
    assert compare_modes(SETTINGS, 1)["runs"] != compare_modes(SETTINGS, 2)["runs"]


@pytest.mark.parametrize(
    ("settings", "seed", "message"),
    [
        ({"output_dim": 1}, 0, "--output-dim must be at least 2, not 1"),
        ({"n_states": 1}, 0, "--n-states must be at least 2, not 1"),
        ({"temperature": 0.0}, 0, "temperature must be a positive number"),
        ({"val_fraction": 1.0}, 0, "val_fraction must be"),
        ({}, 2**32, "seed must be from 0 to 4294967295"),
    ],
)
def test_settings_out_of_range_are_named(settings, seed, message):
    with pytest.raises(StageError, match=message):
        compare_modes(ComparisonSettings(**settings), seed)
