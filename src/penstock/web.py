"""Builds what serves HTTP: the services of the web's protocols, their paths, and the transport.

If HTTP is switched off, nothing of it is imported, and `Web` does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from penstock.config.sections import ServerConfig
from penstock.engine import Engine
from penstock.models.model import Model
from penstock.protocols.answers import AnswerLimits, Answers
from penstock.protocols.open_inference.management import HEALTH_METHODS
from penstock.protocols.service import Service, Telemetry
from penstock.protocols.status import CODES, TRITON_CODES
from penstock.protocols.work import Bounds
from penstock.transport.grpc.call import Method, Methods, Status

if TYPE_CHECKING:
    from penstock.transport.http.server import HttpTransport

Wrap: TypeAlias = Callable[[Methods], Methods]
Ready: TypeAlias = Callable[[], tuple[bool, str]]


@dataclass(frozen=True, slots=True)
class Web:
    """What serves HTTP. Life: `listen`, `start`, `refuse`, `drain`, `close`.

    Attributes:
        transport: the transport; None if HTTP is switched off.
        services: those that accept requests.
        reader: a thread that reads large JSON.
    """

    transport: HttpTransport | None = None
    services: Sequence[Service] = ()
    reader: Executor | None = None

    def listen(self, settings: ServerConfig) -> int:
        """Listens; connections wait until `start`.

        Returns:
            The port; 0 if HTTP is switched off.

        Raises:
            StartupError: the address cannot be listened on.
        """
        return self.transport.bind(settings.host, settings.http_port) if self.transport else 0

    def start(self) -> None:
        """Begins to take calls."""
        if self.transport:
            self.transport.start()

    def leave(self) -> None:
        """From now on connections end with their next answer."""
        if self.transport:
            self.transport.leave()

    def let_go(self) -> None:
        """Accepts no more connections; those that are open go on."""
        if self.transport:
            self.transport.let_go()

    def refuse(self, status: Status) -> None:
        """From now on every new call ends with `status`, except those that ask for the server's health."""
        if self.transport:
            from penstock.protocols.rest import pages

            self.transport.refuse(status, pages.HEALTH_METHODS | HEALTH_METHODS)

    def drain(self, seconds: float) -> bool:
        """Waits for the calls in flight; returns whether all have ended."""
        return self.transport.drain(seconds) if self.transport else True

    def close(self) -> None:
        """Closes all connections."""
        if self.transport:
            self.transport.close()
        if self.reader:
            self.reader.shutdown(wait=False, cancel_futures=True)

    def connections(self) -> int:
        """How many connections are open."""
        return self.transport.connections() if self.transport else 0

    def calls_in_flight(self) -> int:
        """How many calls have arrived and not ended."""
        return self.transport.calls_in_flight() if self.transport else 0


class ServiceParts(NamedTuple):
    """The parts that all services share, in the order in which `Service` takes them after its codec."""

    engine: Engine
    telemetry: Telemetry
    workers: Executor
    offload_bytes: int
    max_stream_requests: int
    failed: Callable[[BaseException], None]
    bounds: Bounds
    answers: Answers


def service_parts(
    settings: ServerConfig,
    engine: Engine,
    telemetry: Telemetry,
    workers: Executor,
    failed: Callable[[BaseException], None],
) -> ServiceParts:
    """The parts that all services share, as the settings have them."""
    answers = engine.held = Answers(
        engine,
        AnswerLimits(
            settings.stream_answer_bytes,
            settings.caller_answer_bytes,
            settings.total_answer_bytes,
            settings.total_queue_bytes,
            settings.max_answer_bytes,
        ),
    )
    bounds = Bounds(settings.inline_decode_seconds, settings.max_request_names, settings.max_message_requests)
    sizes = (settings.offload_bytes, settings.max_stream_requests)
    return ServiceParts(engine, telemetry, workers, *sizes, failed, bounds, answers)


def web(  # noqa: PLR0913 - what it is composed of
    settings: ServerConfig,
    parts: ServiceParts,
    servicers: Methods,
    is_ready: Ready,
    models: Callable[[], Sequence[Model]],
    wrap: Wrap,
    shares_port: bool,
    is_full: Callable[[], bool],
) -> Web:
    """Builds what serves HTTP.

    Args:
        settings: the settings.
        parts: what all services share.
        servicers: the methods of gRPC's servicers.
        is_ready: whether the server accepts requests, and why not.
        models: returns all loaded models.
        wrap: applies the interceptors.
        shares_port: whether other processes listen on the same port.
        is_full: whether there is no room for another connection.
    """
    # long: composes all parts, in the order in which they need each other
    if not settings.http:
        return Web()
    from penstock.protocols.rest import docs, infer, pages
    from penstock.protocols.rest import service as rest
    from penstock.transport.grpc.call import Limits
    from penstock.transport.http.server import HttpTransport, Work

    codes = TRITON_CODES if settings.triton_status_codes else CODES
    reader = ThreadPoolExecutor(1, thread_name_prefix="penstock-json")
    services = (
        rest.RestService(*parts, reader=reader),
        infer.HttpInferService(*parts, reader=reader, codes=codes),
    )
    methods: dict[str, Method] = {
        **pages.methods(is_ready, models),
        **docs.methods(),
        **infer.methods(servicers),
    }
    for service in services:
        methods |= service.methods()
    routes = (*rest.ROUTES, *pages.ROUTES, *docs.ROUTES, *infer.ROUTES)
    limits = Limits(
        settings.http_max_body_bytes,
        settings.max_calls,
        shares_port=shares_port,
        metadata_bytes=settings.max_metadata_bytes,
    )
    transport = HttpTransport(
        routes,
        wrap(methods),
        limits,
        parts.failed,
        settings.http_max_json_bytes,
        is_full,
        settings.http_allow_origins,
        Work(parts.engine.join, parts.engine.leave),
    )
    return Web(transport, services, reader)
