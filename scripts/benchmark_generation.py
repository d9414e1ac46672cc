"""Compare the stacked path with the plain way, one network at a time, on one core.

Both sides run in turn in one process, so that a noisy machine slows both; times are CPU seconds of
one thread, medians over the rounds, and what counts is the ratio.

    python scripts/benchmark_generation.py [--rounds 5] [--json FILE]
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.nn import functional

from engine.config import EnvironmentConfig
from engine.learning.course import Course
from engine.learning.qnetwork import sequential
from engine.learning.training import train
from engine.playing.evaluation import evaluate
from engine.playing.policies import StackedPolicy
from populations.network import NetworkSpec

SPEC = NetworkSpec((4,), (32, 32), 2)
BATCH = 64
STEPS = 100
N_STATES = 3584
N_VALIDATION = 64
STACKS = (1, 8, 64)
GENOMES, EPISODES, LENGTH = 64, 32, 500
PLAIN_EPISODES = 4
# Layers of the student, forward and the two backward products, two operations per weight.
FLOPS_PER_STEP = 2 * 3 * BATCH * sum(block.n_in * block.n_out for block in SPEC.blocks)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds that ``work`` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turn(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return CPU seconds of each side, measured in turn after one warm-up."""
    for work in sides.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            seconds[name].append(cpu_seconds(work))
    return seconds


def random_weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a network with random weights."""
    return {
        name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in SPEC.shapes.items()
    }


def balancer() -> dict[str, np.ndarray]:
    """Return a network that balances the pole for all 500 steps: a linear controller."""
    weights = {name: np.zeros(shape, np.float32) for name, shape in SPEC.shapes.items()}
    push = np.array([0.05, 0.2, 1.0, 0.5], np.float32)
    weights["network.0.weight"][:2] = push, -push
    weights["network.2.weight"][:2, :2] = np.eye(2)
    weights["network.4.weight"][:, :2] = [[0, 1], [1, 0]]
    return weights


def make_course(n_networks: int, int8_in_loop: bool, rng: np.random.Generator) -> Course:
    """Return a fine-tuning of ``n_networks`` towards random smooth targets."""
    states = rng.standard_normal((N_STATES, 4)).astype(np.float32)
    validation = rng.standard_normal((N_VALIDATION, 4)).astype(np.float32)
    slopes = rng.standard_normal((n_networks, 2, 4)).astype(np.float32)
    return Course(
        train_states=states,
        train_targets=np.einsum("kai,ni->kan", slopes, states),
        validation_states=validation,
        validation_targets=np.einsum("kai,ni->kan", slopes, validation),
        steps=STEPS,
        batch_size=BATCH,
        learning_rates=np.full(n_networks, 3e-3, np.float32),
        temperatures=np.ones(n_networks, np.float32),
        hard_weights=np.zeros(n_networks, np.float32),
        int8_in_loop=int8_in_loop,
        validation_every=STEPS,
        order=(0, 1),
    )


def finetune_plainly(weights: dict[str, np.ndarray], course: Course) -> None:
    """Fine-tune one network as one would write it first: a module, Adam, a loop."""
    module = sequential(SPEC, weights)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    states = torch.from_numpy(course.train_states)
    wanted = torch.softmax(torch.from_numpy(course.train_targets[0]).t(), dim=1)
    order = torch.randperm(N_STATES)
    for step in range(STEPS):
        start = step * BATCH % (N_STATES - BATCH + 1)
        rows = order[start : start + BATCH]
        values = functional.log_softmax(module(states[rows]), dim=1)
        loss = functional.kl_div(values, wanted[rows], reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def play_plainly(weights: dict[str, np.ndarray]) -> None:
    """Play full-length episodes as one would write it first: one environment, one module."""
    module = sequential(SPEC, weights)
    environment = gymnasium.make("CartPole-v1")
    for seed in range(PLAIN_EPISODES):
        observation, _ = environment.reset(seed=seed)
        ended, length = False, 0
        while not ended:
            with torch.no_grad():
                action = int(module(torch.from_numpy(observation)[None]).argmax())
            observation, _, terminated, truncated, _ = environment.step(action)
            ended, length = terminated or truncated, length + 1
        assert length == LENGTH, f"the benchmark's policy fell after {length} steps"
    environment.close()


def matmul_peak() -> float:
    """Return the floating-point operations per CPU second of one large matrix product."""
    size = 1024
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = min(cpu_seconds(lambda: torch.mm(a, b)) for _ in range(10))
    return 2 * size**3 / seconds


def finetuning(rounds: int) -> dict[str, float]:
    """Return microseconds per network and step of each side."""
    rng = np.random.default_rng(0)
    plain = random_weights(rng)
    plain_course = make_course(1, False, rng)
    sides: dict[str, Callable[[], object]] = {
        "plain": lambda: finetune_plainly(plain, plain_course)
    }
    count = {"plain": 1}
    for n_networks in STACKS:
        weights = [random_weights(rng) for _ in range(n_networks)]
        for int8 in (False, True):
            label = f"stacked, K = {n_networks}{', int8 in the loop' if int8 else ''}"
            course = make_course(n_networks, int8, rng)
            sides[label] = lambda w=weights, c=course: train(SPEC, w, c)
            count[label] = n_networks
    measured = in_turn(sides, rounds)
    return {
        label: 1e6 * statistics.median(seconds) / STEPS / count[label]
        for label, seconds in measured.items()
    }


def playing(rounds: int) -> dict[str, float]:
    """Return environment steps per CPU second of each side."""
    environment = EnvironmentConfig()
    weights = balancer()
    policy = StackedPolicy(SPEC, [weights] * GENOMES)
    seeds = range(EPISODES)
    assert (evaluate(environment, policy, seeds).lengths == LENGTH).all(), "a policy fell"
    measured = in_turn(
        {
            "plain": lambda: play_plainly(weights),
            f"stacked, {GENOMES} genomes": lambda: evaluate(environment, policy, seeds),
        },
        rounds,
    )
    steps = {"plain": PLAIN_EPISODES * LENGTH}
    return {
        label: steps.get(label, GENOMES * EPISODES * LENGTH) / statistics.median(seconds)
        for label, seconds in measured.items()
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        report(arguments.rounds, arguments.json)


def report(rounds: int, file: Path | None) -> None:
    """Measure, print, and on request write the figures."""
    peak = matmul_peak()
    print(
        f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch "
        f"{torch.__version__}, one thread; matmul peak {peak / 1e9:.0f} GFLOP/s"
    )
    training = finetuning(rounds)
    print(f"\nfine-tuning, 32+32 units, batch {BATCH}: microseconds per network and step")
    for label, microseconds in training.items():
        share = FLOPS_PER_STEP / (microseconds * 1e-6) / peak
        ratio = training["plain"] / microseconds
        print(f"  {label:<34} {microseconds:8.1f} us {ratio:7.1f}x  {share:6.1%} of peak")
    games = playing(rounds)
    print(f"\nCartPole-v1, {EPISODES} episodes of {LENGTH} steps: steps per second")
    for label, rate in games.items():
        print(f"  {label:<34} {rate:12,.0f} {rate / games['plain']:7.1f}x")
    if file is not None:
        figures = {"peak_flops": peak, "finetuning_us": training, "playing_steps_per_s": games}
        file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
