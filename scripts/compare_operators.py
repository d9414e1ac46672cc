"""Compare all crossover operators: their children before and after fine-tuning, and controls.

For every task and seed: four half-trained teachers, four students of them, once from independent
random weights and once from one shared ancestor, and a child of every pair of students by every
operator, with and without alignment. Returns are those of the int8 networks over held-out episodes
that are common to all networks of a seed.

    python scripts/compare_operators.py [--quick] [--output FOLDER]

What was measured is kept in the output folder, and a study that was stopped goes on; another folder
starts anew. With --quick barely trained networks are compared, on one seed, to try the script.
"""

import argparse
from pathlib import Path

from operator_comparison.intervals import summarize
from operator_comparison.jobs import run_jobs
from operator_comparison.picture import draw
from operator_comparison.report import markdown, write_page
from operator_comparison.tasks import TASKS, Job, chosen

EPISODES = {"CartPole-v1": 128, "LunarLander-v3": 24}
QUICK_OPERATORS = ("weighted", "unit")


def main() -> None:
    """Measure, print, and write the tables and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--operators", nargs="+", help="by name; all that come with cultivar")
    parser.add_argument("--output", type=Path, default=Path("runs/operators"))
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    parser.add_argument("--page", type=Path, help="page that the tables are written into")
    parser.add_argument("--quick", action="store_true", help="one seed, hardly trained")
    arguments = parser.parse_args()
    if arguments.quick:
        jobs = [Job("CartPole-v1", 0, 8, chosen(QUICK_OPERATORS), quick=True)]
    else:
        operators = chosen(arguments.operators)
        jobs = [
            Job(task, seed, EPISODES[task], operators)
            for task in arguments.tasks
            for seed in arguments.seeds
        ]
    rows = run_jobs(jobs, arguments.output, arguments.workers)
    summary = summarize(rows)
    text = markdown(rows, summary)
    print(text)
    page = arguments.page or arguments.output / "operator-comparison.md"
    write_page(page, text)
    summary.to_csv(page.with_suffix(".csv"), index=False, float_format="%.4g")
    try:
        draw(summary, page.with_suffix(".png"))
    except ModuleNotFoundError as error:
        print(f'no picture: {error}; run pip install "cultivar[plots]"')


if __name__ == "__main__":
    main()
