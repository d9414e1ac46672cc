"""Ask a Ray cluster whether it lets us in, in milliseconds; Ray itself would try for a minute.

One call without arguments is made by hand, in the gRPC that Ray speaks. Ray's own client decides
once in a process whether it sends a token, and cannot be asked what happens without one.

Source: RFC 9113 (HTTP/2 frames), RFC 7541 (header literals), and gRPC's "gRPC over HTTP2".
"""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

from engine.dispatch.tls import encrypted, uses_tls
from engine.errors import ClusterUnavailableError, DispatchError

CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 3.0
LONGEST_ANSWER = 2**16
"""Bytes; a cluster needs some hundred."""
HEAD = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""What drivers and nodes ask the head for first; it changes nothing."""
CLIENT_SERVER = "/ray.rpc.RayletDriver/ClusterInfo"
"""What Ray Client asks for first; without the name of a client there is nothing to tell."""
CLIENT = "ray://"
"""What the address of a client server begins with."""
UNIMPLEMENTED, UNAUTHENTICATED = 12, 16
TOKEN_FILE = "~/.ray/auth_token"

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_NO_MESSAGE = bytes(5)  # not compressed, of length 0
_STATUS = re.compile(rb"grpc-status(?:\x01(\d)|\x02(\d\d))")


def knock(address: str) -> tuple[str, int]:
    """Return host and port of a cluster, once something answers there.

    Raises:
        DispatchError: The address is none, or nobody listens there.
    """
    pattern = r"(?P<host>\[[^\]]+\]|[^:\[\]/]+):(?P<port>\d{1,5})"
    match = re.fullmatch(pattern, address.removeprefix(CLIENT))
    if match is None or not 0 < int(match["port"]) < 2**16:
        raise DispatchError(_no_address(address))
    host, port = match["host"].strip("[]"), int(match["port"])
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except ValueError as error:  # no name of a host, such as one with an empty part
        raise DispatchError(_no_address(address)) from error
    except OSError as error:
        raise ClusterUnavailableError(
            f"no Ray cluster answers at {address}: {error.strerror or error}"
        ) from error
    return host, port


def _no_address(address: str) -> str:
    return f"--address must be local, auto, HOST:PORT or ray://HOST:PORT, not {address!r}"


def show_token(address: str, allow_insecure: bool) -> bool:
    """Find out whether a cluster wants a token, and whether it takes ours.

    Args:
        address: ``host:port`` or ``ray://host:port``.
        allow_insecure: Whether a cluster may be joined that asks nobody for a token.

    Returns:
        Whether the token must be shown.

    Raises:
        DispatchError: Nobody listens there, it is no Ray cluster, it wants another token than
            ours, or it wants none.
    """
    host, port = knock(address)
    method = CLIENT_SERVER if address.startswith(CLIENT) else HEAD
    status = _status(host, port, method, None)
    if status is None:
        tls = (
            "check that the cluster uses TLS and knows who signed RAY_TLS_SERVER_CERT"
            if uses_tls()
            else "set RAY_USE_TLS=1 if the cluster uses TLS"
        )
        raise ClusterUnavailableError(  # or a head that is about to start, or to end
            f"what listens at {address} does not answer like a Ray cluster: give the address "
            f"that 'ray start --head' printed, and {tls}"
        )
    if status == UNIMPLEMENTED:
        raise DispatchError(_other_door(address))
    if status != UNAUTHENTICATED:
        if not allow_insecure:
            raise DispatchError(open_to_everyone(address))
        return False
    found = own_token()
    if found is None:
        raise DispatchError(
            f"the Ray cluster at {address} asks for a token, and this account has none: copy "
            f"the cluster's token to {TOKEN_FILE} (mode 0600), or name it in RAY_AUTH_TOKEN_PATH"
        )
    token, source = found
    if _status(host, port, method, token) == UNAUTHENTICATED:
        raise DispatchError(
            f"the Ray cluster at {address} does not take the token of {source}: put the "
            "cluster's own token there"
        )
    return True


def _other_door(address: str) -> str:
    """Return what to do about an address where another part of Ray listens."""
    if address.startswith(CLIENT):
        return (
            f"no client server listens at {address}: give the port that 'ray start --head' has for "
            "clients (--ray-client-server-port, usually 10001), or, on a machine of the cluster, "
            "its --port without ray://"
        )
    return (
        f"the head of a Ray cluster does not listen at {address}: give the address that "
        f"'ray start --head' printed, or write ray://{address} if this is its port for clients"
    )


def open_to_everyone(address: str) -> str:
    """Return what is wrong with a cluster that asks nobody for a token."""
    return (
        f"the Ray cluster at {address} asks for no token, so whoever reaches it can run programs "
        "on it: start all of its nodes with RAY_AUTH_MODE=token, or, where nobody else can reach "
        "it, say so with --allow-insecure-cluster"
    )


def own_token() -> tuple[str, str] | None:
    """Return the token of this account and where it comes from, in Ray's order.

    Raises:
        DispatchError: The file that RAY_AUTH_TOKEN_PATH names cannot be read.
    """
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if token:
        return token, "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named or TOKEN_FILE).expanduser()
    if not named and not path.exists():
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DispatchError(f"the token of Ray in {path} cannot be read: {error}") from error
    return (token, str(path)) if token else None


def _status(host: str, port: int, method: str, token: str | None) -> int | None:
    """Return the gRPC status of a call, or None where the answer is not gRPC.

    Raises:
        DispatchError: A certificate is not accepted.
    """
    headers = {
        ":method": "POST",
        ":scheme": "https" if uses_tls() else "http",
        ":path": method,
        ":authority": f"{host}:{port}",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    request = (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, b"".join(map(_literal, headers, headers.values())))
        + _frame(_DATA, _END_STREAM, 1, _NO_MESSAGE)
    )
    answer, patience = b"", time.monotonic() + ANSWER_TIMEOUT_S
    try:
        with _connection(host, port) as connection:
            connection.sendall(request)
            while (match := _STATUS.search(answer)) is None:
                left_s = patience - time.monotonic()
                if left_s <= 0 or len(answer) > LONGEST_ANSWER:
                    return None
                connection.settimeout(left_s)
                part = connection.recv(2**16)
                if not part:
                    return None
                answer += part
    except OSError:  # a time limit, or the other end hung up
        return None
    return int(match[1] or match[2])


def _connection(host: str, port: int) -> socket.socket:
    """Connect as Ray would: through TLS where it is told so."""
    connection = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
    return encrypted(connection, host) if uses_tls() else connection


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def _literal(name: str, value: str) -> bytes:
    """Write a header as a literal that nobody need remember, RFC 7541 section 6.2.2."""
    return b"\0" + _string(name.encode()) + _string(value.encode())


def _string(text: bytes) -> bytes:
    """Write a string behind its length, an integer with a prefix of 7 bits."""
    length, prefix = len(text), b""
    if length >= 127:
        length -= 127
        prefix = b"\x7f"
        while length >= 128:
            prefix += bytes([length % 128 + 128])
            length //= 128
    return prefix + bytes([length]) + text
