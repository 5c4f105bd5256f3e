"""Handoff: a worker leaves a shared port without refusing a connection or a call. Linux only.

gRPC's own shutdown closes the listener, which resets the connections that the kernel has accepted and gRPC
has not; tells clients to leave; and cancels the calls that they sent before they could know. So it comes
last. First, the listening sockets accept nothing new and are emptied. Then the connections end by
themselves: after `server.connection_seconds` gRPC tells the client of each to make its next calls elsewhere,
in a way that loses no call (two GOAWAY frames, a round trip apart).
"""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from penstock.transport.grpc.sockets import own_sockets

SETTLE_SECONDS = 0.05
"""The time for handshakes under way to finish. Clients that are farther away than that are refused; the
longer it is, the more new clients have to try again, which their systems do after a second."""
EMPTY_SECONDS = 0.5  # the time for a server to accept the connections that the kernel has accepted
POLL_SECONDS = 0.005
SO_ATTACH_FILTER = 26
TCP_INFO_BYTES = 32
WAITING_OFFSET = 24  # in tcp_info of a listening socket: connections that wait to be accepted

# The filter, in the kernel's packet language: take the byte of flags, drop the packet if SYN is set.
# A dropped SYN is sent again a second later, and then goes to a process that still listens.
LOAD_BYTE, JUMP_IF_BITS, RETURN = 0x30, 0x45, 0x06
FLAGS_OFFSET, SYN = 13, 0x02
NO_SYN = (
    (LOAD_BYTE, 0, 0, FLAGS_OFFSET),
    (JUMP_IF_BITS, 0, 1, SYN),
    (RETURN, 0, 0, 0),
    (RETURN, 0, 0, 0xFFFFFFFF),
)


def _nothing() -> None: ...


def stop_accepting(port: int, let_go: Callable[[], None] = _nothing) -> None:
    """Stops listening on `port`, once its server has all connections that the kernel has accepted.

    Args:
        port: the port.
        let_go: called when the server has them, before the sockets stop listening. A server that watches them
            with an event loop must stop doing so: a socket that no longer listens is always ready to it.
    """
    with ExitStack() as stack:
        listeners = [stack.enter_context(each) for each in own_sockets(port, listening=True)]
        for each in listeners:
            _drop_new_connections(each)
        time.sleep(SETTLE_SECONDS)
        end = time.monotonic() + EMPTY_SECONDS
        while any(map(_waiting, listeners)) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        let_go()
        for each in listeners:
            # gRPC still has the socket; the kernel gives it no more connections.
            each.shutdown(socket.SHUT_RD)


def _drop_new_connections(listener: socket.socket) -> None:
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in NO_SYN))
    filter_ = struct.pack("HP", len(NO_SYN), ctypes.addressof(program))
    with suppress(OSError):  # without filters, connections that come at this moment may be refused
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)


def _waiting(listener: socket.socket) -> int:
    """How many connections the kernel has accepted that its server has not taken yet."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    return int(struct.unpack_from("I", info, WAITING_OFFSET)[0])
