"""The server's metrics, for Prometheus. Only this file and `model_families` import prometheus_client.

Times are in seconds. The number of label values is limited: served models, RPCs and status codes. Names that
callers send never become labels. The counts of a model are removed when it is forgotten.
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

from penstock.core.errors import RequestError
from penstock.observability.counters import Gauges, ModelMetrics, StreamCounts
from penstock.observability.families import Family
from penstock.observability.logs import dropped
from penstock.observability.model_families import ModelSnapshot, model_families, outcome_families

__all__ = ["Metrics", "ModelMetrics"]


@dataclass(slots=True)
class _Entry:
    """One version of one model: its counts, and the gauges of each of its loaded copies."""

    metrics: ModelMetrics
    info: Callable[[], dict[str, str]] = dict
    gauges: list[Callable[[], Gauges]] = field(default_factory=list)


class Metrics:
    """Everything that is counted, in a registry of its own. May be called from any thread.

    Args:
        code_of: the name of the status code that an error is answered with, such as "NOT_FOUND".

    Attributes:
        calls_in_flight: called at a scrape for the number of calls in flight; set by the server.
        answer_bytes: as this, for the bytes of answers that count; see `penstock.protocols.answers`.
        seconds_at_file_limit: as this, for how long connections were rejected; see `open_files`.
        on_failed: called with the RPC and the error of requests that reached no model.
    """

    def __init__(self, code_of: Callable[[RequestError], str]) -> None:
        self.calls_in_flight: Callable[[], int] = lambda: 0
        self.answer_bytes: Callable[[], int] = lambda: 0
        self.seconds_at_file_limit: Callable[[], int] = lambda: 0
        self.on_failed: Callable[[str, RequestError], None] = lambda rpc, error: None
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
        sha256: str | Callable[[], str] = "",
        batched: bool | Callable[[], bool] = False,
    ) -> ModelMetrics:
        """The counts of one version of one model, which appear in the metrics from now on.

        Asking again for the same one, as for a copy that replaces it, gives the same counts; the gauges
        show the sum of the copies until `forget` was called as often as this.

        Args:
            name: the model's name.
            version: the version's number, as text.
            gauges: called at a scrape for the current state.
            sha256: of the version's files, in hexadecimal; a function is called at a scrape.
            batched: whether requests are run together; a function is called at a scrape.
        """
        with self._lock:
            entry = self._models.setdefault((name, version), _Entry(ModelMetrics(self._code_of)))
            entry.info = lambda: {
                "sha256": sha256 if isinstance(sha256, str) else sha256(),
                "batched": str(batched if isinstance(batched, bool) else batched()).lower(),
            }
            entry.gauges.append(gauges)
            return entry.metrics

    def forget(self, name: str, version: str) -> None:
        """Removes the oldest copy of this version; with the last copy, its metrics. Never an error."""
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
        self.on_failed(rpc, error)

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
        words = (
            "Bytes of answers that are expected or wait to be sent, as server.total_answer_bytes counts them."
        )
        yield GaugeMetricFamily("penstock_answer_bytes", words, self.answer_bytes())
        words = "Lines of the log that were dropped, as they could not be written as fast as they came."
        yield CounterMetricFamily("penstock_log_dropped", words, dropped())
        words = "Seconds in which connections were rejected because of the limit on open files."
        yield CounterMetricFamily("penstock_file_limit_seconds", words, self.seconds_at_file_limit())
        yield from _stream_families(streams)
        seen = [_snapshot(labels, entry) for labels, entry in models.items()]
        yield from model_families(seen)
        unknown = ModelSnapshot(("", ""), self._unknown.counts(), {}, Gauges())
        yield from outcome_families([*seen, unknown])


def render(families: Sequence[Family], accept_header: str = "") -> tuple[str, bytes]:
    """Metrics that are given as data; see `Metrics.render`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(lambda: map(_metric, families)))
    return _rendered(registry, accept_header)


def process_families() -> tuple[Family, ...]:
    """Metrics of this process from the operating system, as data."""
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
    """Gives the registry its metric families."""

    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """All families, new."""
        return self._families()


def _snapshot(labels: tuple[str, str], entry: _Entry) -> ModelSnapshot:
    gauges = Gauges.together([ask() for ask in entry.gauges])
    return ModelSnapshot(labels, entry.metrics.counts(), entry.info(), gauges)


def _stream_families(streams: StreamCounts) -> Iterator[Metric]:
    yield GaugeMetricFamily("penstock_streams_open", "Streams that are open.", streams.open)
    messages = CounterMetricFamily(
        "penstock_stream_messages", "Messages of streams, by direction.", labels=["direction"]
    )
    messages.add_metric(["received"], streams.messages_received)
    messages.add_metric(["sent"], streams.messages_sent)
    yield messages
    yield CounterMetricFamily(
        "penstock_stream_requests", "Requests that were received on streams.", streams.requests
    )
    yield CounterMetricFamily(
        "penstock_stream_results", "Results that were sent on streams.", streams.results
    )
