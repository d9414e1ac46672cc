"""What a Ray worker does with a batch, and how the batch travels there."""

from __future__ import annotations

import faulthandler
import importlib
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import cloudpickle
from threadpoolctl import threadpool_limits

from engine.dispatch.begun import noted
from engine.dispatch.deadline import deadline
from engine.dispatch.executor import Batch, Context, PlanT, ResultT
from populations.genome import Genome


def warm_up(modules: Sequence[str]) -> None:
    """Import in a worker what its batches will need; torch takes more than a second."""
    for name in modules:
        importlib.import_module(name)


def hard_limit_s(timeout_s: float) -> float:
    """Return the seconds after which a worker ends itself, if its batch ignores the time limit."""
    return timeout_s * 1.2 + 5


def run_batch(
    context: Context[PlanT, ResultT],
    packed: bytes,
    timeout_s: float,
) -> tuple[list[ResultT], str, str]:
    """Carry out a batch in a worker, and return its results, and the node's name and Ray's id.

    The batch is unpacked here: Ray Client would unpack arguments on its server, too, where a plan
    that cannot be unpacked breaks the connection, and with it the run.

    The time limit counts here and not in the driver, where it would count the time in the queue:
    SIGALRM raises in Python code, and if the batch is stuck in native code, faulthandler's own
    thread ends the process.

    Raises:
        BatchTimeoutError: The batch took longer than ``timeout_s``.
        RuntimeError: The work raised KeyboardInterrupt.
    """
    faulthandler.dump_traceback_later(hard_limit_s(timeout_s), exit=True)
    try:
        with noted(), deadline(timeout_s), threadpool_limits(1):
            plans, genomes = unpack(packed)
            return context.work(plans, genomes), node_name(), node_id()
    except KeyboardInterrupt:
        # Ray would take it for a task that was cancelled, which we only do by force.
        raise RuntimeError("the work raised KeyboardInterrupt") from None
    finally:
        faulthandler.cancel_dump_traceback_later()


def pack(batch: Batch[Any]) -> bytes:
    """Return plans and genomes of a batch as they travel to a worker.

    Raises:
        Exception: A plan cannot be pickled, as with a plug-in that keeps a lock or an open file.
    """
    contents = (batch.plans, dict(batch.genomes))
    packed: bytes = cloudpickle.dumps(contents)  # type: ignore[no-untyped-call]  # Ray has no types here
    return packed


def unpack(packed: bytes) -> tuple[Sequence[Any], Mapping[str, Genome]]:
    """Return the plans and genomes of a batch."""
    plans, genomes = cloudpickle.loads(packed)
    return plans, genomes


def node_name() -> str:
    """Return the name of this host and the beginning of Ray's id: nodes may share a host."""
    return f"{socket.gethostname()}/{node_id()[:8]}"


def node_id() -> str:
    """Return Ray's id of this node."""
    found: str = ray.get_runtime_context().get_node_id()
    return found
