"""Speak to a cluster through TLS, as Ray's own variables ask for it."""

from __future__ import annotations

import os
import socket
import ssl
from typing import NoReturn

from engine.errors import DispatchError

CERTIFICATE, KEY, AUTHORITY = "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"


def uses_tls() -> bool:
    """Return whether Ray speaks TLS in this environment."""
    return os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true")


def encrypted(connection: socket.socket, host: str) -> ssl.SSLSocket:
    """Return a connection that is open, with TLS upon it; the other end's certificate is right.

    Where ours is not, the other end hangs up on what is said first.

    Args:
        connection: To a node, on which nothing was said yet; it is closed where this fails.
        host: The name or address that the other end's certificate has to have.

    Raises:
        DispatchError: The variables do not name files as they should be, or the other end's
            certificate is not one for that host, signed by our authority.
        OSError: The other end hangs up or keeps silent, as one does that speaks no TLS.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["h2"])  # gRPC insists on it
        context.load_verify_locations(_file(AUTHORITY))
        context.load_cert_chain(_file(CERTIFICATE), _file(KEY), password=_refuse)
    except (DispatchError, OSError) as error:
        connection.close()
        raise DispatchError(
            f"RAY_USE_TLS is set, so that {CERTIFICATE}, {KEY} and {AUTHORITY} must name PEM files "
            f"of this machine: {error}"
        ) from error
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise DispatchError(
            f"the certificate that {host} shows is not accepted: {error.verify_message}; it has to "
            f"name {host} among its subjectAltNames, and to be signed by {AUTHORITY}"
        ) from error


def _refuse() -> NoReturn:
    """Refuse to ask for a passphrase, as OpenSSL would do on the terminal."""
    raise DispatchError(f"{KEY} has a passphrase, which Ray does not ask for; name one without")


def _file(variable: str) -> str:
    path = os.environ.get(variable)
    if not path:
        raise DispatchError(f"{variable} is not set")
    if not os.access(path, os.R_OK):
        raise DispatchError(f"{path} cannot be read")
    return path
