"""The server's metrics, for Prometheus. Beside `model_families`, the only file with prometheus_client.

Times are in seconds. The label values are bounded: models that are served, RPCs, status codes; a name that
a caller made up never becomes one. Counts of a model go when it is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from penstock.errors import RequestError
from penstock.telemetry.counters import Gauges, ModelMetrics, StreamCounts
from penstock.telemetry.families import Family
from penstock.telemetry.model_families import Seen, model_families, outcome_families

__all__ = ["Metrics", "ModelMetrics"]

_MODEL = ("model", "version")
_RPC = (*_MODEL, "rpc")
_Labels = tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    """One version of one model: its counts, and what there is to ask of each of its loaded copies."""

    metrics: ModelMetrics
    info: dict[str, str] = field(default_factory=dict)
    gauges: list[Callable[[], Gauges]] = field(default_factory=list)


class Metrics:
    """Everything that is counted, in a registry of its own. May be called from any thread.

    Args:
        code_of: the name of the status code that an error is answered with, such as "NOT_FOUND".

    Attributes:
        calls_in_flight: asked at a scrape for the calls in flight; set by whoever has them.
    """

    def __init__(self, code_of: Callable[[RequestError], str]) -> None:
        self.calls_in_flight: Callable[[], int] = lambda: 0
        self._code_of = code_of
        self._lock = Lock()
        self._models: dict[tuple[str, str], _Entry] = {}
        self._unknown = ModelMetrics(code_of)
        self._streams = StreamCounts()
        self._server: dict[str, str] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(self._collect))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def server(self, *, version: str, transport: str, grpcio: str, onnxruntime: str) -> None:
        """Sets what `penstock_server_info` says: the versions, and the transport in use."""
        self._server = {
            "version": version,
            "transport": transport,
            "grpcio": grpcio,
            "onnxruntime": onnxruntime,
        }

    def model(
        self,
        name: str,
        version: str,
        gauges: Callable[[], Gauges],
        *,
        sha256: str = "",
        batched: bool = False,
    ) -> ModelMetrics:
        """The counts of one version of one model, which appear in the metrics from now on.

        Asking again for the same one, as for a copy that replaces it, gives the same counts; the gauges
        show the sum of the copies until `forget` was called as often as this.

        Args:
            name: the model's name.
            version: the version's number, as text.
            gauges: asked at a scrape for how it is.
            sha256: of the model file, in hexadecimal.
            batched: whether requests are run together.
        """
        with self._lock:
            entry = self._models.setdefault((name, version), _Entry(ModelMetrics(self._code_of)))
            entry.info = {"sha256": sha256, "batched": str(batched).lower()}
            entry.gauges.append(gauges)
            return entry.metrics

    def forget(self, name: str, version: str) -> None:
        """The oldest copy of this version is gone; with the last one its metrics go. Never an error."""
        with self._lock:
            entry = self._models.get((name, version))
            if entry is None:
                return
            del entry.gauges[0]
            if not entry.gauges:
                del self._models[name, version]

    def failed(self, rpc: str, error: RequestError) -> None:
        """Counts a request that ended with `error` and reached no model; the label `model` is then empty."""
        self._unknown.failed(rpc, error)

    def stream_opened(self) -> None:
        """Counts a stream that has been opened."""
        with self._lock:
            self._streams.open += 1

    def stream_closed(self) -> None:
        """Counts a stream that has ended, however it did."""
        with self._lock:
            self._streams.open -= 1

    def stream_received(self, messages: int, requests: int) -> None:
        """Counts messages that came on a stream, and the requests in them."""
        with self._lock:
            self._streams.messages_received += messages
            self._streams.requests += requests

    def stream_sent(self, messages: int, results: int) -> None:
        """Counts messages that were sent on a stream, and the results in them."""
        with self._lock:
            self._streams.messages_sent += messages
            self._streams.results += results

    def render(self, accept_header: str = "") -> tuple[str, bytes]:
        """All metrics as text, in the format of those in an HTTP Accept header that suits best.

        Returns:
            The content type, and the text.
        """
        return _rendered(self._registry, accept_header)

    def families(self) -> tuple[Family, ...]:
        """All metrics, as data."""
        return tuple(map(_family, self._registry.collect()))

    def _collect(self) -> Iterator[Metric]:
        with self._lock:
            models = {
                labels: replace(entry, gauges=entry.gauges.copy()) for labels, entry in self._models.items()
            }
            streams = replace(self._streams)
        yield InfoMetricFamily("penstock_server", "The server.", self._server)
        yield GaugeMetricFamily("penstock_calls_in_flight", "Calls in flight.", self.calls_in_flight())
        yield from _stream_families(streams)
        seen = [_seen(labels, entry) for labels, entry in models.items()]
        yield from model_families(seen)
        unknown = Seen(("", ""), self._unknown.counts(), {}, Gauges())
        yield from outcome_families([*seen, unknown])


def render(families: Sequence[Family], accept_header: str = "") -> tuple[str, bytes]:
    """Metrics that are given as data; see `Metrics.render`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(lambda: map(_metric, families)))
    return _rendered(registry, accept_header)


def process_families() -> tuple[Family, ...]:
    """What the operating system knows of this process, as data."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    return tuple(map(_family, registry.collect()))


def _rendered(registry: CollectorRegistry, accept_header: str) -> tuple[str, bytes]:
    encode, content_type = choose_encoder(accept_header)
    return content_type, encode(registry)


def _family(metric: Metric) -> Family:
    samples = ((each.name, tuple(each.labels.items()), each.value) for each in metric.samples)
    return Family(metric.name, metric.documentation, metric.type, tuple(samples))


def _metric(family: Family) -> Metric:
    metric = Metric(family.name, family.documentation, family.kind)
    for name, labels, value in family.samples:
        metric.add_sample(name, dict(labels), value)
    return metric


class _Collector(Collector):
    """What the registry asks for families."""

    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """All families, new."""
        return self._families()


def _seen(labels: tuple[str, str], entry: _Entry) -> Seen:
    gauges = Gauges.together([ask() for ask in entry.gauges])
    return Seen(labels, entry.metrics.counts(), entry.info, gauges)


def _stream_families(streams: StreamCounts) -> Iterator[Metric]:
    yield GaugeMetricFamily("penstock_streams_open", "Streams that are open.", streams.open)
    messages = CounterMetricFamily(
        "penstock_stream_messages", "Messages of streams, by direction.", labels=["direction"]
    )
    messages.add_metric(["received"], streams.messages_received)
    messages.add_metric(["sent"], streams.messages_sent)
    yield messages
    yield CounterMetricFamily("penstock_stream_requests", "Requests that came by streams.", streams.requests)
    yield CounterMetricFamily(
        "penstock_stream_results", "Results that were sent on streams.", streams.results
    )
