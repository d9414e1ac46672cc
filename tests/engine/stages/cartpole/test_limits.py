import numpy as np
import pytest

from engine.errors import StageError
from engine.stages.cartpole.limits import ChildLimits, StudentLimits
from engine.stages.validation.fidelity import compare


def test_the_defaults_are_the_documented_limits() -> None:
    # Source: the constants and flags of AgentFarm's run_dual_teacher_cartpole.
    child, student = ChildLimits().to_dict(), StudentLimits().to_dict()
    assert {name: child[name] for name in list(child)[:4]} == {
        "min_action_agreement": 0.50,
        "max_kl_divergence": 2.0,
        "max_mse": 10.0,
        "min_cosine_similarity": 0.50,
    }
    assert student == {"min_action_agreement": 0.80, "max_distill_kl": 1.0}


def test_a_shift_of_each_state_does_not_count_and_other_errors_do() -> None:
    rng = np.random.default_rng(0)
    parent = rng.normal(90, 10, (200, 2)).astype(np.float32)
    shifted = parent + rng.normal(0, 20, (200, 1)).astype(np.float32)
    further = parent + np.array([[4, -4]], np.float32)  # centered error 4^2 on both actions
    for child, error in ((shifted, 0.0), (further, 16.0)):
        checks = {c.name: c for c in ChildLimits().checks(compare(parent, child), prefix="x.")}
        assert list(checks) == [
            "x.action_agreement",
            "x.kl_divergence",
            "x.centered_mse",
            "x.mean_cosine_similarity",
        ]
        assert checks["x.centered_mse"].value == pytest.approx(error, abs=1e-3)
        assert checks["x.centered_mse"].passed == (error < 10)


def test_metrics_that_are_missing_fail() -> None:
    assert not any(check.passed for check in ChildLimits().checks({"mse": 0.0}))


def test_limits_out_of_range_are_refused() -> None:
    with pytest.raises(StageError, match="--max-mse must be a number of at least 0, not -1"):
        ChildLimits(max_mse=-1)
    with pytest.raises(StageError, match=r"must be a number from 0 to 1, not 1\.5"):
        StudentLimits(min_action_agreement=1.5)
