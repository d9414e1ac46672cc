"""``cultivar doctor`` shows every node, tells which one cannot be used, and breeds a little."""

from __future__ import annotations

import contextlib
import socket

import pytest
from click.testing import CliRunner, Result

from engine.cli import doctor as module
from engine.errors import DispatchError


def run(*arguments: str) -> Result:
    return CliRunner().invoke(module.doctor, arguments)


@pytest.fixture
def short(ray_cluster, monkeypatch) -> None:
    """Let a local start be the cluster that the tests share, and the trial be short."""
    monkeypatch.setattr(module, "local_session", lambda workers: contextlib.nullcontext())
    monkeypatch.setattr(module, "TRIAL_S", 0.3)


@pytest.mark.ray
def test_a_healthy_node_is_shown_with_what_it_can_do(short) -> None:
    done = run()
    assert done.exit_code == 0, done.output
    header, node, access, _, births = (line.rstrip() for line in done.output.splitlines())
    assert header.startswith("node ")
    assert header.split()[-3:] == ["first", "task", "versions"]
    assert node.split()[0].startswith(f"{socket.gethostname()}/")
    assert node.split()[1] == "2"
    assert node.endswith("as here")
    assert access == "Ray asks for a token, without TLS"
    assert "births in" in births
    assert "per second with 2 workers, which computed" in births


@pytest.mark.ray
def test_a_node_that_cannot_be_used_is_shown_and_told(short, monkeypatch) -> None:
    from engine.dispatch import nodes, probe

    def ask(cluster, function, timeout_s=60.0):
        if function is probe.clock:
            return [nodes.Answer(0.0, "", 0.1)]
        facts = probe.facts()
        return [nodes.Answer(facts | {"versions": facts["versions"] | {"torch": "1.0"}}, "", 0.1)]

    monkeypatch.setattr(nodes, "ask", ask)
    done = run()
    assert isinstance(done.exception, DispatchError)  # exit code 2, in one sentence
    assert "has torch 1.0 instead of" in str(done.exception)
    assert "pip install torch==" in str(done.exception)
    assert done.output.splitlines()[1].rstrip().endswith("torch 1.0")


@pytest.mark.ray
def test_a_silent_node_is_shown_and_told(short, monkeypatch) -> None:
    from engine.dispatch import nodes

    silent = nodes.Answer(None, "did not answer within 60 s", 60)
    monkeypatch.setattr(nodes, "ask", lambda cluster, function: [silent])
    done = run()
    assert isinstance(done.exception, DispatchError)
    assert "did not answer within 60 s; mend it" in str(done.exception)
    assert done.output.splitlines()[1].rstrip().endswith("no answer")


@pytest.mark.ray
def test_a_cluster_without_nodes_is_an_error(short, monkeypatch) -> None:
    from engine.dispatch import nodes

    monkeypatch.setattr(nodes, "working_nodes", list)
    error = run().exception
    assert isinstance(error, DispatchError)
    assert "no node of the Ray cluster has a CPU" in str(error)


def test_workers_are_not_for_a_cluster() -> None:
    done = run("--address", "head:6379", "--workers", "2")
    assert done.exit_code == 2
    assert "--workers is for a local Ray" in done.output


def test_an_address_that_is_none_is_named() -> None:
    error = run("--address", "head").exception
    assert isinstance(error, DispatchError)
    assert "must be local, auto, HOST:PORT or ray://HOST:PORT, not 'head'" in str(error)
