"""Training of teachers: its parts against formulas and torch, the whole by its promises."""

import numpy as np
import pytest
import torch

from engine.config import RunConfig
from engine.errors import TeacherError
from engine.learning.pqn import PQN, RAdam, Rollout, clip_per_network, lambda_returns
from engine.learning.qnetwork import StackedQNetwork, sequential
from engine.learning.teachers import load_teachers, train_teachers
from engine.playing.environments import describe, make_lanes
from engine.playing.evaluation import evaluate
from engine.playing.policies import StackedPolicy
from engine.seeding import Purpose, episode_seeds, key
from populations.network import NetworkSpec
from populations.storage import save_weights

torch.set_num_threads(1)

TINY = {"lanes": 8, "rollout": 16, "epochs": 1, "minibatches": 2, "checkpoints": 2}


def run_config(seed=0, hidden=(16,), **training):
    return RunConfig.model_validate(
        {"seed": seed, "teachers": {"hidden": hidden, "training": TINY | training}}
    )


def train(config, on_progress=None):
    return train_teachers(config, describe(config.environment), on_progress)


def assert_same_weights(first, second):
    assert list(first.weights) == list(second.weights)
    for name, tensor in first.weights.items():
        assert tensor.tobytes() == second.weights[name].tobytes(), name


def random_rollout(rng, n_steps=7, n_networks=2, n_lanes=3):
    shape = (n_steps, n_networks, n_lanes)
    observations = rng.standard_normal((*shape, 4)).astype(np.float32)
    return Rollout(
        observations=observations,
        next_observations=observations,
        actions=rng.integers(2, size=shape),
        rewards=rng.standard_normal(shape).astype(np.float32),
        terminated=rng.random(shape) < 0.2,
        truncated=rng.random(shape) < 0.2,
    )


def returns_by_definition(rollout, next_values, scale, gamma, trace_decay, t, lane):
    """Return the lambda-return of one lane, written as the recursion of the paper."""
    reward = scale * rollout.rewards[t][lane]
    if rollout.terminated[t][lane]:
        return reward
    bootstrap = next_values[t][lane]
    if rollout.truncated[t][lane] or t == len(next_values) - 1:
        return reward + gamma * bootstrap
    later = returns_by_definition(rollout, next_values, scale, gamma, trace_decay, t + 1, lane)
    return reward + gamma * ((1 - trace_decay) * bootstrap + trace_decay * later)


@pytest.mark.parametrize("trace_decay", [0.0, 0.7, 1.0])
def test_lambda_returns_follow_the_recursion(trace_decay):
    rng = np.random.default_rng(0)
    rollout = random_rollout(rng)
    next_values = rng.standard_normal(rollout.rewards.shape).astype(np.float32)
    returns = lambda_returns(rollout, next_values, 0.1, 0.9, trace_decay)
    for t, *lane in np.ndindex(rollout.rewards.shape):
        expected = returns_by_definition(
            rollout, next_values, 0.1, 0.9, trace_decay, t, tuple(lane)
        )
        assert returns[(t, *lane)] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_time_limit_is_not_an_end():
    rollout = random_rollout(np.random.default_rng(0), n_steps=1, n_networks=1, n_lanes=1)
    next_values = np.full((1, 1, 1), 50.0, dtype=np.float32)
    for is_truncated, worth in ((True, 0.9 * 50), (False, 0.0)):
        rollout.truncated[:] = is_truncated
        rollout.terminated[:] = not is_truncated
        returns = lambda_returns(rollout, next_values, 1.0, 0.9, 0.5)
        assert returns.item() == pytest.approx(rollout.rewards.item() + worth)


def test_rollouts_show_the_last_observation_of_a_cut_episode_and_not_the_next_start():
    config = RunConfig.model_validate(
        {"environment": {"kwargs": {"max_episode_steps": 3}}, "teachers": {"training": TINY}}
    )
    learner = make_learner(config)
    rollout = learner.rollout(epsilon=1.0)
    cut = rollout.truncated[:-1]
    assert cut.any()
    assert not rollout.terminated.any()
    # A start lies within 0.05 of the origin in all four numbers; three pushes leave it.
    assert (np.abs(rollout.observations[1:][cut]) <= 0.05).all()
    assert (np.abs(rollout.next_observations[:-1][cut]).max(axis=1) > 0.05).all()
    went_on = ~cut
    np.testing.assert_array_equal(
        rollout.observations[1:][went_on], rollout.next_observations[:-1][went_on]
    )


def make_learner(config, n_networks=2):
    spec = NetworkSpec((4,), (8,), 2, norm="layer")
    rng = np.random.default_rng(0)
    weights = [
        {n: rng.standard_normal(s).astype(np.float32) for n, s in spec.shapes.items()}
        for _ in range(n_networks)
    ]
    settings = config.teachers.training
    return PQN(
        StackedQNetwork.from_weights(spec, weights),
        settings,
        make_lanes(config.environment, n_networks * settings.lanes),
        [np.random.default_rng(i) for i in range(n_networks)],
        np.random.default_rng(99),
    )


def test_learning_scales_rewards_but_returns_weights_in_their_units():
    learner = make_learner(run_config(reward_scale=0.25))
    observations = torch.randn(5, 4)
    scaled = learner.network.forward(observations)[1]
    true = sequential(learner.network.spec, learner.weights()[1])(observations)
    torch.testing.assert_close(true, scaled / 0.25)


def test_radam_takes_the_steps_of_torch():
    rng = torch.Generator().manual_seed(0)
    ours = [torch.randn(3, 4, generator=rng), torch.randn(3, generator=rng)]
    theirs = [tensor.clone().requires_grad_() for tensor in ours]
    optimizer = RAdam(ours)
    reference = torch.optim.RAdam(theirs, lr=0.01)
    for _ in range(12):  # rectification starts with the sixth step
        gradients = [torch.randn(tensor.shape, generator=rng) for tensor in ours]
        for tensor, gradient in zip(theirs, gradients, strict=True):
            tensor.grad = gradient.clone()
        optimizer.step(gradients, learning_rate=0.01)
        reference.step()
        for tensor, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(tensor, expected.detach())


def test_gradients_are_clipped_network_by_network():
    sizes = torch.tensor([0.01, 10.0, 1e4])
    gradients = [torch.randn(3, 5, 4) * sizes.view(3, 1, 1), torch.randn(3, 5) * sizes.view(3, 1)]
    clipped = clip_per_network(gradients, max_norm=2.0)
    for k in range(3):
        leaves = [torch.zeros_like(g[k]).requires_grad_() for g in gradients]
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient[k].clone()
        torch.nn.utils.clip_grad_norm_(leaves, 2.0)
        for leaf, tensor in zip(leaves, clipped, strict=True):
            torch.testing.assert_close(tensor[k], leaf.grad)


def test_equal_seeds_give_equal_bytes():
    config = run_config(steps=(1024, 384))
    first, second = train(config), train(config)
    for one, other in zip(first, second, strict=True):
        assert_same_weights(one, other)
    changed = train(run_config(steps=(1024, 384), seed=1))
    assert any(
        (changed[0].weights[name] != first[0].weights[name]).any() for name in first[0].weights
    )


def test_a_teacher_does_not_depend_on_the_shorter_budgets_of_others():
    pair = train(run_config(steps=(1024, 384)))
    trio = train(run_config(steps=(1024, 384, 256)))
    swapped = train(run_config(steps=(1024, 768, 256)))
    for a, b in ((pair[0], trio[0]), (pair[1], trio[1]), (pair[0], swapped[0])):
        assert_same_weights(a, b)
    assert_same_weights(trio[2], swapped[2])


def test_budgets_count_whole_rollouts_and_teachers_differ():
    seen = []
    config = run_config(steps=(1024, 500, 1), checkpoints=4)
    teachers = train(config, lambda *event: seen.append(event))
    assert [teacher.name for teacher in teachers] == ["teacher-0", "teacher-1", "teacher-2"]
    assert [teacher.steps for teacher in teachers] == [1024, 384, 128]
    assert all(teacher.checkpoint_step <= teacher.steps for teacher in teachers)
    assert [step for name, step, _ in seen if name == "teacher-0"] == [256, 512, 768, 1024]
    assert [step for name, step, _ in seen if name == "teacher-1"] == [128, 256, 384]
    assert [step for name, step, _ in seen if name == "teacher-2"] == [128]
    first = teachers[0].spec.matrices[0]
    assert not np.array_equal(teachers[0].weights[first], teachers[1].weights[first])


def test_the_best_checkpoint_is_kept():
    seen = []
    config = run_config(steps=(2048,), checkpoints=8)
    (teacher,) = train(config, lambda *event: seen.append(event))
    best = max(score for _, _, score in seen)
    assert teacher.checkpoint_return == best
    assert teacher.checkpoint_step == max(step for _, step, score in seen if score == best)
    seeds = episode_seeds(
        key(config.seed, Purpose.TEACHER_CHECKPOINTS, 0),
        config.teachers.training.checkpoint_episodes,
    )
    played = evaluate(config.environment, StackedPolicy(teacher.spec, [teacher.weights]), seeds)
    assert played.returns.mean() == best


def test_training_makes_a_teacher_that_balances_the_pole():
    teachers = {"hidden": [64, 64], "training": {"steps": [40_000]}}
    config = RunConfig.model_validate({"teachers": teachers})
    (teacher,) = train(config)
    seeds = range(10**6, 10**6 + 32)
    played = evaluate(config.environment, StackedPolicy(teacher.spec, [teacher.weights]), seeds)
    assert played.returns.mean() > 150  # a random policy gets 22, one constant action 9


def save_teacher(path, spec, seed=0):
    rng = np.random.default_rng(seed)
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in spec.shapes.items()}
    if path.suffix == ".pt":
        torch.save(sequential(spec, weights).state_dict(), path)
    else:
        save_weights(path, spec, weights, {})
    return weights


def cartpole():
    return describe(RunConfig().environment)


def test_teachers_of_files_differ_in_room_for_dropout_at_most(tmp_path):
    plain = NetworkSpec((4,), (8, 8), 2, norm="layer")
    slotted = NetworkSpec((4,), (8, 8), 2, norm="layer", dropout_slots=True)
    files = [tmp_path / "a.pt", tmp_path / "b.safetensors"]
    weights = [save_teacher(files[0], slotted), save_teacher(files[1], plain, seed=1)]
    teachers = load_teachers([str(file) for file in files], cartpole())
    x = torch.randn(6, 4)
    for teacher, spec, w, file in zip(teachers, (slotted, plain), weights, files, strict=True):
        assert teacher.spec == plain
        assert teacher.source == str(file)
        expected = sequential(spec, w).eval()(x)
        torch.testing.assert_close(sequential(teacher.spec, teacher.weights)(x), expected)


def test_teachers_of_different_architectures_are_refused(tmp_path):
    files = [tmp_path / "a.pt", tmp_path / "b.pt"]
    save_teacher(files[0], NetworkSpec((4,), (8, 8), 2, norm="layer"))
    save_teacher(files[1], NetworkSpec((4,), (16,), 2))
    with pytest.raises(
        TeacherError,
        match=r"share one architecture, but .*a\.pt has hidden widths \[8, 8\] with LayerNorm and "
        r".*b\.pt has hidden widths \[16\] with no normalization",
    ):
        load_teachers(files, cartpole())


def test_a_teacher_of_another_task_is_refused(tmp_path):
    path = tmp_path / "lander.pt"
    save_teacher(path, NetworkSpec((8,), (16,), 4))
    with pytest.raises(
        TeacherError,
        match=r"lander\.pt: CartPole-v1 has observations of 4 numbers and 2 actions, but this "
        r"network takes 8 numbers and has 4 actions",
    ):
        load_teachers([path], cartpole())
