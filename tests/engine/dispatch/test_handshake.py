"""Before Ray joins a cluster we know whether it wants a token, and whether it takes ours."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.dispatch import handshake
from engine.dispatch.handshake import own_token, show_token
from engine.errors import ClusterUnavailableError, DispatchError

TOKEN = "0123456789abcdef" * 4
NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Return the home of a user without a token."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    return tmp_path


def serve(settings: dict[str, str], folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start the one process of Ray that is asked, without the rest of a cluster."""
    # Ray itself must not be imported here: it would remember the environment of this moment.
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    server = Path(spec.origin).parent / "core/src/ray/gcs/gcs_server"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    environment = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    process = subprocess.Popen(
        [
            str(server),
            f"--log_dir={folder}",
            f"--config_list={base64.b64encode(b'{}').decode()}",
            f"--gcs_server_port={port}",
            "--metrics-agent-port=0",
            "--node-ip-address=127.0.0.1",
            "--session-name=test",
            f"--session-dir={folder}",
            f"--node-id={'ab' * 28}",
        ],
        env=environment | settings | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(300):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"127.0.0.1:{port}"
        time.sleep(0.1)
    process.kill()
    process.wait()
    raise AssertionError(f"Ray does not listen at {port}")


@pytest.fixture(scope="module", params=["closed", "open"])
def server(request, tmp_path_factory) -> Iterator[tuple[str, str]]:
    """Return the kind and the address of a cluster that wants a token, and of one that does not."""
    folder = tmp_path_factory.mktemp("gcs")
    closed = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    process, address = serve(closed if request.param == "closed" else {}, folder)
    yield request.param, address
    process.kill()
    process.wait()


@pytest.mark.ray
@pytest.mark.parametrize("given", ["environment", "named file", "file of the home"])
def test_our_token_is_shown_where_one_is_asked_for(server, home, monkeypatch, given) -> None:
    kind, address = server
    if given == "environment":
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    elif given == "named file":
        (home / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "token"))
    else:
        (home / ".ray/auth_token").write_text(TOKEN, encoding="utf-8")
    # A cluster that asks for none would get it in clear, and make nothing of it.
    assert show_token(address, allow_insecure=True) == (kind == "closed")


@pytest.mark.ray
def test_a_cluster_that_is_open_to_everyone_is_refused(server, home, monkeypatch) -> None:
    kind, address = server
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    if kind == "closed":
        assert show_token(address, allow_insecure=False)
        return
    message = f"cluster at {address} asks for no token.*RAY_AUTH_MODE=token.*--allow-insecure-clus"
    with pytest.raises(DispatchError, match=message):
        show_token(address, allow_insecure=False)


@pytest.mark.ray
def test_a_missing_or_wrong_token_is_told_at_once(server, home) -> None:
    kind, address = server
    if kind == "open":
        assert not show_token(address, allow_insecure=True)
        return
    message = f"cluster at {address} asks for a token, and this account has none: copy .*auth_token"
    with pytest.raises(DispatchError, match=message):
        show_token(address, allow_insecure=True)
    for token in ("f" * 64, "long" * 1000):  # the second has a length of several bytes
        (home / ".ray/auth_token").write_text(token, encoding="utf-8")
        with pytest.raises(DispatchError, match=r"does not take the token of .*/\.ray/auth_token"):
            show_token(address, allow_insecure=True)


def test_a_named_token_that_is_not_there_is_an_error(home, monkeypatch) -> None:
    assert own_token() is None
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "nothing"))
    with pytest.raises(DispatchError, match=r"token of Ray in .*/nothing cannot be read: "):
        own_token()


@pytest.mark.ray
def test_a_machine_without_a_node_is_told_of_both_ways_to_join(server, home) -> None:
    kind, address = server
    if kind == "closed":
        (home / ".ray/auth_token").write_text(TOKEN, encoding="utf-8")
    code = (
        "import sys\n"
        "from engine.dispatch.ray_session import joined_session\n"
        "with joined_session(sys.argv[1], allow_insecure=True):\n"
        "    pass\n"
    )
    environment = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, address],
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert time.monotonic() - started < 30  # Ray by itself takes a minute, and then ends us
    sentence = done.stderr.splitlines()[-1]
    assert "ClusterUnavailableError: no node of the Ray cluster at" in sentence
    assert f"'ray start --address={address} --num-cpus=0'" in sentence
    assert "--address ray://127.0.0.1:10001" in sentence


@pytest.mark.parametrize("banner", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"grpc-status"])
@pytest.mark.parametrize("hangs_up", [True, False])
def test_another_service_is_told_from_a_cluster(home, monkeypatch, banner, hangs_up) -> None:
    monkeypatch.setattr(handshake, "ANSWER_TIMEOUT_S", 0.2)
    done = threading.Event()

    def greet() -> None:
        for turn in range(2):  # the knock, and the question
            connection = listener.accept()[0]
            with connection:
                if turn:
                    connection.sendall(banner)
                    if not hangs_up:
                        done.wait(10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(DispatchError, match=f"at 127.0.0.1:{port} does not answer like a Ray"):
            show_token(f"127.0.0.1:{port}", allow_insecure=True)
        done.set()
        thread.join()


def test_one_that_sends_without_end_is_not_listened_to_for_long(home) -> None:
    def pour() -> None:
        for turn in range(2):  # the knock, and the question
            with listener.accept()[0] as connection, contextlib.suppress(OSError):
                while turn:
                    sent.append(connection.send(bytes(4096)))

    sent: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=pour)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(ClusterUnavailableError, match="does not answer like a Ray"):
            show_token(f"127.0.0.1:{port}", allow_insecure=True)
        thread.join()
    assert sum(sent) < 2**24  # what was read, and what the system keeps for a reader


@pytest.mark.parametrize("host", ["host..name", "x" * 70])
def test_what_cannot_be_the_name_of_a_host_is_no_address(host) -> None:
    with pytest.raises(DispatchError, match=f"--address must be .*, not '{host}:6379'"):
        show_token(f"{host}:6379", allow_insecure=False)


def make_certificates(folder: Path) -> dict[str, str]:
    """Make an authority and a certificate for 127.0.0.1; return the variables that name them."""
    if shutil.which("openssl") is None:
        pytest.skip("certificates are made by openssl, not found here")
    authority = ["-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt"]
    own = ["-CA", "ca.crt", "-CAkey", "ca.key", "-subj", "/CN=node", "-keyout", "node.key"]
    own += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", "node.crt"]
    for arguments in (authority, own):
        command = ["openssl", "req", "-x509", *NEW_KEY, *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "node.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "node.key"),
        "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
    }


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> dict[str, str]:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, str]:
    """Return certificates of another authority."""
    return make_certificates(tmp_path_factory.mktemp("others"))


@pytest.fixture(scope="module")
def tls_address(certificates, tmp_path_factory):
    """Return the address of a cluster that uses TLS and wants a token."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    process, address = serve(certificates | token, tmp_path_factory.mktemp("gcs"))
    yield address
    process.kill()
    process.wait()


@pytest.fixture
def environment(certificates, monkeypatch):
    """Return the environment of somebody whose certificates and token are right."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    for name, value in (certificates | {"RAY_AUTH_TOKEN": TOKEN}).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.ray
def test_a_token_is_tried_through_tls(tls_address, environment) -> None:
    assert show_token(tls_address, allow_insecure=False)
    environment.setenv("RAY_AUTH_TOKEN", "f" * 64)
    with pytest.raises(DispatchError, match="does not take the token of RAY_AUTH_TOKEN"):
        show_token(tls_address, allow_insecure=False)


@pytest.mark.ray
def test_somebody_without_tls_is_told_of_it(tls_address, environment) -> None:
    environment.delenv("RAY_USE_TLS")
    with pytest.raises(ClusterUnavailableError, match="set RAY_USE_TLS=1 if the cluster"):
        show_token(tls_address, allow_insecure=False)


@pytest.mark.ray
def test_a_certificate_of_another_authority_is_refused_by_either_side(
    tls_address, environment, others
) -> None:
    with environment.context() as changed:
        changed.setenv("RAY_TLS_CA_CERT", others["RAY_TLS_CA_CERT"])
        with pytest.raises(DispatchError, match=r"certificate that 127\.0\.0\.1 shows is not acc"):
            show_token(tls_address, allow_insecure=False)
    for name in ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY"):
        environment.setenv(name, others[name])
    with pytest.raises(ClusterUnavailableError, match="knows who signed RAY_TLS_SERVER_CERT"):
        show_token(tls_address, allow_insecure=False)


@pytest.mark.ray
def test_a_certificate_has_to_name_the_host(tls_address, environment) -> None:
    with pytest.raises(DispatchError, match=r"shows is not accepted: Hostname mismatch.*localhost"):
        show_token(tls_address.replace("127.0.0.1", "localhost"), allow_insecure=False)


@pytest.mark.parametrize(
    ("value", "reason"),
    [("", "RAY_TLS_SERVER_KEY is not set"), ("/no/file", "/no/file cannot be read")],
)
def test_files_that_are_not_there_are_named(environment, value, reason) -> None:
    environment.setenv("RAY_TLS_SERVER_KEY", value)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(DispatchError, match=f"must name PEM files of this machine: {reason}"),
    ):
        show_token(f"127.0.0.1:{listener.getsockname()[1]}", allow_insecure=False)


def test_a_key_with_a_passphrase_is_refused_without_a_question(environment, tmp_path) -> None:
    locked = tmp_path / "locked.key"
    plain = os.environ["RAY_TLS_SERVER_KEY"]
    lock = ["openssl", "pkey", "-in", plain, "-aes256", "-passout", "pass:secret", "-out", locked]
    subprocess.run(lock, check=True, capture_output=True)
    environment.setenv("RAY_TLS_SERVER_KEY", str(locked))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(DispatchError, match="RAY_TLS_SERVER_KEY has a passphrase, which Ray does"),
    ):
        show_token(f"127.0.0.1:{listener.getsockname()[1]}", allow_insecure=False)


def test_one_that_keeps_silent_is_not_waited_for(environment) -> None:
    environment.setattr(handshake, "CONNECT_TIMEOUT_S", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(ClusterUnavailableError, match=r"does not answer like a Ray .* uses TLS and"),
    ):
        show_token(f"127.0.0.1:{listener.getsockname()[1]}", allow_insecure=False)


@pytest.mark.parametrize(
    ("length", "written"),
    # The first and the last number of RFC 7541, section C.1, with a prefix of 7 bits.
    [(10, b"\x0a"), (126, b"\x7e"), (127, b"\x7f\x00"), (1337, b"\x7f\xba\x09")],
)
def test_lengths_are_written_as_the_standard_says(length, written) -> None:
    assert handshake._string(b"x" * length) == written + b"x" * length
