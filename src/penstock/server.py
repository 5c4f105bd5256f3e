"""The composition root: builds the parts from the settings, starts them and stops them. Nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

from penstock import __version__, transport
from penstock.backends import onnx
from penstock.config import Config
from penstock.engine import Engine
from penstock.messages import Observer
from penstock.models.model import Model
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.models.sequence import proposal
from penstock.ops import OpsServer
from penstock.routing import Router
from penstock.rpc import status
from penstock.rpc.health import METHODS as HEALTH_METHODS
from penstock.rpc.health import Health
from penstock.rpc.models import ModelService
from penstock.rpc.oip.control import HEALTH_METHODS as OIP_HEALTH_METHODS
from penstock.rpc.oip.control import Control
from penstock.rpc.oip.infer import InferenceService
from penstock.rpc.prediction import PredictionService
from penstock.rpc.reflection import add_reflection
from penstock.scheduling.runners import Runners
from penstock.summary import address
from penstock.telemetry.counters import CostLine, Gauges, ModelCounts, ModelMetrics, SequenceCounts
from penstock.telemetry.logs import logger
from penstock.telemetry.metrics import Metrics
from penstock.telemetry.observer import LoggingObserver
from penstock.transport.call import STOPPING, Limits, Transport
from penstock.transport.roads import choose
from penstock.transport.servicers import ServicerMethods

log = logger(__name__)

LAST_RUN_SECONDS = 0.5  # for runs to end whose callers have been told already
SERVICES = (
    "penstock.v1.PredictionService",
    "penstock.v1.ModelService",
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
)


class Server:
    """A server of the models at `path`. Life: `start`, `stop`.

    One of several processes takes the steps of `start` one by one, and has no port of operations of its own:
    `load`, `listen`, `serve` and `announce`; and to give up its place to another, `leave`.

    Args:
        config: the settings.
        path: an .onnx file or a repository.
        cores: how many processors it is to use; 0 for all that the process may use.
        shares_port: other processes listen on the port, too.

    Attributes:
        port: of gRPC, once it listens.
        ops_port: of operations over HTTP, once started.
        metrics: what is counted.
        tell_hung: told of the names of the models that hang, whenever these change.

    Raises:
        StartupError: the reactor was asked for and does not work here.
    """

    def __init__(self, config: Config, path: Path, *, cores: int = 0, shares_port: bool = False) -> None:
        cores = cores or onnx.cores()
        self.config = config
        self.port = self.ops_port = 0
        self.metrics = Metrics(status.code_name)
        self.tell_hung: Callable[[frozenset[str]], None] = lambda _: None
        self._path = path
        self._ready = False
        self._workers = ThreadPoolExecutor(config.server.workers, thread_name_prefix="penstock-worker")
        # Apart from the workers, who may be busy with large messages: a probe is not to wait for them.
        self._operators = ThreadPoolExecutor(config.server.workers, thread_name_prefix="penstock-operator")
        backend = partial(onnx.OnnxBackend, share=cores)
        self._registry = ModelRegistry(config, backend, self._observer, cores)
        self._router = Router()
        self._runners = Runners(
            config.runners.threads or cores, config.runners.inline_below_seconds, _log_failure
        )
        self._engine = Engine(self._router, self._runners, self._registry.all, self._tell_hung)
        self._doors = self._make_doors()
        self._counts: WeakKeyDictionary[Model, ModelMetrics] = WeakKeyDictionary()
        self._servicers = ServicerMethods(self._operators, _log_failure)
        self._health = Health(self._servicers)
        self._transport = self._make_transport(shares_port)
        self._ops = OpsServer(
            config.server.host,
            config.server.ops_port,
            render_metrics=self.metrics.render,
            ready=self._is_ready,
            alive=self._is_alive,
        )

    @property
    def models(self) -> Sequence[Model]:
        """The loaded models, by name, then by version."""
        return self._registry.all()

    @property
    def transport_name(self) -> str:
        """The road in use."""
        return self._transport.name

    @property
    def calls_in_flight(self) -> int:
        """The calls that have arrived and not ended."""
        return self._transport.calls_in_flight()

    def start(self) -> None:
        """Loads the models and begins to serve; returns once every model answers.

        Raises:
            StartupError: a model cannot be loaded, or an address cannot be had.
        """
        # Addresses come first: one that is taken should be known before minutes of loading.
        self.listen()
        self.ops_port = self._ops.start()
        self.load()
        self.serve()
        self.announce()
        log.info(
            "serving",
            grpc=address(self.config.server.host, self.port),
            ops=address(self.config.server.host, self.ops_port),
            transport=self.transport_name,
        )

    def listen(self) -> None:
        """Listens for gRPC; what comes waits until `serve`.

        Raises:
            StartupError: the address cannot be had.
        """
        self.port = self._transport.bind(address(self.config.server.host, self.config.server.port))

    def load(self) -> None:
        """Loads the models.

        Raises:
            StartupError: one cannot be loaded.
        """
        self._registry.load_all(scan(self._path), _log_model)
        self._router.set(self._registry.all())

    def serve(self) -> None:
        """Begins to take calls; the models are loaded."""
        self._transport.start()
        self._runners.start(self._transport.polling_thread, self._transport.hurry)
        self._engine.start()

    def announce(self) -> None:
        """Says SERVING to whoever asks for health."""
        self._health.serving({model.name for model in self._registry.all()})
        self._ready = True

    def stop(self, seconds: float) -> bool:
        """Stops: health first, then new calls, then the models, once what was accepted is answered.

        Args:
            seconds: the longest to wait for that.

        Returns:
            Whether all that was accepted was answered.
        """
        log.info("stopping", calls=self.calls_in_flight, drain_seconds=seconds)
        self._ready = False
        self._health.stopping()
        return self._finish(seconds)

    def leave(self, seconds: float) -> bool:
        """Stops as `stop` does, but says nothing on health, as others go on serving.

        Args:
            seconds: the longest to wait until what was accepted is answered.

        Returns:
            Whether all was.
        """
        log.info("stopping", calls=self.calls_in_flight, drain_seconds=seconds)
        return self._finish(seconds)

    def end_watches(self) -> None:
        """Ends the streams that only look on, such as health's Watch: their clients ask again elsewhere."""
        self._servicers.stop()

    def _finish(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        self._transport.refuse(STOPPING, spared=HEALTH_METHODS | OIP_HEALTH_METHODS)
        for door in self._doors:
            door.drain()
        answered = self._engine.drain(seconds)
        self._servicers.stop()
        closed = self._transport.drain(max(end - time.monotonic(), 0.0))
        self.close()
        log.info("stopped", answered_all=answered and closed)
        return answered and closed

    def close(self) -> None:
        """Stops at once."""
        self._transport.close()
        all_ended = self._runners.stop(LAST_RUN_SECONDS)
        self._engine.stop()
        self._ops.stop()
        for pool in (self._workers, self._operators):
            pool.shutdown(wait=False, cancel_futures=True)
        if all_ended:
            self._registry.close()

    def _make_transport(self, shares_port: bool) -> Transport:
        settings = self.config.server
        ModelService(self._engine, self._registry.all, self._servicers)
        Control(self._engine, self._registry.all, lambda: self._ready, self._counts_of, self._servicers)
        add_reflection(SERVICES, self._servicers)
        road = choose(settings.transport, _log_fallback)
        methods = dict(self._servicers.methods())
        for door in self._doors:
            methods.update(door.methods())
        limits = Limits(
            settings.max_message_bytes, settings.max_calls, settings.connection_seconds, shares_port
        )
        made = road(methods, limits, self._runners.work_inline, _log_failure)
        self.metrics.calls_in_flight = made.calls_in_flight
        self.metrics.server(
            version=__version__,
            transport=made.name,
            grpcio=transport.grpcio_version(),
            onnxruntime=onnx.version(),
        )
        return made

    def _make_doors(self) -> Sequence[PredictionService | InferenceService]:
        settings = self.config.server
        parts = (
            self._engine,
            self.metrics,
            self._workers,
            settings.offload_bytes,
            settings.max_stream_requests,
            _log_failure,
        )
        codes = status.TRITON_CODES if settings.triton_status_codes else status.CODES
        return PredictionService(*parts), InferenceService(*parts, codes=codes)

    def _counts_of(self, model: Model) -> ModelCounts:
        return self._counts[model].counts()

    def _observer(self, model: Model) -> Observer:
        counts = self._counts[model] = self.metrics.model(
            model.name,
            str(model.version),
            partial(_gauges, model),
            sha256=model.backend.file.sha256,
            batched=model.batching.enabled,
        )
        return LoggingObserver(counts, model.name, str(model.version), self.config.log.access_sample)

    def _is_ready(self) -> tuple[bool, str]:
        if self._ready and self._engine.hung:
            return False, f"a run hangs of {', '.join(sorted(self._engine.hung))}"
        return (True, "ok") if self._ready else (False, "the server is loading models or stopping")

    @property
    def stuck(self) -> str:
        """The model whose run holds up the thread that polls gRPC, so that no calls are taken; or empty."""
        polling = self._transport.polling_thread
        models = self._registry.all()
        return next((str(each) for each in models if polling in each.batcher.runs.hung_threads()), "")

    def _is_alive(self) -> tuple[bool, str]:
        stuck = self.stuck
        if stuck:
            return False, f"a run of {stuck} hangs on the thread that polls gRPC: restart the server"
        return True, "ok"

    def _tell_hung(self, models: frozenset[str]) -> None:
        self._health.hung(models)
        self.tell_hung(models)


def _gauges(model: Model) -> Gauges:
    batcher, kept = model.batcher, model.sequences
    rows, size = batcher.backlog()
    return Gauges(
        rows,
        size,
        batcher.running,
        len(batcher.runs.hung_threads()),
        int(batcher.breaker.is_open),
        SequenceCounts(kept.sequences, kept.sequences_expired) if kept else None,
        {
            elements: CostLine(cost.base_seconds, cost.row_seconds, cost.spread)
            for elements, cost in batcher.costs.lines().items()
            if cost.is_known
        },
    )


def _log_model(model: Model) -> None:
    log.info(
        "model ready",
        model=model.name,
        version=model.version,
        inputs=[str(spec) for spec in model.signature.inputs.values()],
        outputs=[str(spec) for spec in model.signature.outputs.values()],
        batched=model.batching.enabled,
        reason=model.batching.reason,
        **({"keeps": str(model.kept)} if model.kept else {}),
    )
    policy = model.batcher.policy
    if policy.batched and policy.max_rows > max(policy.queue_rows, 2):
        log.warning(
            "no batch of this model can be full: batching.max_rows is more than batching.queue_rows",
            model=model.name,
            version=model.version,
            max_rows=policy.max_rows,
            queue_rows=policy.queue_rows,
        )
    proposed = "" if model.kept else proposal(model.signature)
    if proposed:
        log.info("a state could be kept", model=model.name, version=model.version, advice=proposed)


def _log_fallback(error: BaseException) -> None:
    log.warning("the reactor does not work with this grpcio; serving on the portable road", error=repr(error))


def _log_failure(error: BaseException) -> None:
    log.error("unexpected failure", exc_info=error)
