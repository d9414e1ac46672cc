"""A node that would not do the work as the driver would is named, with what to do about it."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from engine.dispatch import probe
from engine.errors import ClusterUnavailableError, DispatchError

HERE = {
    "versions": {"python": "3.11.7", "cultivar": "1.2", "torch": "2.13.0", "ray": "2.60.0"},
    "source": "0123456789ab",
    "cpu": "AVX512",
    "threads": 1,
    "token": True,
}

Check = Callable[..., list[str]]


def other(versions: dict[str, str | None] | None = None, **facts: Any) -> dict[str, Any]:
    """Return the facts of a machine that differs from ours; None stands for what is missing."""
    found = copy.deepcopy(HERE) | facts
    found["versions"] |= versions or {}
    found["versions"] = {name: v for name, v in found["versions"].items() if v is not None}
    return found


@pytest.fixture
def check(monkeypatch) -> Check:
    """Return a function that checks a cluster whose nodes answer as they are told to."""
    # Only with Ray, which reads the environment when it is imported.
    from engine.dispatch import nodes
    from engine.dispatch.nodes import Answer, Node

    class Runtime:
        gcs_address = "head:6379"

    def run(answers: list[Any], insecure: bool = False, mixed_cpus: bool = False) -> list[str]:
        cluster = [Node(f"{i:08x}ffff", f"host{i}", {"CPU": 2.0}) for i in range(len(answers))]
        given = [
            Answer(None, answer, 60) if isinstance(answer, str) else Answer(answer, "", 0.1)
            for answer in answers
        ]
        notes: list[str] = []
        monkeypatch.setattr(nodes, "working_nodes", lambda: cluster)
        monkeypatch.setattr(nodes, "ask", lambda asked, function: given)
        monkeypatch.setattr(nodes.probe, "facts", lambda: HERE)
        monkeypatch.setattr(nodes.ray, "get_runtime_context", Runtime)
        nodes.check_nodes(insecure, mixed_cpus, notes.append)
        return notes

    return run


@pytest.mark.ray
def test_equal_nodes_are_taken_without_a_word(ray_cluster, check) -> None:
    assert check([other(), other(threads=64)]) == []


@pytest.mark.ray
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            other({"torch": "2.12.0"}),
            "node host1/00000001 has torch 2.12.0 instead of 2.13.0: "
            "run 'pip install torch==2.13.0' there",
        ),
        (
            other({"torch": None, "cultivar": None}, source="", cpu=""),
            "node host1/00000001 has no cultivar and no torch: "
            "run 'pip install cultivar==1.2 torch==2.13.0' there",
        ),
        (
            other({"python": "3.11.6", "ray": "2.59.0"}),
            "node host1/00000001 has python 3.11.6 instead of 3.11.7 and ray 2.59.0 instead of "
            "2.60.0: run 'pip install ray==2.60.0' there, and start Ray there with Python 3.11.7",
        ),
        (
            other(source="ba9876543210"),
            "node host1/00000001 has other files of cultivar 1.2 than this machine: "
            "install the same there",
        ),
        (
            other(cpu="AVX2"),
            "node host1/00000001 computes with AVX2 instead of AVX512; equal bytes are promised on "
            "one kind of CPU only: leave such nodes out, or accept it with "
            "--set dispatch.mixed_cpus=true, of a search with --mixed-cpus",
        ),
        (
            "did not answer within 60 s",
            "node host1/00000001 did not answer within 60 s; mend it or take it out of the cluster",
        ),
    ],
)
def test_a_node_that_differs_is_named_with_what_to_do(ray_cluster, check, answer, message) -> None:
    with pytest.raises(DispatchError) as caught:
        check([other(), answer])
    assert str(caught.value) == message


@pytest.mark.ray
def test_nodes_that_do_not_answer_may_do_so_later_and_others_stay_as_they_are(
    ray_cluster, check
) -> None:
    with pytest.raises(ClusterUnavailableError):
        check([other(), "did not answer within 60 s", "failed: NodeDiedError: it died"])
    with pytest.raises(DispatchError) as caught:
        check(["did not answer within 60 s", other(source="ba9876543210")])
    assert not isinstance(caught.value, ClusterUnavailableError)


@pytest.mark.ray
def test_of_many_bad_nodes_a_few_are_named(ray_cluster, check) -> None:
    with pytest.raises(DispatchError) as caught:
        check([other({"ray": "2.59.0"})] * 40)
    assert str(caught.value).count("2.59.0") == 5
    assert str(caught.value).endswith("; and so on for 35 more nodes")


@pytest.mark.ray
def test_other_cpus_can_be_accepted_with_a_note(ray_cluster, check) -> None:
    notes = check([other(), other(cpu="AVX2")], mixed_cpus=True)
    assert notes == [
        "node host1/00000001 computes with AVX2 instead of AVX512: "
        "the bytes may depend on which node makes which child"
    ]


@pytest.mark.ray
def test_nodes_without_a_token_are_refused_unless_that_is_allowed(ray_cluster, check) -> None:
    with pytest.raises(DispatchError, match="cluster at head:6379 asks for no token"):
        check([other(), other(token=False)])
    assert check([other(), other(token=False)], insecure=True) == []


@pytest.mark.ray
def test_a_cluster_without_cpus_is_waited_for(ray_cluster, check) -> None:
    assert check([]) == ["no node of the Ray cluster has a CPU for tasks; waiting for one"]


@pytest.mark.ray
def test_a_node_of_this_machine_says_what_the_driver_says(ray_cluster) -> None:
    from engine.dispatch.nodes import ask, check_nodes, working_nodes

    (node,) = working_nodes()
    (answer,) = ask([node], probe.facts)
    assert answer.failure == ""
    assert {**answer.value, "threads": 1} == {**probe.facts(), "threads": 1, "token": True}
    assert node.resources["CPU"] == 2
    (time_there,) = ask([node], probe.clock)
    assert abs(time_there.value - time.time()) < 30
    check_nodes(False, False, lambda text: None)


def hang() -> None:
    time.sleep(60)


def fail() -> None:
    raise ValueError("there is no such library\nas this")


@pytest.mark.ray
def test_a_silent_node_is_given_up_and_a_failure_is_told(ray_cluster, monkeypatch) -> None:
    from engine.dispatch import nodes

    # The functions of this file travel by value, as those of the probe do.
    monkeypatch.setattr(nodes, "probe", sys.modules[__name__])
    cluster = nodes.working_nodes()
    started = time.monotonic()
    (silent,) = nodes.ask(cluster, hang, timeout_s=0.5)
    assert silent.failure == "did not answer within 0.5 s"
    assert time.monotonic() - started < 30
    (failed,) = nodes.ask(cluster, fail)
    assert failed.failure == "failed: ValueError: there is no such library"


@pytest.mark.ray
def test_a_node_that_is_gone_is_told(ray_cluster) -> None:
    from engine.dispatch.nodes import Node, ask

    (answer,) = ask([Node("ab" * 28, "gone", {})], probe.clock)
    assert answer.failure.startswith("failed: ")


def verdict_of(inquiry: Any) -> str:
    """Return the verdict of a node, once there is one."""
    deadline = time.monotonic() + 60
    while (found := inquiry.verdict()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert isinstance(found, str)
    return found


@pytest.mark.ray
def test_a_node_that_joins_is_judged_like_those_at_the_start(ray_cluster) -> None:
    from engine.dispatch.nodes import Inquiry, working_nodes

    (node,) = working_nodes()
    here, notes = probe.facts(), list[str]()
    assert verdict_of(Inquiry(node, here, False, notes.append)) == ""
    newer = here | {"versions": here["versions"] | {"torch": "9.0"}}
    assert "instead of 9.0: run 'pip install" in verdict_of(
        Inquiry(node, newer, True, notes.append)
    )
    assert notes == []
    other_kind = here | {"cpu": "abacus"}
    refusal = verdict_of(Inquiry(node, other_kind, False, notes.append))
    assert "instead of abacus; equal bytes are promised on one kind of CPU only" in refusal
    assert verdict_of(Inquiry(node, other_kind, True, notes.append)) == ""
    (note,) = notes
    assert note.endswith("instead of abacus: the bytes may depend on which node makes which child")


@pytest.mark.ray
def test_a_silent_node_that_joins_is_waited_for_and_given_up(ray_cluster, monkeypatch) -> None:
    from engine.dispatch import nodes

    stand_in = sys.modules[__name__]
    monkeypatch.setattr(stand_in, "facts", hang, raising=False)
    monkeypatch.setattr(nodes, "probe", stand_in)
    (node,) = nodes.working_nodes()
    inquiry = nodes.Inquiry(node, HERE, False, lambda text: None, timeout_s=1.0)
    assert inquiry.verdict() is None
    assert verdict_of(inquiry) == "did not answer within 1 s; mend it or take it out of the cluster"
