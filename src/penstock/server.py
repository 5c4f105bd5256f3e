"""The composition root: builds the parts from the settings, starts them and stops them. Nothing else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from penstock import __version__, transport
from penstock.backends import onnx
from penstock.config import Config
from penstock.engine import Engine
from penstock.messages import Observer
from penstock.models.model import Model
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.ops import OpsServer
from penstock.routing import Router
from penstock.rpc import status
from penstock.rpc.health import Health
from penstock.rpc.models import ModelService
from penstock.rpc.prediction import PredictionService
from penstock.rpc.reflection import add_reflection
from penstock.scheduling.runners import Runners
from penstock.telemetry.logs import logger
from penstock.telemetry.metrics import Metrics
from penstock.telemetry.observer import LoggingObserver
from penstock.transport.call import STOPPING, Limits, Transport
from penstock.transport.roads import choose
from penstock.transport.servicers import ServicerMethods

log = logger(__name__)

LAST_RUN_SECONDS = 0.5  # for runs to end whose callers have been told already
SERVICES = ("penstock.v1.PredictionService", "penstock.v1.ModelService", "grpc.health.v1.Health")


class Server:
    """A server of the models at `path`. Life: `start`, `stop`.

    Args:
        config: the settings.
        path: an .onnx file or a repository.

    Attributes:
        port: of gRPC, once started.
        ops_port: of operations over HTTP, once started.

    Raises:
        StartupError: the reactor was asked for and does not work here.
    """

    def __init__(self, config: Config, path: Path) -> None:
        self.config = config
        self.port = self.ops_port = 0
        self._path = path
        self._ready = False
        self._metrics = Metrics(status.code_name)
        self._workers = ThreadPoolExecutor(config.server.workers, thread_name_prefix="penstock-worker")
        self._registry = ModelRegistry(config, onnx.OnnxBackend, self._observer, onnx.cores())
        self._router = Router()
        self._runners = Runners(
            config.runners.threads or onnx.cores(), config.runners.inline_below_seconds, _log_failure
        )
        self._engine = Engine(self._router, self._runners, self._registry.all)
        self._prediction = PredictionService(
            self._engine,
            self._metrics,
            self._workers,
            config.server.offload_bytes,
            config.server.max_stream_requests,
            _log_failure,
        )
        self._servicers = ServicerMethods(self._workers, _log_failure)
        self._health = Health(self._servicers)
        self._transport = self._make_transport()
        self._ops = OpsServer(
            config.server.host,
            config.server.ops_port,
            render_metrics=self._metrics.render,
            ready=self._is_ready,
        )

    @property
    def models(self) -> Sequence[Model]:
        """The loaded models, by name, then by version."""
        return self._registry.all()

    @property
    def transport_name(self) -> str:
        """The road in use."""
        return self._transport.name

    def start(self) -> None:
        """Loads the models and begins to serve; returns once every model answers.

        Raises:
            StartupError: a model cannot be loaded, or an address cannot be had.
        """
        settings = self.config.server
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        # Addresses come first: one that is taken should be known before minutes of loading.
        self.port = self._transport.bind(f"{host}:{settings.port}")
        self.ops_port = self._ops.start()
        self._registry.load_all(scan(self._path), _log_model)
        self._router.set(self._registry.all())
        self._transport.start()
        self._runners.start(self._transport.polling_thread, self._transport.hurry)
        self._engine.start()
        self._health.serving({model.name for model in self._registry.all()})
        self._ready = True
        log.info(
            "serving",
            grpc=f"{host}:{self.port}",
            ops=f"{host}:{self.ops_port}",
            transport=self.transport_name,
        )

    def stop(self, seconds: float) -> bool:
        """Stops: health first, then new calls, then the models, once what was accepted is answered.

        Args:
            seconds: the longest to wait for that.

        Returns:
            Whether all that was accepted was answered.
        """
        end = time.monotonic() + seconds
        log.info("stopping", calls=self._transport.calls_in_flight(), drain_seconds=seconds)
        self._ready = False
        self._health.stopping()
        self._transport.refuse(STOPPING)
        self._prediction.drain()
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
        self._workers.shutdown(wait=False, cancel_futures=True)
        if all_ended:
            self._registry.close()

    def _make_transport(self) -> Transport:
        settings = self.config.server
        ModelService(self._engine, self._registry.all, self._servicers)
        add_reflection(SERVICES, self._servicers)
        road = choose(settings.transport, _log_fallback)
        methods = {**self._servicers.methods(), **self._prediction.methods()}
        limits = Limits(settings.max_message_bytes, settings.max_calls)
        made = road(methods, limits, self._runners.work_inline, _log_failure)
        self._metrics.calls_in_flight = made.calls_in_flight
        self._metrics.server(
            version=__version__,
            transport=made.name,
            grpcio=transport.grpcio_version(),
            onnxruntime=onnx.version(),
        )
        return made

    def _observer(self, model: Model) -> Observer:
        counts = self._metrics.model(
            model.name,
            str(model.version),
            queue_rows=lambda: model.batcher.waiting_rows,
            running=lambda: model.batcher.running,
            sha256=model.backend.file.sha256,
            batched=model.batching.enabled,
        )
        return LoggingObserver(counts, model.name, str(model.version), self.config.log.access_sample)

    def _is_ready(self) -> tuple[bool, str]:
        return (True, "ok") if self._ready else (False, "the server is loading models or stopping")


def _log_model(model: Model) -> None:
    log.info(
        "model ready",
        model=model.name,
        version=model.version,
        inputs=[str(spec) for spec in model.signature.inputs.values()],
        outputs=[str(spec) for spec in model.signature.outputs.values()],
        batched=model.batching.enabled,
        reason=model.batching.reason,
    )


def _log_fallback(error: BaseException) -> None:
    log.warning("the reactor does not work with this grpcio; serving on the portable road", error=repr(error))


def _log_failure(error: BaseException) -> None:
    log.error("unexpected failure", exc_info=error)
