"""The supervisor of the worker processes: starts, watches, restarts and stops them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from penstock.config import Config
from penstock.core.address import address
from penstock.core.errors import StartupError
from penstock.core.listening import HTTP
from penstock.core.processors import available
from penstock.observability.families import Family
from penstock.observability.logs import flush, logger
from penstock.operations import OpsServer
from penstock.page import Ports, StatusPage
from penstock.processes.address import ReservedPort
from penstock.processes.endings import how, in_words, unready
from penstock.processes.messages import Announce, Assignment, Failed, Hung, Leave, MetricsReport, Ready, Stop
from penstock.processes.metrics import GroupMetrics
from penstock.processes.split import described, shares
from penstock.processes.worker_process import SUPERVISOR_SIGNALS, WorkerProcess
from penstock.signals import signal_socket

log = logger(__name__)

CONNECTION_SECONDS = 30.0
"""How long connections are kept where the settings leave it open. Restarting one of several processes takes
this long; and every new connection costs its client a round trip or two."""
FIRST_DELAY_SECONDS = 0.5  # before a process is started that crashed twice in a row; then it doubles
MOST_DELAY_SECONDS = 30.0
WELL_SECONDS = 60.0  # a crash after this time counts as the first one
STOP_SECONDS = 10.0  # for a worker to end, in addition to the time to drain


@dataclass(slots=True)
class _Place:
    """The place of one worker, which several processes may hold one after another.

    Attributes:
        number: from 1.
        cores: for the worker in this place.
        current: the worker that takes calls.
        starting: the worker that will take its place.
        crashes: in a row, each soon after the start.
        due: when to start a worker, by `time.monotonic()`; None for not at all.
        restarts: how often a worker was started because another had ended unexpectedly.
    """

    number: int
    cores: int
    current: WorkerProcess | None = None
    starting: WorkerProcess | None = None
    crashes: int = 0
    due: float | None = None
    restarts: int = 0


class Supervisor:
    """The workers' supervisor. Life: `run`.

    Args:
        config: the settings.
        path: an .onnx file or a repository.
        show: prints what is served, once all workers are ready; never raises.
    """

    def __init__(self, config: Config, path: Path, show: Callable[[str], None]) -> None:
        if not sys.platform.startswith("linux"):
            raise StartupError(f"server.processes = {config.server.processes}: more than 1 needs Linux")
        self._path = path
        self._show = show
        processors = available()
        each = shares(processors.count, config.server.processes)
        self._processors, self._split = str(processors), described(processors.count, each, config)
        self._places = [_Place(number, share) for number, share in enumerate(each, 1)]
        self._workers: dict[Connection, WorkerProcess] = {}  # all that have not ended
        self._rolling: deque[_Place] = deque()
        self._served: bytes | None = None  # the models that were loaded last; see `Assignment.models`
        self._renewing = False  # whether the restart in progress loads what is on disk now
        self._announced = self._stopping = self._restarting = False
        self._all_answered = True
        self._kill_at = 0.0
        self._ops_address = ""
        self._terminal = _has_terminal()
        self._signals = signal_socket(SUPERVISOR_SIGNALS)
        self._port = ReservedPort(config.server.host, config.server.port)
        self._http_port = (
            ReservedPort(config.server.host, config.server.http_port, HTTP) if config.server.http else None
        )
        self._config = _for_workers(config, self._port, self._http_port)
        self._metrics = GroupMetrics(self._families)
        page = StatusPage(self._metrics.see, self._is_ready, self._ports, config.server.own_names)
        self._ops = OpsServer(
            config.server.host,
            config.server.ops_port,
            render_metrics=self._metrics.render,
            ready=self._is_ready,
            pages=page.pages() if config.server.status_page else None,
            on_stop=page.close,
        )

    def run(self) -> int:
        """Serves until told to stop; returns the exit code.

        Raises:
            StartupError: a worker cannot start, or an address cannot be had.
        """
        try:
            host = self._config.server.host
            self._ops_address = address(host, self._ops.start())
            for place in self._places:
                self._start(place)
            while self._workers or not self._stopping:
                self._turn()
        finally:
            self._ops.stop()
            for worker in self._workers.values():
                worker.kill()
            for port in (self._port, self._http_port):
                if port is not None:
                    port.close()
        log.info("stopped", answered_all=self._all_answered)
        return 0 if self._all_answered else 1

    def _turn(self) -> None:
        """Waits for the next message, signal or time to act, and handles it."""
        for each in wait([self._signals, *self._workers], self._timeout()):
            if isinstance(each, Connection):
                self._receive(self._workers[each])
            else:
                self._on_signal(signal.Signals(self._signals.recv(1)[0]))
        now = time.monotonic()
        for place in self._places:
            if place.due is not None and place.due <= now:
                self._start(place)
        if self._stopping and now > self._kill_at:
            self._kill_all()

    def _timeout(self) -> float | None:
        times = [place.due for place in self._places if place.due is not None]
        times += [self._kill_at] if self._stopping else []
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def _on_signal(self, received: signal.Signals) -> None:
        if received is signal.SIGHUP and self._terminal == _has_terminal():
            self._roll()
        elif not self._stopping:
            self._stop()
        elif received is not signal.SIGHUP:  # of which a closed terminal may send several
            self._kill_all()
            flush()
            os._exit(128 + received)

    def _receive(self, worker: WorkerProcess) -> None:
        """Takes a worker's next message, or notices its end."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._ended(worker)
            return
        match message:
            case MetricsReport():
                self._metrics.heard(worker, message)
            case Ready(summary, models):
                self._served = models
                self._ready(worker, summary)
            case Hung():
                self._hangs(worker, message)
            case Failed(reason) if not self._announced:
                raise StartupError(reason)
            case Failed(reason):
                log.error("a process cannot start", number=worker.number, error=reason)

    # Starting, crashing and rolling.

    def _start(self, place: _Place, renewed: bool = False) -> None:
        """Starts a worker, of the models that were loaded last or, `renewed`, of what is on disk now."""
        place.due = None
        assignment = Assignment(
            number=place.number,
            config=self._config,
            path=self._path,
            cores=place.cores,
            announced=self._announced,
            ops_address=self._ops_address,
            processors=self._processors,
            split=self._split,
            models=self._served if self._announced and not renewed else None,
        )
        try:
            place.starting = worker = WorkerProcess(assignment)
        except OSError as error:
            self._cannot_start(place, error)
            return
        self._workers[worker.connection] = worker
        log.debug("process started", number=place.number, worker_pid=worker.pid)

    def _cannot_start(self, place: _Place, error: OSError) -> None:
        """Handles that the system gives no further process now."""
        if not self._announced:
            raise StartupError(f"cannot start process {place.number}: {error.strerror}") from error
        log.error("a process cannot start", number=place.number, error=error.strerror)
        if place.current is None:
            place.due = time.monotonic() + MOST_DELAY_SECONDS
        else:
            self._give_up_restart(number=place.number)

    def _ready(self, worker: WorkerProcess, summary: str) -> None:
        """A worker takes calls: the one that had its place before leaves."""
        worker.ready = True
        self._metrics.add(worker)
        place = self._place_of(worker)
        before, place.current, place.starting = place.current, worker, None
        if self._announced:
            log.info("process ready", number=worker.number, worker_pid=worker.pid)
        elif all(each.current for each in self._places):
            self._announce(summary)
        if before is not None:
            before.told_to_end = True
            before.send(Leave())
        self._roll_on()

    def _announce(self, summary: str) -> None:
        self._announced = True
        for worker in self._workers.values():
            worker.send(Announce())
        self._show(summary)
        where = address(self._config.server.host, self._port.port)
        log.info("serving", grpc=where, ops=self._ops_address, processes=len(self._places))

    def _ended(self, worker: WorkerProcess) -> None:
        """Handles the end of a process, whether it was told to end or not."""
        del self._workers[worker.connection]
        self._metrics.remove(worker)
        code = worker.reap()
        about: dict[str, object] = {"number": worker.number, "worker_pid": worker.pid, **how(code)}
        if code < 0 and worker.was_running:
            about["running"] = worker.was_running
        place = self._place_of(worker)
        if self._stopping or worker.told_to_end:
            self._all_answered = self._all_answered and (code == 0 or not self._stopping)
            (log.error if code else log.info)("process ended", **about)
        elif code and not self._announced:
            raise StartupError(unready(worker, code))
        else:
            self._crashed(place, worker, about)
        if place.current is worker:
            place.current = None
        if place.starting is worker:
            place.starting = None
        self._roll_on()

    def _crashed(self, place: _Place, worker: WorkerProcess, about: dict[str, object]) -> None:
        if place.starting is worker and place.current is not None:
            self._give_up_restart(**about)
            return
        if time.monotonic() - worker.started > WELL_SECONDS:
            place.crashes = 0
        delay = min(FIRST_DELAY_SECONDS * 2 ** (place.crashes - 1), MOST_DELAY_SECONDS)
        delay = delay if place.crashes else 0.0
        place.crashes += 1
        log.error("a process ended unexpectedly", **about, restart_in_seconds=delay)
        self._metrics.crashed(in_words(about))
        if place.starting in (None, worker):
            place.due = time.monotonic() + delay
            place.restarts += 1

    def _hangs(self, worker: WorkerProcess, message: Hung) -> None:
        """Stores which models hang in a worker. A worker that no longer accepts calls is replaced."""
        worker.hung, worker.is_blocked = message.models, message.is_blocked
        place = self._place_of(worker)
        replaced = place.current is not worker or place.starting is not None or place in self._rolling
        if message.is_stuck and not replaced and not self._stopping:
            log.error("a process is stuck and is replaced", number=worker.number, worker_pid=worker.pid)
            self._rolling.append(place)
            self._renewing = self._renewing and self._restarting
            self._restarting = True
            self._roll_on()

    def _roll(self) -> None:
        """Replaces all processes by new ones, one after another."""
        if self._stopping or not self._announced:
            log.warning("no restart now: the processes are starting or stopping")
            return
        log.info("restarting all processes, one after another", processes=len(self._places))
        self._rolling = deque(self._places)
        self._restarting = self._renewing = True
        self._roll_on()

    def _roll_on(self) -> None:
        """Starts the next new process, if it is its turn."""
        leaving = any(worker.told_to_end for worker in self._workers.values())
        busy = leaving or any(place.starting for place in self._places)
        if busy or self._stopping or not self._restarting:
            return
        if self._rolling:
            self._start(self._rolling.popleft(), self._renewing)
        else:
            self._restarting = False
            log.info("all processes are restarted", processes=len(self._places))

    def _give_up_restart(self, **about: object) -> None:
        self._rolling.clear()
        self._restarting = False
        log.error("the restart was abandoned: a new process did not become ready", **about)

    def _place_of(self, worker: WorkerProcess) -> _Place:
        return self._places[worker.number - 1]

    # Stopping.

    def _stop(self) -> None:
        linger, drain = self._config.server.linger_seconds, self._config.server.drain_seconds
        log.info("stopping", processes=len(self._workers), linger_seconds=linger, drain_seconds=drain)
        self._stopping = True
        self._kill_at = time.monotonic() + linger + drain + STOP_SECONDS
        for place in self._places:
            place.due = None
        for worker in self._workers.values():
            worker.send(Stop())

    def _kill_all(self) -> None:
        for worker in self._workers.values():
            worker.kill()

    # What the operations server asks, on its own threads.

    def _is_ready(self) -> tuple[bool, str]:
        if self._stopping or not self._announced:
            return False, "the server is loading models or stopping"
        if not any(place.current for place in self._places):
            return False, "no process is ready; see the log"
        current = [place.current for place in self._places if place.current]
        names = ", ".join(sorted(frozenset[str]().union(*[each.hung for each in current])))
        if all(each.is_blocked for each in current):
            return False, f"a run of {names} hangs in every process"
        return True, f"ok, but in some processes a run of {names} hangs" if names else "ok"

    def _ports(self) -> Ports:
        server = self._config.server
        return Ports(server.host, server.port, server.http_port if server.http else 0)

    def _families(self) -> tuple[Family, ...]:
        ready = sum(place.current is not None for place in self._places)
        restarts = ((("process", str(place.number)),) for place in self._places)
        name = "penstock_process_restarts"
        counts = zip(restarts, (place.restarts for place in self._places), strict=True)
        return (
            Family(
                "penstock_processes",
                "Processes that take calls.",
                "gauge",
                (("penstock_processes", (), ready),),
            ),
            Family(
                name,
                "How often a process was started because one had ended unexpectedly.",
                "counter",
                tuple((f"{name}_total", labels, float(count)) for labels, count in counts),
            ),
        )


def _for_workers(config: Config, port: ReservedPort, http_port: ReservedPort | None) -> Config:
    server = config.server
    seconds = server.connection_seconds or CONNECTION_SECONDS
    ports = {"port": port.port, "http_port": http_port.port if http_port else server.http_port}
    shared = server.model_copy(update={**ports, "connection_seconds": seconds})
    return config.model_copy(update={"server": shared})


def _has_terminal() -> bool:
    """Whether the process belongs to a terminal that is open; one that is closed sends SIGHUP, too."""
    try:
        with open("/dev/tty"):
            return True
    except OSError:
        return False
