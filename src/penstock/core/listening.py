"""What the server listens for, and the error when it cannot."""

from __future__ import annotations

from typing import NamedTuple

from penstock.core.errors import StartupError


class Purpose(NamedTuple):
    """What a port is for.

    Attributes:
        name: what is served there.
        advice: what to do if the port is taken.
    """

    name: str
    advice: str


GRPC = Purpose("gRPC", "--port (server.port) sets another port, 0 chooses a free one")
HTTP = Purpose(
    "HTTP",
    "--http-port (server.http_port) sets another port, 0 chooses a free one, and --no-http (server.http = "
    "false) switches HTTP off",
)
OPERATIONS = Purpose("operations", "--ops-port (server.ops_port) sets another port, 0 chooses a free one")


def listening_failed(address: str, purpose: Purpose, reason: str) -> StartupError:
    """The error for an address that cannot be listened on.

    Args:
        address: the address, as "host:port".
        purpose: what it is for.
        reason: why it cannot be listened on.
    """
    return StartupError(f"cannot listen on {address} for {purpose.name}: {reason}; {purpose.advice}")
