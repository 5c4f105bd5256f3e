"""A process leaves a port that it shares."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack

from penstock.processes.handoff import stop_accepting
from penstock.transport.grpc.sockets import connections


def shared_listener(port: int = 0) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    made.listen()
    return made


def test_connections_are_counted() -> None:
    with shared_listener() as listener, ExitStack() as stack:
        port = listener.getsockname()[1]
        assert connections(port) == 0
        for count in range(1, 4):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stack.enter_context(listener.accept()[0])
            assert connections(port) == count
        # The other ends are this process's, too, but their own port is another.
        stack.close()
        assert connections(port) == 0


def test_what_was_accepted_is_not_lost_and_nothing_more_comes() -> None:
    """Connections wait to be accepted when it leaves; then the port refuses: no other process listens."""
    with shared_listener() as listener, ExitStack() as stack:
        port = listener.getsockname()[1]
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(5)]
        leaving = threading.Thread(target=stop_accepting, args=(port,))
        leaving.start()
        time.sleep(0.02)
        for _ in clients:
            stack.enter_context(listener.accept()[0]).sendall(b"x")
        leaving.join()
        assert [each.recv(1) for each in clients] == [b"x"] * 5
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        stack.pop_all().close()  # the clients leave; the listener, which is still open, does not count as one
        assert connections(port) == 0
        another = stack.enter_context(shared_listener(port))
        for _ in range(10):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stack.enter_context(another.accept()[0])
