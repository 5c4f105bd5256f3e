"""The sockets of gRPC's server, and how its clients are told to go. Linux; elsewhere nothing is found.

gRPC has no way to ask for its sockets; they are found among the open files of the process.

At the end of a server, clients still send calls. If the process just ended, their connections would break,
and they could not know whether the calls had been run. gRPC's own shutdown cancels the calls, which says as
little. HTTP/2 has a message for this, GOAWAY: it names the last call that was handled, and the client may
make all later calls elsewhere. gRPC's clients in all languages do so by themselves. gRPC sends it too late:
only after it has begun to cancel what arrives.

On an encrypted connection only gRPC itself can write a frame. The server opens no such port; one that did
would need another way, such as `server.connection_seconds`, by which gRPC sends a GOAWAY of its own in time.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

GOODBYE_SECONDS = 0.2
"""How long clients may take to close their connections. One that takes longer may lose a call."""
POLL_SECONDS = 0.002

# Length 8, type 7, no flags, stream 0; the last stream that was handled, which is 0, and NO_ERROR.
# All calls that have an answer are over for the client as well when it reads this: the answers came before.
GOAWAY = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(8)


def say_goodbye(port: int) -> None:
    """Stops listening on `port`, and tells all clients that no further call is handled.

    Call this once every call has its answer; calls that arrive afterwards must be rejected. For connections
    without encryption. Returns when the clients have closed them, after `GOODBYE_SECONDS` at most.
    """
    with ExitStack() as stack:
        for each in own_sockets(port, listening=True):
            with stack.enter_context(each), suppress(OSError):
                each.shutdown(socket.SHUT_RD)
        for each in own_sockets(port, listening=False):
            with each:
                _send_goaway(each)
    end = time.monotonic() + GOODBYE_SECONDS
    while connections(port) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)


def connections(port: int) -> int:
    """How many connections to `port` the process has."""
    count = 0
    for each in own_sockets(port, listening=False):
        each.close()
        count += 1
    return count


def own_sockets(port: int, listening: bool) -> Iterator[socket.socket]:
    """Copies of the process's TCP sockets on `port`: those that listen, or those that are connected.

    The caller closes them.
    """
    seen = set()
    for name in _open_files():
        try:
            about = os.stat(int(name))
            # A copy may have taken the number of a file that was closed after the list was made.
            if not stat.S_ISSOCK(about.st_mode) or about.st_ino in seen:
                continue
            copy = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # it was closed meanwhile
            continue
        seen.add(about.st_ino)
        if _is_tcp_on(copy, port) and (_listens(copy) if listening else _is_connected(copy)):
            yield copy
        else:
            copy.close()


def _open_files() -> list[str]:
    try:
        return os.listdir("/proc/self/fd")
    except OSError:
        return []


def _is_tcp_on(each: socket.socket, port: int) -> bool:
    inet = each.family in (socket.AF_INET, socket.AF_INET6)
    return inet and each.type == socket.SOCK_STREAM and each.getsockname()[1] == port


def _listens(each: socket.socket) -> bool:
    return bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _is_connected(each: socket.socket) -> bool:
    """A socket that no longer listens is neither."""
    try:
        each.getpeername()
    except OSError:
        return False
    return True


def _send_goaway(connection: socket.socket) -> None:
    """Sends the frame between two of gRPC's, unless one of these may be only half sent for lack of room."""
    room = select.poll()
    room.register(connection, select.POLLOUT)
    if any(event & select.POLLOUT for _, event in room.poll(0)):
        with suppress(OSError):  # the client was quicker
            connection.send(GOAWAY, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
