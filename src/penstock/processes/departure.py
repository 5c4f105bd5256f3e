"""How a worker leaves a port that it shares, so that no connection and no call is refused. Linux only.

gRPC's own shutdown closes the listener, which resets the connections that the kernel has accepted and gRPC
has not; tells clients to go; and cancels the calls that they sent before they could know. So it comes last.
First the listening sockets take nothing new and are emptied. Then the connections go by themselves: after
`server.connection_seconds` gRPC tells the client of each to make its next calls elsewhere, in a way that
loses none (two GOAWAY frames, a round trip apart).

gRPC keeps its sockets to itself; they are found among the files of the process.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

SETTLE_SECONDS = 0.05
"""For handshakes under way. Shorter, and clients are refused that are farther away than that; longer, and
more of those that come now must try again, which their systems do after a second."""
EMPTY_SECONDS = 0.5  # for gRPC to accept what the kernel has accepted
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


def stop_accepting(port: int) -> None:
    """Takes the process's listening sockets off `port`, once what they have accepted is gRPC's."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(each) for each in _own_sockets(port, listening=True)]
        for each in listeners:
            _drop_new_connections(each)
        time.sleep(SETTLE_SECONDS)
        end = time.monotonic() + EMPTY_SECONDS
        while any(map(_waiting, listeners)) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        for each in listeners:
            # gRPC keeps a socket that the kernel gives no connections any more.
            each.shutdown(socket.SHUT_RD)


def connections(port: int) -> int:
    """How many connections to `port` the process has."""
    count = 0
    for each in _own_sockets(port, listening=False):
        each.close()
        count += 1
    return count


def _own_sockets(port: int, listening: bool) -> Iterator[socket.socket]:
    """Copies of the process's TCP sockets on its own `port` that listen, or are connected.

    The caller closes them.
    """
    seen = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            about = os.stat(int(name))
            # A copy may have taken the number of a file that was closed after the list was made.
            if not stat.S_ISSOCK(about.st_mode) or about.st_ino in seen:
                continue
            copy = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # it is closed meanwhile
            continue
        seen.add(about.st_ino)
        if _is_tcp_on(copy, port) and _listens(copy) is listening:
            yield copy
        else:
            copy.close()


def _is_tcp_on(each: socket.socket, port: int) -> bool:
    inet = each.family in (socket.AF_INET, socket.AF_INET6)
    return inet and each.type == socket.SOCK_STREAM and each.getsockname()[1] == port


def _listens(each: socket.socket) -> bool:
    return bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _drop_new_connections(listener: socket.socket) -> None:
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in NO_SYN))
    filter_ = struct.pack("HP", len(NO_SYN), ctypes.addressof(program))
    with suppress(OSError):  # where filters are not allowed, what comes in this moment may be refused
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)


def _waiting(listener: socket.socket) -> int:
    """How many connections the kernel has accepted, and gRPC has not."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    return int(struct.unpack_from("I", info, WAITING_OFFSET)[0])
