import numpy as np
import pytest

from engine.learning.pqn import Rollout
from engine.learning.training_diary import TrainingDiary

N_STEPS, N_LANES = 5, 3


def rollouts(n, seed=0):
    rng = np.random.default_rng(seed)
    shape = (N_STEPS, 1, N_LANES)
    for _ in range(n):
        states = rng.standard_normal((*shape, 4)).astype(np.float32)
        yield Rollout(
            observations=states,
            next_observations=states,
            actions=rng.integers(2, size=shape),
            rewards=rng.integers(1, 9, size=shape).astype(np.float32),
            terminated=rng.random(shape) < 0.2,
            truncated=rng.random(shape) < 0.1,
        )


@pytest.mark.parametrize("cap", [None, 1, 14, 15, 16, 44, 45, 1000])
def test_the_latest_states_are_kept_in_their_order(cap):
    diary = TrainingDiary(cap)
    lived = list(rollouts(3))
    for rollout in lived:
        diary.note(rollout)
    everything = np.concatenate([r.observations.reshape(-1, 4) for r in lived])
    kept = diary.states()
    np.testing.assert_array_equal(kept, everything[-(cap or 45) :])
    assert kept.dtype == np.float32
    assert diary.n_visited == 45


def test_returns_are_the_sums_of_episodes_that_go_on_between_rollouts():
    diary = TrainingDiary(None)
    lived = list(rollouts(6))
    for rollout in lived:
        diary.note(rollout)
    expected = []
    sums = [0.0] * N_LANES
    for rollout in lived:
        for t in range(N_STEPS):
            for lane in range(N_LANES):
                sums[lane] += rollout.rewards[t, 0, lane]
                if rollout.terminated[t, 0, lane] or rollout.truncated[t, 0, lane]:
                    expected.append(sums[lane])
                    sums[lane] = 0.0
    assert len(expected) > 10
    assert diary.returns == expected
    assert diary.recent_return(4) == pytest.approx(sum(expected[-4:]) / 4)


def test_there_is_no_recent_return_before_an_episode_ends():
    assert TrainingDiary(None).recent_return(50) is None
