import numpy as np

from engine.stages.cartpole.findings import crossing, warnings
from engine.stages.networks import Network, initial_weights, teacher_spec

SPEC = teacher_spec(4, 2, 16)
STATES = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)


def returns(**means: float | None) -> dict:
    return {
        "roles": {
            name: {"mean": mean, "ci95": None if mean is None else [mean - 5, mean + 5]}
            for name, mean in means.items()
        }
    }


def network(bias: float = 0.0) -> Network:
    """Return a network that prefers the first action by ``bias``."""
    weights = initial_weights(SPEC, 0)
    weights[SPEC.blocks[-1].bias][0] = bias
    return Network(SPEC, weights)


def test_poor_players_are_named_whatever_they_agree_on() -> None:
    [warning] = warnings({}, STATES, returns(parent_A=9.4, child=9.3))
    assert warning.startswith(
        "no network plays well: the best mean return is 9.4, where CartPole-v1 offers 500;"
    )
    [warning] = warnings({}, STATES, returns(parent_A=500.0, child=200.0, broken=None))
    assert "its mean return is 200.0, where the best network has 500.0" in warning
    assert warnings({}, STATES, returns(parent_A=500.0, child=499.0)) == []


def test_networks_that_do_the_same_everywhere_are_named() -> None:
    players = {"parent_A": network(), "child": network(100.0)}
    [warning] = warnings(players, STATES, returns(parent_A=500.0, child=500.0))
    assert warning.startswith("one action in all 200 held-out states: child; agreement")


def test_crossing_is_judged_by_the_intervals_of_what_was_fine_tuned_alike() -> None:
    verdicts = {
        (500.0, 480.0, 300.0): "crossing helped here",
        (500.0, 495.0, 300.0): "crossing did not help here",
        (300.0, 480.0, 100.0): "crossing did harm here",
    }
    for (child, copy, random), verdict in verdicts.items():
        sentence = crossing(returns(child=child, student_A_finetuned=copy, random_finetuned=random))
        assert sentence.endswith(verdict)
        assert f"the child returns {child}, a copy of student A {copy}" in sentence
    unknown = returns(child=1.0, student_A_finetuned=None, random_finetuned=1.0)
    assert "not known" in crossing(unknown)
