"""Parents of CartPole: what is written, what they depend on, and that they can play."""

import dataclasses
import json
import statistics

import gymnasium
import numpy as np
import pytest
import torch

from engine.errors import StageError
from engine.learning.checkpoints import load_genome_file
from engine.seeding import Purpose, episode_seeds, key
from engine.stages.cartpole.parent_settings import ParentSettings
from engine.stages.cartpole.parent_training import trained_parents, training_config
from engine.stages.cartpole.parents import train_parents
from engine.stages.roles import environment_of, load_role
from engine.stages.state_sets import states_sha256

SMALL = ParentSettings(hidden=16, episodes=5, eval_episodes=3, log_every=2)
FILES = {
    name.replace("X", label)
    for label in "AB"
    for name in (
        "parent_X.pt",
        "parent_X.pt.json",
        "parent_X_int8.pt",
        "parent_X_int8.pt.json",
        "replay_states_X.npy",
    )
}


def quiet(line):
    """Tell nobody."""


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def sidecar(directory, name):
    return json.loads((directory / f"{name}.pt.json").read_text())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return the folder of two small parents, the parents, and what was told."""
    directory, told = tmp_path_factory.mktemp("runs") / "new" / "pair", []
    parents = train_parents(SMALL, directory, told.append)
    return directory, parents, told


def test_the_documented_files_are_written(pair):
    directory, parents, _ = pair
    assert {path.name for path in directory.iterdir()} == FILES
    assert [parent.name for parent in parents] == ["parent_A", "parent_B"]


def test_files_hold_the_networks_and_name_their_environment(pair, agentfarm_network):
    directory, parents, _ = pair
    for parent in parents:
        role = load_role(parent.name, directory / f"{parent.name}.pt")
        rounded = load_role(parent.name, directory / f"{parent.name}_int8.pt")
        assert (role.format, rounded.format) == ("float32", "int8")
        assert environment_of(role, rounded) == "CartPole-v1"
        assert rounded.sidecar["sources"]["float"] == {
            "path": f"{parent.name}.pt",
            "sha256": role.sha256,
        }
        module = agentfarm_network(4, 2, 16, seed=0)
        module.load_state_dict(torch.load(role.path, weights_only=True))
        states = parent.replay_states[:200]
        with torch.no_grad():
            expected = module(torch.from_numpy(states)).numpy()
        np.testing.assert_allclose(role.network.q_values(states), expected, rtol=1e-4, atol=1e-4)
        assert load_genome_file(rounded.path).id == parent.genome.id


def test_equal_settings_write_equal_bytes(pair, tmp_path):
    train_parents(SMALL, tmp_path, quiet)
    assert contents(tmp_path) == contents(pair[0])


def test_a_parent_depends_on_its_own_seed_alone(tmp_path):
    # Large enough, and long enough, for matmuls of a stack of one to end in other bits.
    settings = ParentSettings(episodes=10, eval_episodes=2)
    train_parents(settings, tmp_path / "both", quiet)
    both = contents(tmp_path / "both")
    train_parents(dataclasses.replace(settings, labels=("A",), seed_b=7), tmp_path / "one", quiet)
    train_parents(dataclasses.replace(settings, labels=("B",), seed_a=7), tmp_path / "one", quiet)
    assert contents(tmp_path / "one") == both


def test_other_seeds_give_other_parents(pair):
    _, (first, second), _ = pair
    name = first.network.spec.matrices[0]
    assert not np.array_equal(first.network.weights[name], second.network.weights[name])
    (other,) = trained_parents(dataclasses.replace(SMALL, labels=("A",), seed_a=43), quiet)
    assert not np.array_equal(first.network.weights[name], other.network.weights[name])


def test_replay_states_are_those_of_the_training_and_capped(pair, tmp_path):
    directory, parents, _ = pair
    capped = dataclasses.replace(SMALL, max_replay_states=100, labels=("B",))
    train_parents(capped, tmp_path, quiet)
    for parent in parents:
        states = np.load(directory / f"replay_states_{parent.label}.npy", allow_pickle=False)
        assert (states.dtype, states.shape) == (np.float32, (2048, 4))  # 5 * 500 in whole rollouts
        record = sidecar(directory, parent.name)["replay_states"]
        assert (record["n_states"], record["sha256"]) == (2048, states_sha256(states))
        # Lanes start where gymnasium's own reset puts them.
        env = gymnasium.make("CartPole-v1")
        seeds = np.random.default_rng(
            np.random.SeedSequence(parent.seed, spawn_key=(Purpose.TEACHER_TRAINING,))
        ).integers(2**31, size=32)
        for row, seed in zip(states, seeds.tolist(), strict=False):
            np.testing.assert_array_equal(row, env.reset(seed=seed)[0])
    last = np.load(tmp_path / "replay_states_B.npy")
    np.testing.assert_array_equal(last, parents[1].replay_states[-100:])
    everything = dataclasses.replace(SMALL, max_replay_states=-1, labels=("B",))
    assert len(trained_parents(everything, quiet)[0].replay_states) == 2048


def test_sidecars_tell_of_the_training(pair):
    directory, parents, _ = pair
    for parent, seed in zip(parents, (42, 99), strict=True):
        record = sidecar(directory, parent.name)
        assert (record["kind"], record["label"], record["seed"]) == ("parent", parent.label, seed)
        returns = record["episode_rewards"]
        assert record["episodes_trained"] == len(returns) > 50
        assert record["mean_reward_last_50_episodes"] == statistics.fmean(returns[-50:])
        # A step of CartPole earns 1, so returns add up to the steps of finished episodes.
        assert 2048 - 32 * 500 < sum(returns) <= 2048
        assert record["final_epsilon"] == pytest.approx(0.995**64)  # 2048 steps in 32 lanes
        assert record["config"]["batch_size"] == 64
        assert "seed_b" not in record["config"]


def test_greedy_returns_are_those_of_held_out_episodes(pair):
    directory, parents, told = pair
    seeds = episode_seeds(key(0, Purpose.RETURNS), 3)
    for parent in parents:
        for name in (parent.name, f"{parent.name}_int8"):
            role = load_role(name, directory / f"{name}.pt")
            env, returns = gymnasium.make("CartPole-v1"), []
            for seed in seeds:
                state, _ = env.reset(seed=seed)
                total, over = 0.0, False
                while not over:
                    action = int(role.network.q_values(state[None]).argmax())
                    state, reward, terminated, truncated, _ = env.step(action)
                    total, over = total + float(reward), terminated or truncated
                returns.append(total)
            summary = role.sidecar["metrics"]["greedy_return"]
            assert summary["mean"] == pytest.approx(statistics.fmean(returns))
            assert summary["ci95"][0] <= summary["mean"] <= summary["ci95"][1]
    assert any("over 3 held-out episodes" in line for line in told)


def test_progress_is_told_every_few_episodes_of_the_budget(pair):
    told = [line for line in pair[2] if line.startswith("parent_A") and " steps" in line]
    # Every 2 * 500 steps, seen after each 1,024 of them.
    assert [line.split()[1] for line in told] == ["1,024", "2,048"]


def test_flags_reach_the_trainer():
    settings = ParentSettings(learning_rate=2e-3, gamma=0.9, batch_size=100)
    training = training_config(settings)
    assert (training.learning_rate, training.gamma) == (2e-3, 0.9)
    n_samples = training.lanes * training.rollout
    assert -(-n_samples // training.minibatches) <= 100 < n_samples // (training.minibatches - 1)
    assert training_config(ParentSettings(batch_size=10**6)).minibatches == 1


def test_exploration_falls_per_time_step_to_its_minimum():
    settings = ParentSettings(epsilon_start=0.8, epsilon_min=0.1, epsilon_decay=0.9)
    assert [settings.epsilon(t) for t in (0, 1, 2, 50)] == pytest.approx([0.8, 0.72, 0.648, 0.1])


def test_a_diverged_training_says_so():
    settings = dataclasses.replace(SMALL, learning_rate=1e30, labels=("A",))
    with pytest.raises(StageError, match=r"parent_A: .*NaN or infinity.*--lr 1e\+30"):
        trained_parents(settings, quiet)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": "cuda"}, "--device: expected cpu, not 'cuda'"),
        ({"labels": ("C",)}, "--pair: expected A, B or both, not 'C'"),
        ({"labels": ()}, "--pair: expected A, B or both"),
        ({"episodes": 0}, "--episodes: expected a whole number of at least 1, not 0"),
        ({"seed_a": -1}, "--seed-a: expected a whole number of at least 0, not -1"),
        ({"learning_rate": 0.0}, "--lr: expected a positive number, not 0"),
        ({"learning_rate": float("nan")}, "--lr: expected a positive number, not nan"),
        ({"gamma": 1.5}, "--gamma: expected a number from 0 to 1, not 1.5"),
        ({"epsilon_decay": float("nan")}, "--epsilon-decay: expected a number from 0 to 1"),
        ({"epsilon_start": 0.01}, "--epsilon-min: expected at most --epsilon-start"),
        ({"max_replay_states": 0}, "--max-replay-states: expected a positive number"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(StageError, match=message):
        ParentSettings(**wrong)


def test_a_folder_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StageError, match="file: expected a folder to write to: File exists"):
        train_parents(SMALL, tmp_path / "file", quiet)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(42, 99), (1, 2), (5003, 10)])
def test_default_parents_balance_the_pole_in_both_formats(seeds):
    settings = ParentSettings(seed_a=seeds[0], seed_b=seeds[1])
    for parent in trained_parents(settings, quiet):
        assert parent.held_out()["mean"] >= 475
        assert parent.held_out(int8=True)["mean"] >= 475
        assert parent.int8_agreement > 0.95
