"""A worker: a complete server in a process of its own, which does what its supervisor says.

Started by `penstock.processes.worker_process`. The connection to the supervisor is its standard input; when
that ends, the supervisor is gone, and the worker stops, too.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from penstock.errors import StartupError
from penstock.processes import departure
from penstock.processes.messages import Announce, Ask, Counts, Failed, Hung, Leave, Orders, Ready, Stop
from penstock.processes.worker_process import MINE
from penstock.server import Server
from penstock.signals import signal_socket
from penstock.summary import address, summary
from penstock.telemetry import logs

log = logs.logger(__name__)

JITTER = 1.1  # gRPC spreads the age of connections by a tenth
LAST_CONNECTION_SECONDS = 0.5
POLL_SECONDS = 0.05


class Worker:
    """The worker's life.

    Args:
        orders: what it is to do.
        connection: to the supervisor.
        signals: gives a byte for every SIGTERM.
    """

    def __init__(self, orders: Orders, connection: Connection, signals: socket.socket) -> None:
        self._orders = orders
        self._connection = connection
        self._signals = signals
        self._server: Server | None = None
        self._sending = threading.Lock()
        self._gate = threading.Lock()  # so that it is clear whether anything was accepted when it is to stop
        self._open = False
        self._stop = threading.Event()
        self._leave_or_stop = threading.Event()

    def run(self) -> int:
        """Serves until it is told to end; returns the exit code."""
        threading.Thread(target=self._listen_to_supervisor, name="penstock-orders", daemon=True).start()
        threading.Thread(target=self._listen_to_signals, name="penstock-signals", daemon=True).start()
        try:
            server = self._started()
        except StartupError as error:
            self._send(Failed(str(error)))
            return 1
        self._send(Ready(self._summary(server)))
        gc.freeze()  # as in cli/serve.py
        self._leave_or_stop.wait()
        answered = self._end(server)
        self._send(Counts(0, server.metrics.families()))
        return 0 if answered else 1

    def _started(self) -> Server:
        """The server, which listens only once its models are loaded: meanwhile the others serve."""
        orders = self._orders
        server = Server(orders.config, orders.path, cores=orders.cores, shares_port=True)
        self._server = server
        server.tell_hung = lambda models: self._send(Hung(models, bool(server.stuck)))
        try:
            server.load()
            if orders.announced:
                server.announce()
            with self._gate:
                if self._stop.is_set():
                    os._exit(0)
                self._open = True
            server.listen()
            server.serve()
        except StartupError:
            server.close()
            raise
        return server

    def _summary(self, server: Server) -> str:
        shown = address(server.config.server.host, server.port)
        return summary(
            server.models, shown, self._orders.ops_address, server.transport_name, self._orders.split
        )

    def _end(self, server: Server) -> bool:
        settings = self._orders.config.server
        if not self._stop.is_set():
            self._leave(server)
        if self._stop.is_set():
            return server.stop(settings.drain_seconds)
        return server.leave(settings.drain_seconds)

    def _leave(self, server: Server) -> None:
        """Waits until nobody is left, or as long as may be; see `departure`."""
        settings = self._orders.config.server
        log.info("leaving", calls=server.calls_in_flight)
        departure.stop_accepting(server.port)
        age = settings.connection_seconds * JITTER + LAST_CONNECTION_SECONDS
        if self._wait_until(lambda: not departure.connections(server.port), age):
            return
        server.end_watches()
        self._wait_until(lambda: not server.calls_in_flight, settings.drain_seconds)

    def _wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether a condition comes about in time; gives up if all are to stop."""
        end = time.monotonic() + seconds
        while not condition():
            if self._stop.wait(POLL_SECONDS) or time.monotonic() > end:
                return False
        return True

    def _listen_to_supervisor(self) -> None:
        try:
            while True:
                self._do(self._connection.recv())
        except (EOFError, OSError):
            log.warning("the supervisor is gone")
            self._stop_soon()

    def _do(self, message: object) -> None:
        match message, self._server:
            case Announce(), Server() as server:
                server.announce()
            case Ask(number), Server() as server:
                self._send(Counts(number, server.metrics.families()))
            case Leave(), _:
                self._leave_or_stop.set()
            case Stop(), _:
                self._stop_soon()

    def _stop_soon(self) -> None:
        with self._gate:
            self._stop.set()
            self._leave_or_stop.set()
            if not self._open:
                os._exit(0)  # nothing was accepted, and what is being loaded may take minutes

    def _listen_to_signals(self) -> None:
        """SIGTERM to a worker alone makes it leave, and the supervisor starts another; a second one ends it.

        Some send it to all processes of a service at once; then the supervisor says Stop as well.
        """
        self._signals.recv(1)
        self._leave_or_stop.set()
        os._exit(128 + self._signals.recv(1)[0])

    def _send(self, message: object) -> None:
        # An error means that the supervisor is gone, which the other thread sees.
        with self._sending, suppress(OSError):
            self._connection.send(message)


def main() -> None:
    """Runs the worker that the supervisor at the other end of standard input wants."""
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        sys.exit("this is started by `penstock serve --processes N`, and by nobody else")
    for each in (signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    signals = signal_socket((signal.SIGTERM,))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, MINE)
    connection = Connection(os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        orders = connection.recv()
    except EOFError:
        sys.exit(1)
    logs.configure(orders.config.log, values={"process": orders.number, "pid": os.getpid()})
    code = Worker(orders, connection, signals).run()
    sys.stderr.flush()
    os._exit(code)  # a run may still be going on, which the end of the interpreter would wait for or break
