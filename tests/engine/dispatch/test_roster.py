"""Nodes that join are asked before anything of theirs counts, and kept out if they differ."""

from __future__ import annotations

import pytest

from engine.dispatch.roster import GONE_KEPT, LOOK_EVERY_S, Node, Roster


class Cluster:
    """Nodes that come, go and answer when a test says so, and a clock."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.answers: dict[str, str] = {}
        self.asked: list[str] = []
        self.notes: list[str] = []
        self.now = 100.0

    def add(self, name: str, cpus: float = 2.0) -> None:
        self.nodes[name] = Node(name, f"host-{name}", {"CPU": cpus})

    def ask(self, node: Node) -> Cluster.Question:
        self.asked.append(node.id)
        return Cluster.Question(self, node.id)

    def roster(self, *trusted: str, asks: bool = True) -> Roster:
        return Roster(
            lambda: list(self.nodes.values()),
            self.ask if asks else None,
            [self.nodes[name] for name in trusted],
            self.notes.append,
            lambda: self.now,
        )

    class Question:
        def __init__(self, cluster: Cluster, node: str) -> None:
            self.cluster, self.node = cluster, node

        def verdict(self) -> str | None:
            return self.cluster.answers.get(self.node)


@pytest.fixture
def cluster() -> Cluster:
    """Return a cluster with one node."""
    made = Cluster()
    made.add("a")
    return made


def test_nodes_that_were_asked_before_are_not_asked_again(cluster) -> None:
    roster = cluster.roster("a")
    assert (roster.slots, roster.barred) == (2, set())
    assert roster.trusts("a")
    assert (cluster.asked, cluster.notes) == ([], [])


def test_a_node_that_joins_is_used_once_it_has_answered_well(cluster) -> None:
    roster = cluster.roster("a")
    assert roster.slots == 2
    cluster.add("b", 4)
    assert roster.slots == 2  # nobody has looked again
    cluster.now += LOOK_EVERY_S
    assert (roster.slots, roster.barred, cluster.asked) == (2, {"b"}, ["b"])
    assert not roster.trusts("b")
    cluster.answers["b"] = ""
    cluster.now += LOOK_EVERY_S
    assert (roster.slots, roster.barred, cluster.asked) == (6, set(), ["b"])
    assert roster.trusts("b")
    assert cluster.notes == ["node host-b/b joins with 4 CPUs"]


def test_a_node_that_differs_is_told_of_once_and_kept_out(cluster) -> None:
    roster = cluster.roster("a")
    cluster.add("b")
    cluster.answers["b"] = "has torch 1.0 instead of 2.0"
    for _ in range(3):
        assert (roster.slots, roster.barred) == (2, {"b"})
        assert not roster.trusts("b")
        cluster.now += LOOK_EVERY_S
    assert cluster.asked == ["b"]
    assert cluster.notes == ["no work is sent to node host-b/b, which has torch 1.0 instead of 2.0"]
    del cluster.nodes["b"]
    cluster.now += LOOK_EVERY_S
    assert (roster.slots, roster.barred) == (2, set())


def test_what_a_node_did_before_it_left_still_counts(cluster) -> None:
    roster = cluster.roster("a")
    del cluster.nodes["a"]
    assert roster.slots == 0
    assert roster.trusts("a")


def test_results_of_a_node_that_nobody_has_noticed_do_not_count(cluster) -> None:
    roster = cluster.roster("a")
    assert roster.slots == 2
    cluster.add("b")
    assert not roster.trusts("b")  # at once, whenever it was looked last
    assert cluster.asked == ["b"]
    assert roster.barred == {"b"}


def test_failures_of_what_was_sent_before_a_node_was_noticed_may_be_its_own(cluster) -> None:
    roster = cluster.roster("a")
    assert roster.slots == 2
    sent_at = cluster.now
    assert not roster.is_strange(sent_at, cluster.now)
    cluster.now += 1
    cluster.add("b")
    assert not roster.is_strange(sent_at, cluster.now - 1)  # nobody reads the nodes for old news
    cluster.now += 1
    assert roster.is_strange(sent_at, cluster.now)
    cluster.now += 1
    assert not roster.is_strange(cluster.now, cluster.now)  # sent while it was barred


@pytest.mark.parametrize("what", ["answers well", "leaves"])
def test_a_node_that_may_be_used_or_has_left_is_not_blamed(cluster, what) -> None:
    roster = cluster.roster("a")
    sent_at = cluster.now
    cluster.now += 1
    cluster.add("b")
    assert roster.is_strange(sent_at, cluster.now)
    if what == "leaves":
        del cluster.nodes["b"]
    else:
        cluster.answers["b"] = ""
    cluster.now += 1
    assert not roster.is_strange(sent_at, cluster.now)


@pytest.mark.parametrize("answer", [None, "has torch 1.0 instead of 2.0"])
def test_a_node_that_has_left_is_forgotten_and_asked_when_it_is_back(cluster, answer) -> None:
    roster = cluster.roster("a")
    if answer is not None:
        cluster.answers["b"] = answer
    for _ in range(2):
        cluster.add("b")
        cluster.now += LOOK_EVERY_S
        assert roster.barred == {"b"}
        del cluster.nodes["b"]
        cluster.now += LOOK_EVERY_S
        assert roster.barred == set()
    assert cluster.asked == ["b", "b"]
    assert len(cluster.notes) == (0 if answer is None else 2)


def test_of_nodes_that_have_left_the_last_are_remembered(cluster) -> None:
    roster = cluster.roster("a")
    names = [f"n{number}" for number in range(GONE_KEPT + 10)]
    for name in names:
        cluster.answers[name] = ""
        cluster.add(name)
        cluster.now += LOOK_EVERY_S
        assert roster.slots == 4
        del cluster.nodes[name]
    cluster.now += LOOK_EVERY_S
    assert roster.slots == 2
    assert [name for name in names if not roster.trusts(name)] == names[:10]
    assert roster.trusts("a")


def test_without_a_question_every_node_is_used(cluster) -> None:
    roster = cluster.roster(asks=False)
    assert (roster.slots, roster.barred) == (2, set())
    cluster.add("b")
    assert roster.trusts("b")
    assert roster.trusts("gone before anybody looked")
    assert not roster.is_strange(0.0, cluster.now)
    assert (cluster.asked, cluster.notes) == ([], [])
