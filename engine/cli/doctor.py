"""``cultivar doctor``: whether this machine or a cluster can breed, and how fast."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from engine.cli.doctor_advice import GIB, of_all
from engine.cli.format import TextColumn, print_columns
from engine.config import DispatchConfig
from engine.dispatch.ray_session import joined_session, local_session
from engine.dispatch.tls import uses_tls
from engine.errors import DispatchError

if TYPE_CHECKING:
    from engine.dispatch.nodes import Answer
    from engine.dispatch.roster import Node

TRIAL_S = 6.0
CLOCK_READINGS = 3
CLOCK_TIMEOUT_S = 10.0
TRIAL_LIMITS = DispatchConfig(task_timeout_s=60, stall_timeout_s=10)
"""A batch of the trial takes a second; where nothing comes back, it is told so, and ends."""

EPILOG = """\b
Examples:
  cultivar doctor
  cultivar doctor --address auto
"""


@click.command(epilog=EPILOG)
@click.option(
    "--address",
    default="local",
    help="local, auto (a cluster here), HOST:PORT, or ray://HOST:PORT.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Workers of a local Ray.")
@click.option(
    "--allow-insecure-cluster",
    is_flag=True,
    help="Join a Ray cluster that asks nobody for a token.",
)
def doctor(address: str, workers: int | None, allow_insecure_cluster: bool) -> None:
    """Look at every node of a local Ray or a cluster, and breed for a few seconds."""
    is_local = address == "local"
    if workers is not None and not is_local:
        raise click.UsageError("--workers is for a local Ray; a cluster has the nodes it has")
    session = (
        local_session(workers) if is_local else joined_session(address, allow_insecure_cluster)
    )
    with session:
        _examine(allow_insecure_cluster or is_local)
        _breed()


def _examine(allow_insecure: bool) -> None:
    """Print a line per node.

    Raises:
        DispatchError: A node cannot be used, or there is none.
    """
    from engine.dispatch import nodes, probe

    cluster = nodes.working_nodes()
    if not cluster:
        raise DispatchError(
            "no node of the Ray cluster has a CPU for tasks: start one with "
            "'ray start --address=HOST:PORT'"
        )
    answers = nodes.ask(cluster, probe.facts)
    here = probe.facts()
    clocks = [None if answer.failure else _clock(node) for node, answer in _each(cluster, answers)]
    _print(cluster, answers, clocks, here)
    facts = [answer.value or {} for answer in answers]
    for line in of_all(cluster, facts, clocks, uses_tls(), _dashboard()):
        click.echo(line)
    nodes.judge(cluster, answers, here, allow_insecure, mixed_cpus=False, tell=click.echo)


def _dashboard() -> str:
    """Return where the dashboard listens, or nothing, as on a machine without a Ray node."""
    from ray._private.worker import global_worker

    return str((global_worker.node and global_worker.node.webui_url) or "")


def _each(cluster: Sequence[Node], answers: Sequence[Answer]) -> Iterator[tuple[Node, Answer]]:
    return zip(cluster, answers, strict=True)


def _clock(node: Node) -> float | None:
    """Return by how many seconds the clock of a node is ahead of ours, from the quickest reading.

    The answer is taken to have been written halfway between question and receipt.
    """
    from engine.dispatch import nodes, probe

    readings = []
    for _ in range(CLOCK_READINGS):
        before = time.time()
        (answer,) = nodes.ask([node], probe.clock, CLOCK_TIMEOUT_S)
        after = time.time()
        if answer.failure:
            break  # others are not to wait for it
        readings.append((after - before, answer.value - (before + after) / 2))
    return min(readings)[1] if readings else None


def _print(
    cluster: Sequence[Node],
    answers: Sequence[Answer],
    clocks: Sequence[float | None],
    here: Mapping[str, Any],
) -> None:
    known = [answer.value or {} for answer in answers]
    columns: dict[str, list[str]] = {
        "node": [node.name for node in cluster],
        "slots": [f"{node.resources['CPU']:g}" for node in cluster],
        "CPU": [facts.get("cpu", "") for facts in known],
        "threads": [str(facts.get("threads", "")) for facts in known],
        "memory": [_gib(node, "memory") for node in cluster],
        "object store": [_gib(node, "object_store_memory") for node in cluster],
        "clock": ["" if clock is None else f"{clock:+.3f} s" for clock in clocks],
        "first task": ["" if a.failure else f"{a.after_s:.1f} s" for a in answers],
        "versions": [_versions(facts, here) for facts in known],
    }
    texts = ("node", "CPU", "versions")
    print_columns(
        Console(highlight=False),
        [TextColumn(name, cells, name not in texts, keep=100) for name, cells in columns.items()],
    )


def _gib(node: Node, resource: str) -> str:
    return f"{node.resources.get(resource, 0) / GIB:.1f} GiB"


def _versions(facts: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return in what the software of a node differs from the driver's."""
    if not facts:
        return "no answer"
    found = facts["versions"]
    differs = [
        f"{name} {found.get(name, 'missing')}"
        for name, wanted in here["versions"].items()
        if found.get(name) != wanted
    ]
    if not differs and facts["source"] != here["source"]:
        differs = ["other files of cultivar"]
    return ", ".join(differs) or "as here"


def _breed() -> None:
    """Breed for a few seconds and print how fast.

    Raises:
        DispatchError: A birth failed, which no birth of these can by itself.
    """
    from engine.dispatch.ray_executor import RayExecutor
    from engine.dispatch.trial import try_out

    executor = RayExecutor(TRIAL_LIMITS, preload=("engine.breeding",), tell=click.echo)
    try:
        trial = try_out(executor, TRIAL_S)
    finally:
        executor.close()
    if trial.failures:
        raise DispatchError(f"births failed on a healthy cluster: {'; '.join(trial.failures)}")
    click.echo(
        f"\n{trial.births:,} births in {trial.wall_s:.1f} s: {trial.births_per_s:.1f} per second "
        f"with {trial.n_workers} workers, which computed {trial.efficiency:.0%} of the time"
    )
