"""Compare the bred champion with what the same CPU time gives without breeding.

For every seed: one run of a preset, then runs with its teachers at about equal CPU time:
- clone + mutate + fine-tune: no crossover, but everything else;
- random + fine-tune: children start from random weights and inherit only the mix of teachers;
- random + fine-tune, random mix: children inherit nothing;
- restarts: students only, each of one teacher.
Champions are chosen alike, by fitness and then on held-out episodes; the returns below are over
fresh episodes that no run has seen. All work is done in this process, on one core.

    python scripts/compare_breeding.py [--preset cartpole] [--seeds 0 1 2] [--output FOLDER]
"""

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from engine.config import RunConfig
from engine.config_file import load_config
from engine.launch import launch
from engine.learning.states import teacher_values
from engine.learning.targets import targets
from engine.playing.evaluation import evaluate
from engine.playing.policies import EnsemblePolicy, Policy, StackedPolicy
from engine.progress import SilentProgress
from engine.seeding import Purpose, episode_seeds, key
from populations.leaderboard import load_leaderboard
from populations.leaderboard_query import best_rows, filter_rows, sort_rows
from populations.storage import load_genome, load_pack, load_weights

TEST_EPISODES = 1024
CLONE = "evolution.recipes=[{operator: clone}]"
FRESH = "evolution.recipes=[{operator: fresh}]"
WAYS = {
    "clone + mutate + fine-tune": [CLONE],
    "random + fine-tune": [FRESH],
    "random + fine-tune, random mix": [FRESH, "finetune.teacher_weights=random"],
}


@dataclass(frozen=True)
class Outcome:
    """What one way of spending CPU time led to."""

    way: str
    seed: int
    test_return: float
    test_sem: float
    cpu_s: float
    births: int
    detail: str = ""


def test(config: RunConfig, policy: Policy) -> list[tuple[float, float]]:
    """Return mean and standard error over the fresh episodes, for each network of a policy."""
    seeds = episode_seeds(key(config.seed, Purpose.HOLDOUT, 1), TEST_EPISODES)
    returns = evaluate(config.environment, policy, seeds).returns
    sems = returns.std(axis=1, ddof=1) / np.sqrt(TEST_EPISODES)
    return list(zip(returns.mean(axis=1).tolist(), sems.tolist(), strict=True))


def run(config: RunConfig, folder: Path, way: str) -> Outcome:
    """Run to the champion and let it play the fresh episodes."""
    start = time.process_time()
    champion = launch(config, folder, SilentProgress())
    seconds = time.process_time() - start
    rows = load_leaderboard([folder])
    genome = load_genome(champion.path)
    ((mean, sem),) = test(config, StackedPolicy(genome.spec, [genome.to_weights()]))
    lineage = genome.lineage
    bred = rows[~rows["kind"].isin(["teacher", "ensemble"])]
    breeding = float(bred["cpu_s"].sum())
    births = int(rows["child"].notna().sum() - (rows["kind"] == "teacher").sum())
    detail = f"{lineage.kind} of generation {lineage.generation}, {lineage.operator}"
    print(f"  {way}: {mean:.1f} ± {sem:.1f}, {detail} ({seconds:.0f} CPU-s in all)", flush=True)
    return Outcome(way, config.seed, mean, sem, breeding, births, detail)


def baselines(config: RunConfig, folder: Path) -> list[Outcome]:
    """Let the teachers, their ensemble, and the best student play the fresh episodes."""
    loaded = [load_weights(path) for path in sorted((folder / "teachers").iterdir())]
    spec, weights = loaded[0][0], [network for _, network, _ in loaded]
    with np.load(folder / "states.npz") as file:
        _, scales = targets(teacher_values(spec, weights, file["states"]), "advantages")
    scores = test(config, StackedPolicy(spec, weights))
    best = max(scores)
    outcomes = [
        Outcome("best teacher", config.seed, *best, 0, 0),
        Outcome("worst teacher", config.seed, *min(scores), 0, 0),
        Outcome(
            "ensemble", config.seed, *test(config, EnsemblePolicy(spec, weights, scales))[0], 0, 0
        ),
    ]
    students = filter_rows(load_leaderboard([folder]), "kind == 'student' and generation == 0")
    scored = filter_rows(best_rows(students), "status == 'ok'")
    top = sort_rows(scored, ["-fitness"]).iloc[0]
    genome = load_pack(folder / "genomes/gen-0000.safetensors")[top["genome"]]
    score = test(config, StackedPolicy(genome.spec, [genome.to_weights()]))[0]
    cpu = float(students["cpu_s"].sum())
    outcomes.append(Outcome("generation 0, best", config.seed, *score, cpu, len(students)))
    median = float(students["fitness"].median())
    outcomes.append(
        Outcome("generation 0, median", config.seed, median, float("nan"), cpu, len(students))
    )
    return outcomes


def compare(preset: str, seed: int, output: Path, overrides: list[str]) -> list[Outcome]:
    """Return the outcomes of one seed."""
    config = load_config(preset, [f"seed={seed}", "dispatch.workers=0", *overrides])
    folder = output / f"bred-{seed}"
    print(f"seed {seed}", flush=True)
    bred = run(config, folder, "bred")
    outcomes = [*baselines(config, folder), bred]
    files = sorted(str(path) for path in (folder / "teachers").iterdir())
    teachers = f"teachers.files={files}"
    for number, (way, settings) in enumerate(WAYS.items()):
        other = load_config(
            preset, [f"seed={seed}", "dispatch.workers=0", *overrides, teachers, *settings]
        )
        outcomes.append(run(other, output / f"control-{number}-{seed}", way))
    students = filter_rows(load_leaderboard([folder]), "kind == 'student' and generation == 0")
    n_students = round(bred.cpu_s / float(students["cpu_s"].mean()))
    restarts = load_config(
        preset,
        [
            f"seed={seed}",
            "dispatch.workers=0",
            *overrides,
            teachers,
            "evolution.generations=0",
            f"distillation.students={n_students}",
        ],
    )
    outcomes.append(run(restarts, output / f"restarts-{seed}", "restarts"))
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """Return a Markdown table: a row per way, a column per seed."""
    seeds = sorted({outcome.seed for outcome in outcomes})
    ways = list(dict.fromkeys(outcome.way for outcome in outcomes))
    lines = [
        f"| | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | CPU-s | births |",
        f"|---|{'---|' * (len(seeds) + 3)}",
    ]
    for way in ways:
        mine = {o.seed: o for o in outcomes if o.way == way}
        cells = [f"{mine[seed].test_return:.1f}" for seed in seeds]
        mean = statistics.mean(o.test_return for o in mine.values())
        cpu = statistics.mean(o.cpu_s for o in mine.values())
        births = statistics.mean(o.births for o in mine.values())
        cost = f"{cpu:.1f} | {births:.0f}" if cpu else "|"
        lines.append(f"| {way} | {' | '.join(cells)} | {mean:.1f} | {cost} |")
    return "\n".join(lines)


def plot(output: Path, seeds: list[int], file: Path) -> None:
    """Draw the fitness of every birth over the generations of the first seed's run."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = load_leaderboard([output / f"bred-{seeds[0]}"])
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    born = rows[rows["child"].notna() & rows["fitness"].notna()]
    rng = np.random.default_rng(0)
    for kinds, color, label in (
        (["student", "child"], "#2a9d8f", "student, child"),
        (["control"], "#bbbbbb", "control"),
    ):
        some = born[born["kind"].isin(kinds)]
        shift = rng.uniform(-0.3, 0.3, len(some))
        axes.scatter(some["generation"] + shift, some["fitness"], s=9, c=color, label=label)
    children = born[born["kind"].isin(["student", "child"])]
    medians = children.groupby("generation")["fitness"].median()
    axes.plot(medians.index, medians, color="#264653", linewidth=2, label="median")
    teachers = rows[rows["kind"] == "teacher"]["fitness_holdout"]
    for number, value in enumerate(sorted(teachers)):
        axes.axhline(value, color="#e76f51", linewidth=1, label="teachers" if number == 0 else None)
    axes.set(xlabel="generation", ylabel="mean return", ylim=(0, 515))
    axes.legend(loc="lower right", ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cartpole")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--plot", type=Path, help="write a picture of the first seed's run")
    arguments = parser.parse_args()
    outcomes = [
        outcome
        for seed in arguments.seeds
        for outcome in compare(arguments.preset, seed, arguments.output, arguments.overrides)
    ]
    pd.DataFrame(outcomes).to_csv(arguments.output / "comparison.csv", index=False)
    print("\n" + table(outcomes))
    if arguments.plot:
        plot(arguments.output, arguments.seeds, arguments.plot)


if __name__ == "__main__":
    main()
