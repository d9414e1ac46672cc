"""Whether the nodes of a cluster would give the same bytes as the driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import exceptions
from ray.cloudpickle import register_pickle_by_value, unregister_pickle_by_value
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.dispatch import probe
from engine.dispatch.handshake import open_to_everyone
from engine.dispatch.roster import Node, Roster
from engine.errors import ClusterUnavailableError, DispatchError

PROBE_TIMEOUT_S = 60.0
"""A new worker that imports torch takes three seconds, and more on a machine that is busy."""
ONE_KIND = (
    "equal bytes are promised on one kind of CPU only: leave such nodes out, or accept it with "
    "--set dispatch.mixed_cpus=true, of a search with --mixed-cpus"
)
MIXED = "the bytes may depend on which node makes which child"
NAMED = 5
"""Nodes that an error names; there may be hundreds."""


@dataclass(frozen=True)
class Answer:
    """What came of a task that was pinned to a node.

    Attributes:
        value: What the task returned, if it did.
        failure: Why it did not, or empty.
        after_s: Seconds from asking to the answer.
    """

    value: Any
    failure: str
    after_s: float


def working_nodes() -> list[Node]:
    """Return the nodes that are alive and have CPUs, by name."""
    nodes = [
        Node(entry["NodeID"], entry["NodeManagerHostname"], entry["Resources"])
        for entry in ray.nodes()  # type: ignore[no-untyped-call]  # Ray has no types here
        if entry["Alive"] and entry["Resources"].get("CPU", 0) > 0
    ]
    return sorted(nodes, key=lambda node: node.name)


def ask(
    nodes: Sequence[Node], function: Callable[[], Any], timeout_s: float = PROBE_TIMEOUT_S
) -> list[Answer]:
    """Call a function of ``probe`` on every node at the same time.

    Args:
        nodes: Whom to ask.
        function: What to call; it travels by value.
        timeout_s: Seconds after which those that are silent are given up.

    Returns:
        One answer per node, in their order.
    """
    started = time.monotonic()
    asked = _send(nodes, function)
    answers: dict[str, Answer] = {}
    while len(answers) < len(nodes):
        left = timeout_s - (time.monotonic() - started)
        waiting = [reference for reference, node in asked.items() if node.id not in answers]
        ready = ray.wait(waiting, num_returns=1, timeout=max(left, 0))[0]
        if not ready:
            break
        after_s = time.monotonic() - started
        for reference in ready:
            value, failure = _outcome(reference)
            answers[asked[reference].id] = Answer(value, failure, after_s)
    for reference, node in asked.items():
        if node.id not in answers:
            ray.cancel(reference, force=True)
    return [answers.get(node.id, _silence(timeout_s)) for node in nodes]


class Inquiry:
    """The question to a node that came later, whose answer is looked at later, too.

    Args:
        node: Whom to ask.
        here: What the driver answers to :func:`probe.facts`.
        mixed_cpus: Whether its CPU may be of another kind than this machine's.
        tell: Called with a note on a CPU of another kind.
        timeout_s: Seconds after which a silent node is given up.
    """

    def __init__(
        self,
        node: Node,
        here: Mapping[str, Any],
        mixed_cpus: bool,
        tell: Callable[[str], None],
        timeout_s: float = PROBE_TIMEOUT_S,
    ) -> None:
        self._node = node
        self._here = here
        self._mixed_cpus = mixed_cpus
        self._tell = tell
        self._timeout_s = timeout_s
        self._started = time.monotonic()
        (self._reference,) = _send([node], probe.facts)

    def verdict(self) -> str | None:
        """Return what keeps the node from taking part, empty for nothing; None: not known yet."""
        passed_s = time.monotonic() - self._started
        if ray.wait([self._reference], num_returns=1, timeout=0)[0]:
            answer = Answer(*_outcome(self._reference), passed_s)
        elif passed_s < self._timeout_s:
            return None
        else:
            ray.cancel(self._reference, force=True)
            answer = _silence(self._timeout_s)
        problem = problem_of(answer, self._here)
        if problem or answer.value["cpu"] == self._here["cpu"]:
            return problem
        other = other_cpu(answer.value, self._here)
        if not self._mixed_cpus:
            return f"{other}; {ONE_KIND}"
        self._tell(f"{sentence({self._node.name: other})}: {MIXED}")
        return ""


def _send(nodes: Sequence[Node], function: Callable[[], Any]) -> dict[ray.ObjectRef[Any], Node]:
    """Ask nodes to call a function of ``probe``."""
    register_pickle_by_value(probe)  # type: ignore[no-untyped-call]  # likewise
    task: Any = ray.remote(num_cpus=0, max_retries=0)(function)
    asked = {}
    try:
        for node in nodes:
            pinned = NodeAffinitySchedulingStrategy(node.id, soft=False)
            asked[task.options(scheduling_strategy=pinned).remote()] = node
    finally:
        unregister_pickle_by_value(probe)  # type: ignore[no-untyped-call]  # likewise
    return asked


def _silence(timeout_s: float) -> Answer:
    return Answer(None, f"did not answer within {timeout_s:g} s", timeout_s)


def _outcome(reference: ray.ObjectRef[Any]) -> tuple[Any, str]:
    try:
        return ray.get(reference), ""
    except exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        reason = str(cause).strip().partition("\n")[0]  # a traceback follows
        return None, f"failed: {type(cause).__name__}: {reason}"


def check_nodes(allow_insecure: bool, mixed_cpus: bool, tell: Callable[[str], None]) -> Roster:
    """Refuse a cluster some of whose nodes would not do the work as this machine would.

    Args:
        allow_insecure: Whether the cluster may do without a token.
        mixed_cpus: Whether its CPUs may be of another kind than this machine's.
        tell: Called with a note on CPUs of another kind, where there are no nodes yet, and with
            what becomes of nodes that join later.

    Returns:
        The nodes that may be used; those that join later are asked before they are.

    Raises:
        DispatchError: A node differs or does not answer, or the cluster asks nobody for a token.
    """
    nodes, here = working_nodes(), probe.facts()
    if nodes:
        judge(nodes, ask(nodes, probe.facts), here, allow_insecure, mixed_cpus, tell)
    else:
        tell("no node of the Ray cluster has a CPU for tasks; waiting for one")
    return Roster(working_nodes, lambda node: Inquiry(node, here, mixed_cpus, tell), nodes, tell)


def judge(
    nodes: Sequence[Node],
    answers: Sequence[Answer],
    here: Mapping[str, Any],
    allow_insecure: bool,
    mixed_cpus: bool,
    tell: Callable[[str], None],
) -> None:
    """Refuse a cluster for what its nodes said; see :func:`check_nodes`.

    Args:
        nodes: The nodes.
        answers: What each of them answered to :func:`probe.facts`.
        here: What the driver answers to it.
        allow_insecure: Whether the cluster may do without a token.
        mixed_cpus: Whether its CPUs may be of another kind than this machine's.
        tell: Called with a note on CPUs of another kind.

    Raises:
        ClusterUnavailableError: All that is wrong is that nodes did not answer.
        DispatchError: A node differs or did not answer, or the cluster asks nobody for a token.
    """
    bad = {
        node.name: problem
        for node, answer in zip(nodes, answers, strict=True)
        if (problem := problem_of(answer, here))
    }
    if bad:
        # A node that does not answer may be on its way out, as after a cluster was lost.
        silent = sum(bool(answer.failure) for answer in answers) == len(bad)
        raise (ClusterUnavailableError if silent else DispatchError)(sentence(bad))
    if not allow_insecure and not all(answer.value["token"] for answer in answers):
        raise DispatchError(open_to_everyone(ray.get_runtime_context().gcs_address))
    others = {
        node.name: other_cpu(answer.value, here)
        for node, answer in zip(nodes, answers, strict=True)
        if answer.value["cpu"] != here["cpu"]
    }
    if others and not mixed_cpus:
        raise DispatchError(f"{sentence(others)}; {ONE_KIND}")
    if others:
        tell(f"{sentence(others)}: {MIXED}")


def problem_of(answer: Answer, here: Mapping[str, Any]) -> str:
    """Return what keeps a node from taking part and what to do about it, or nothing.

    Args:
        answer: What it answered to :func:`probe.facts`.
        here: What the driver is.
    """
    if answer.failure:
        return f"{answer.failure}; mend it or take it out of the cluster"
    found, wanted = answer.value["versions"], here["versions"]
    wrong = {name: found.get(name) for name in wanted if found.get(name) != wanted[name]}
    if wrong:
        has = [
            f"{name} {version} instead of {wanted[name]}"
            for name, version in wrong.items()
            if version
        ]
        has += [f"no {name}" for name, version in wrong.items() if not version]
        to_install = " ".join(f"{name}=={wanted[name]}" for name in wrong if name != "python")
        mend = [f"run 'pip install {to_install}' there"] if to_install else []
        mend += [f"start Ray there with Python {wanted['python']}"] if "python" in wrong else []
        return f"has {' and '.join(has)}: {', and '.join(mend)}"
    if answer.value["source"] != here["source"]:
        version = wanted.get("cultivar")
        return f"has other files of cultivar {version} than this machine: install the same there"
    return ""


def other_cpu(found: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return in what the CPU of a node differs."""
    return f"computes with {found['cpu']} instead of {here['cpu']}"


def sentence(problems: Mapping[str, str]) -> str:
    """Return in one sentence what is wrong with nodes, given by name."""
    shown = [f"node {name} {problem}" for name, problem in list(problems.items())[:NAMED]]
    left = len(problems) - len(shown)
    return "; ".join([*shown, f"and so on for {left} more nodes"] if left > 0 else shown)
