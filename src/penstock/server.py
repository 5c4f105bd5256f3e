"""The composition root: builds the parts from the settings, starts them and stops them. Nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

from penstock import __version__, loading
from penstock.backends import onnx
from penstock.config import Config
from penstock.core.address import address
from penstock.core.interpreter import less_urgent
from penstock.core.observers import combined
from penstock.core.processors import available
from penstock.core.request import Observer
from penstock.core.run_recorder import RunRecorder
from penstock.described import Describer
from penstock.engine import Engine
from penstock.gauges import gauges_of
from penstock.interceptors import Interceptor, intercepted
from penstock.models.model import Model
from penstock.models.repository import ModelOnDisk
from penstock.observability.counters import ModelCounts, ModelMetrics
from penstock.observability.logs import logger
from penstock.observability.metrics import Metrics
from penstock.observability.observer import AccessLog, FailureLog
from penstock.observability.open_files import OpenFiles, most_connections
from penstock.observability.page.errors import RecentErrors
from penstock.operations import OpsServer
from penstock.page import Ports, Seen, StatusPage
from penstock.protocols import status
from penstock.protocols.open_inference.management import HEALTH_METHODS as OIP_HEALTH_METHODS
from penstock.protocols.open_inference.management import Control
from penstock.protocols.open_inference.service import InferenceService
from penstock.protocols.penstock_v1.models import ModelService
from penstock.protocols.penstock_v1.service import PredictionService
from penstock.protocols.standard.health import METHODS as HEALTH_METHODS
from penstock.protocols.standard.health import Health
from penstock.protocols.standard.reflection import add_reflection
from penstock.scheduling.runners import Runners
from penstock.traffic.router import Router
from penstock.transport.grpc import grpcio_version
from penstock.transport.grpc.call import STOPPING, Limits, Methods, Transport
from penstock.transport.grpc.select import choose
from penstock.transport.grpc.servicers import ServicerMethods
from penstock.transport.grpc.sockets import connections, say_goodbye
from penstock.web import service_parts, web

log = logger(__name__)

LAST_RUN_SECONDS = 0.5  # for runs whose callers have been answered already
POLLS, SERVES = "polls gRPC", "serves HTTP"
SERVICES = (
    "penstock.v1.PredictionService",
    "penstock.v1.ModelService",
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
)


class Server:
    """A server of the models at `path`: call `start`, later `stop`.

    A process that is one of several has no operations port. It calls the steps of `start` one by one: `load`,
    `listen`, `serve` and `announce`; and `leave` to be replaced by another process.

    Args:
        config: the settings.
        path: an .onnx file or a repository.
        cores: how many processors it is to use; 0 for all that the process may use, by affinity and quota.
        shares_port: whether other processes listen on the same port.
        runs: records which models are being run, for the supervisor to read.
        interceptors: wrap the methods of all services once, when the server is created; the first one sees
            a call first.

    Attributes:
        port: of gRPC, once it listens.
        http_port: of HTTP, once it listens; 0 if HTTP is switched off.
        ops_port: of operations over HTTP, once started.
        metrics: what is counted.
        web: what serves HTTP.
        on_hung: called with the names of the models that hang, whenever these change.
        on_loading: called with what is being loaded, in words.
        on_disk: the models that were to be loaded, with the settings and files of each.

    Raises:
        StartupError: the reactor transport is required by the settings and does not work here.
    """

    on_disk: Sequence[ModelOnDisk] = ()

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        config: Config,
        path: Path,
        *,
        cores: int = 0,
        shares_port: bool = False,
        runs: RunRecorder | None = None,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        # long: composes all parts, in the order in which they need each other
        cores = cores or available().count
        self.config = config
        self.port = self.http_port = self.ops_port = 0
        self.metrics = Metrics(status.code_name)
        self.on_hung: Callable[[frozenset[str]], None] = lambda _: None
        self.on_loading: Callable[[str], None] = lambda _: None
        self._errors = RecentErrors(status.code_name)
        self.metrics.on_failed = self._errors.unknown.failed
        self._describer = Describer()
        self._cores = cores
        self._path = path
        self._ready = False
        self._workers = ThreadPoolExecutor(config.server.workers, "penstock-worker", less_urgent())
        # Separate from the workers, which may be busy with large messages: a probe must not wait for those.
        self._operators = ThreadPoolExecutor(config.server.workers, thread_name_prefix="penstock-operator")
        self._router = Router()
        runners = config.runners
        self._runners = Runners(runners.threads or cores, runners.inline_below_seconds, _log_failure)
        self._registry = loading.registry(config, self._observer, cores, runs, self._runners.verifier)
        self._engine = Engine(self._router, self._runners, self._registry.all, self._on_hung)
        wrap = partial(intercepted, interceptors=interceptors)
        parts = service_parts(config.server, self._engine, self.metrics, self._workers, _log_failure)
        self.metrics.answer_bytes = lambda: parts.answers.used
        codes = status.TRITON_CODES if config.server.triton_status_codes else status.CODES
        self._services = (PredictionService(*parts), InferenceService(*parts, codes=codes))
        self._counts: WeakKeyDictionary[Model, ModelMetrics] = WeakKeyDictionary()
        self._servicers = ServicerMethods(self._operators, _log_failure)
        self._health = Health(self._servicers)
        self._transport = self._make_transport(shares_port, wrap)
        servicers = self._servicers.methods()
        models = self._registry.all
        self._files = OpenFiles(most_connections(), self._count_connections)
        is_full = self._files.is_full
        self.web = web(config.server, parts, servicers, self._is_ready, models, wrap, shares_port, is_full)
        self._page = StatusPage(self.seen, self._is_ready, self._ports, config.server.own_names)
        self._ops = OpsServer(
            config.server.host,
            config.server.ops_port,
            render_metrics=self.metrics.render,
            ready=self._is_ready,
            alive=self._is_alive,
            pages=self._page.pages() if config.server.status_page else None,
            on_stop=self._page.close,
        )

    @property
    def models(self) -> Sequence[Model]:
        """The loaded models, by name, then by version."""
        return self._registry.all()

    @property
    def transport_name(self) -> str:
        """The transport in use."""
        return self._transport.name

    @property
    def calls_in_flight(self) -> int:
        """The calls that have arrived and not ended."""
        return self._transport.calls_in_flight() + self.web.calls_in_flight()

    def start(self, accept: Callable[[], None] = lambda: None) -> None:
        """Loads the models and begins to serve; returns once every model answers.

        Args:
            accept: called once the models are loaded, before the first request is accepted.

        Raises:
            StartupError: a model cannot be loaded, or the server cannot listen on an address.
        """
        # Addresses come first: one that is taken should be known before minutes of loading.
        self.listen()
        self.ops_port = self._ops.start()
        self.load()
        accept()
        self.serve()
        self.announce()
        log.info(
            "serving",
            grpc=address(self.config.server.host, self.port),
            ops=address(self.config.server.host, self.ops_port),
            **({"http": address(self.config.server.host, self.http_port)} if self.http_port else {}),
            transport=self.transport_name,
            processors=self._cores,
        )

    def listen(self) -> None:
        """Listens for gRPC and HTTP; calls that arrive wait until `serve`.

        Raises:
            StartupError: the server cannot listen on the address.
        """
        self.port = self._transport.bind(address(self.config.server.host, self.config.server.port))
        self.http_port = self.web.listen(self.config.server)

    def load(self, again: Sequence[ModelOnDisk] | None = None) -> None:
        """Loads the models.

        Args:
            again: the models of an earlier process (`on_disk`): those that cannot be loaded any more are
                reported as broken. None for those at the path.

        Raises:
            StartupError: one cannot be loaded.
        """
        self.on_disk = loading.load(self._registry, self._path, self._loading, again)
        self._router.set(self._registry.all(), self._registry.broken)
        for service in (*self._services, *self.web.services):
            service.make_room_for(self._registry.all())

    def _loading(self, name: str, version: int, number: int, count: int) -> None:
        log.info("loading", model=name, version=version)
        self.on_loading(f"loading {name} version {version} ({number} of {count})")

    def serve(self) -> None:
        """Begins to accept calls; the models must be loaded."""
        self._transport.start()
        self._runners.start(self._transport.polling_thread, self._transport.flush_now)
        self._engine.start()
        self.web.start()
        self._files.start()

    def announce(self) -> None:
        """Sets health to SERVING."""
        broken = {each.name for each in self._registry.broken if each.is_default}
        self._health.serving({model.name for model in self._registry.all()} - broken, broken)
        self._ready = True

    def stop(self, seconds: float) -> bool:
        """Health first, new calls after `server.linger_seconds`; returns once all is answered.

        Calls are rejected until the process ends, or until `close`, which cancels those that arrive.

        Args:
            seconds: the longest to wait for that.

        Returns:
            Whether all was answered.
        """
        self._health.stopping()
        self._ready = False  # after health: a client that reads 503 from /readyz finds NOT_SERVING there
        return self._finish(seconds, self.config.server.linger_seconds)

    def leave(self, seconds: float) -> bool:
        """Stops as `stop` does, but health stays SERVING, since other processes go on."""
        return self._finish(seconds, 0.0)

    def end_connections(self) -> None:
        """Ends the connections over HTTP, each with its next answer."""
        self.web.leave()

    def end_watches(self) -> None:
        """Ends the streams that only watch, such as health's Watch: clients then watch another process."""
        self._servicers.stop()

    def _finish(self, seconds: float, linger: float) -> bool:
        log.info("stopping", calls=self.calls_in_flight, linger_seconds=linger, drain_seconds=seconds)
        time.sleep(linger)
        end = time.monotonic() + seconds
        self._transport.refuse(STOPPING, spared=HEALTH_METHODS | OIP_HEALTH_METHODS)
        self.web.refuse(STOPPING)
        for service in (*self._services, *self.web.services):
            service.drain()
        answered = self._engine.drain(seconds)
        self._servicers.stop()
        closed = self._transport.drain(max(end - time.monotonic(), 0.0))
        closed = self.web.drain(max(end - time.monotonic(), 0.0)) and closed
        if answered and closed:  # else clients would take what still runs for calls that were not handled
            say_goodbye(self.port)
        log.info("stopped", answered_all=answered and closed)
        return answered and closed

    def close(self) -> None:
        """Stops at once."""
        self._transport.close()
        self.web.close()
        all_ended = self._runners.stop(LAST_RUN_SECONDS)
        self._engine.stop()
        self._files.stop()
        self._ops.stop()
        for pool in (self._workers, self._operators):
            pool.shutdown(wait=False, cancel_futures=True)
        if all_ended:
            self._registry.close()

    def seen(self) -> Seen:
        """What the page shows."""
        models = self._describer.texts(self._registry.all(), self._registry.broken)
        return Seen(self.metrics.families(), models, self._errors.entries())

    def _ports(self) -> Ports:
        return Ports(self.config.server.host, self.port, self.http_port)

    def _make_transport(self, shares_port: bool, wrap: Interceptor) -> Transport:
        settings = self.config.server
        ModelService(self._engine, self._registry.all, self._servicers)
        Control(self._engine, self._registry.all, lambda: self._ready, self._counts_of, self._servicers)
        add_reflection(SERVICES, self._servicers)
        transport = choose(settings.transport, _log_fallback)
        methods: Methods = dict(self._servicers.methods())
        for service in self._services:
            methods = {**methods, **service.methods()}
        limits = Limits(
            settings.max_message_bytes,
            settings.max_calls,
            settings.connection_seconds,
            shares_port,
            settings.max_metadata_bytes,
            most_connections(),
        )
        made = transport(wrap(methods), limits, self._runners.work_inline, _log_failure)
        self.metrics.calls_in_flight = made.calls_in_flight
        self.metrics.seconds_at_file_limit = lambda: self._files.seconds_at_limit
        self.metrics.server(
            version=__version__,
            transport=made.name,
            grpcio=grpcio_version(),
            onnxruntime=onnx.version(),
        )
        return made

    def _count_connections(self) -> int:
        return connections(self.port) + self.web.connections()

    def _counts_of(self, model: Model) -> ModelCounts:
        return self._counts[model].counts()

    def _observer(self, model: Model) -> Observer:
        counts = self._counts[model] = self.metrics.model(
            model.name,
            str(model.version),
            partial(gauges_of, model),
            sha256=lambda: model.backend.file.sha256,
            batched=lambda: model.batching.enabled,
        )
        names, sample = (model.name, str(model.version)), self.config.log.access_sample
        observers: list[Observer] = [counts, FailureLog(*names), self._errors.of(*names)]
        return combined([*observers, AccessLog(*names, sample)] if sample else observers)

    def _is_ready(self) -> tuple[bool, str]:
        if not self._ready:
            return False, "the server is loading models or stopping"
        hangs = f"a run of {', '.join(sorted(self._engine.hung))} hangs" if self._engine.hung else ""
        if self.is_blocked:
            return False, hangs
        broken = ", ".join(f"{each.name} version {each.version}" for each in self._registry.broken)
        but = "; ".join(filter(None, (hangs, f"not served: {broken}" if broken else "")))
        return True, f"ok, but {but}" if but else "ok"

    @property
    def is_blocked(self) -> bool:
        """Whether runs that hang keep the whole server from being ready."""
        hung = self._engine.hung
        if not hung:
            return False
        if self.config.runners.hung_unready == "server" or self.stuck:
            return True
        return all(model.name in hung for model in self._registry.all())

    @property
    def stuck(self) -> str:
        """The run that blocks a thread that takes calls, so that it takes none, and where; or ""."""
        polling = self._transport.polling_thread
        for thread in self._runners.inline_threads():
            for model in self._registry.all():
                if thread in model.batcher.in_flight.hung_threads():
                    return (
                        f"a run of {model} hangs on the thread that {POLLS if thread == polling else SERVES}"
                    )
        return ""

    def _is_alive(self) -> tuple[bool, str]:
        if stuck := self.stuck:
            return False, f"{stuck}: restart the server"
        if not self._transport.is_responsive():
            return False, "the thread that polls gRPC is held up"
        return True, "ok"

    def _on_hung(self, models: frozenset[str]) -> None:
        self._health.hung(models)
        self.on_hung(models)


def _log_fallback(error: BaseException) -> None:
    log.warning(
        "the reactor transport does not work with this grpcio; using the portable transport",
        error=repr(error),
    )


def _log_failure(error: BaseException) -> None:
    log.error("unexpected failure", exc_info=error)
