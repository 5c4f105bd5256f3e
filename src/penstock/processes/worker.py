"""A worker: a complete server in its own process, controlled by a supervisor.

Started by `penstock.processes.worker_process`. The connection to the supervisor is its standard input; when
that ends, the supervisor is gone, and the worker stops, too.

The server is imported late: the worker has to hear signals and its supervisor while libraries are loaded.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from penstock.core.address import address
from penstock.core.allocator import use_one_arena
from penstock.core.errors import StartupError
from penstock.core.garbage import resume_after_imports
from penstock.core.interpreter import share_fairly
from penstock.core.run_recorder import RunRecorder
from penstock.observability import logs
from penstock.processes import handoff
from penstock.processes.messages import (
    Announce,
    Assignment,
    Failed,
    Hung,
    Leave,
    MetricsReport,
    MetricsRequest,
    Ready,
    Stop,
)
from penstock.processes.worker_process import SUPERVISOR_SIGNALS
from penstock.signals import signal_socket
from penstock.transport.grpc.sockets import connections

if TYPE_CHECKING:
    from penstock.server import Server

log = logs.logger(__name__)

JITTER = 1.1  # gRPC spreads the age of connections by a tenth
LAST_CONNECTION_SECONDS = 0.5
POLL_SECONDS = 0.05


class Worker:
    """A worker, from its assignment to its end.

    Args:
        assignment: what it has to serve.
        connection: to the supervisor.
        signals: gives a byte for every SIGTERM.
    """

    def __init__(self, assignment: Assignment, connection: Connection, signals: socket.socket) -> None:
        self._assignment = assignment
        self._connection = connection
        self._signals = signals
        self._server: Server | None = None
        self._sending = threading.Lock()
        self._deciding = threading.Lock()  # a stop comes either before or after the first request
        self._accepts = False
        self._stop = threading.Event()
        self._leave_or_stop = threading.Event()

    def run(self) -> int:
        """Serves until it is told to end; returns the exit code."""
        threading.Thread(target=self._listen_to_supervisor, name="penstock-supervisor", daemon=True).start()
        threading.Thread(target=self._listen_to_signals, name="penstock-signals", daemon=True).start()
        try:
            server = self._started()
        except StartupError as error:
            self._send(Failed(str(error)))
            return 1
        self._send(Ready(self._summary(server), pickle.dumps(server.on_disk)))
        gc.freeze()  # as in cli/serve.py
        self._leave_or_stop.wait()
        answered = self._end(server)
        self._send(_full_report(0, server))
        return 0 if answered else 1

    def _started(self) -> Server:
        """The server, which listens only once its models are loaded: meanwhile the others serve."""
        from penstock.server import Server

        resume_after_imports()
        assignment = self._assignment
        runs = None if assignment.run_page is None else RunRecorder(assignment.run_page)
        server = Server(
            assignment.config, assignment.path, cores=assignment.cores, shares_port=True, runs=runs
        )
        self._server = server
        server.on_hung = lambda models: self._send(Hung(models, bool(server.stuck), server.is_blocked))
        try:
            server.load(None if assignment.models is None else pickle.loads(assignment.models))
            if assignment.announced:
                server.announce()
            with self._deciding:
                self._accepts = True
            server.listen()
            server.serve()
        except StartupError:
            server.close()
            raise
        return server

    def _summary(self, server: Server) -> str:
        from penstock.protocols.rest import docs
        from penstock.summary import Facts, summary

        assignment = self._assignment
        facts = Facts(
            address(server.config.server.host, server.port),
            assignment.ops_address,
            server.transport_name,
            assignment.processors,
            assignment.split,
            address(server.config.server.host, server.http_port) if server.http_port else "",
            docs.folder() is not None,
        )
        return summary(server.models, facts)

    def _end(self, server: Server) -> bool:
        settings = self._assignment.config.server
        if not self._stop.is_set():
            self._leave(server)
        if self._stop.is_set():
            return server.stop(settings.drain_seconds)
        return server.leave(settings.drain_seconds)

    def _leave(self, server: Server) -> None:
        """Waits until all clients have left, or until the time for that is over; see `handoff`."""
        settings = self._assignment.config.server
        log.info("leaving", calls=server.calls_in_flight)
        server.end_connections()
        handoff.stop_accepting(server.port)
        if server.http_port:
            handoff.stop_accepting(server.http_port, server.web.let_go)
        age = settings.connection_seconds * JITTER + LAST_CONNECTION_SECONDS
        if self._wait_until(lambda: not (connections(server.port) or server.web.connections()), age):
            return
        server.end_watches()
        self._wait_until(lambda: not server.calls_in_flight, settings.drain_seconds)

    def _wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether a condition becomes true in time; gives up once all workers stop."""
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
            case Announce(), server if server is not None:
                server.announce()
            case MetricsRequest(number, True), server if server is not None:
                self._send(_full_report(number, server))
            case MetricsRequest(number, _), server if server is not None:
                self._send(MetricsReport(number, server.metrics.families()))
            case Leave(), _:
                self._leave_or_stop.set()
            case Stop(), _:
                self._stop_soon()

    def _stop_soon(self) -> None:
        self._stop.set()
        self._end_unless_accepting()
        self._leave_or_stop.set()

    def _end_unless_accepting(self) -> None:
        """Ends the process if nothing was accepted yet: what is being loaded may take minutes."""
        with self._deciding:
            if not self._accepts:
                logs.flush()
                os._exit(0)

    def _listen_to_signals(self) -> None:
        """SIGTERM to a worker alone makes it leave, and the supervisor starts another; a second one ends it.

        Service managers may send it to all processes of a service at once; then the supervisor sends Stop
        as well.
        """
        self._signals.recv(1)
        self._end_unless_accepting()
        self._leave_or_stop.set()
        os._exit(128 + self._signals.recv(1)[0])

    def _send(self, message: object) -> None:
        # An error means that the supervisor is gone, which the other thread notices.
        with self._sending, suppress(OSError):
            self._connection.send(message)


def _full_report(number: int, server: Server) -> MetricsReport:
    """The metrics, and what the page shows besides."""
    seen = server.seen()
    return MetricsReport(number, tuple(seen.families), seen.models, seen.errors)


def main() -> None:
    """Runs the worker for the supervisor at the other end of standard input."""
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        sys.exit("only `penstock serve --processes N` can start this")
    use_one_arena()
    share_fairly()
    for each in (signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    signals = signal_socket((signal.SIGTERM,))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SUPERVISOR_SIGNALS)
    connection = Connection(os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        assignment = connection.recv()
    except EOFError:
        sys.exit(1)
    logs.configure(assignment.config.log, values={"process": assignment.number, "pid": os.getpid()})
    logs.report_what_python_reports()
    faulthandler.enable(all_threads=False)  # as in cli/serve.py
    code = Worker(assignment, connection, signals).run()
    logs.flush()
    sys.stderr.flush()
    os._exit(code)  # a run may still be active; a normal exit would wait for it or crash it
