"""Triton's ModelStatistics, computed from the counters of the metrics.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from penstock.models.model import Model
from penstock_proto.inference import grpc_service_pb2 as pb

NANOS = 1_000_000_000


class Times(Protocol):
    """A histogram of seconds."""

    @property
    def counts(self) -> Sequence[int]: ...  # noqa: D102

    @property
    def total(self) -> float: ...  # noqa: D102


class Batches(Protocol):
    """Runs of one size; see `penstock.observability.counters.BatchCounts`."""

    @property
    def runs(self) -> int: ...  # noqa: D102
    @property
    def input_seconds(self) -> float: ...  # noqa: D102
    @property
    def infer_seconds(self) -> float: ...  # noqa: D102
    @property
    def output_seconds(self) -> float: ...  # noqa: D102
    @property
    def requests(self) -> int: ...  # noqa: D102
    @property
    def request_input_seconds(self) -> float: ...  # noqa: D102
    @property
    def request_infer_seconds(self) -> float: ...  # noqa: D102


class Counts(Protocol):
    """The counters of a model; see `penstock.observability.counters.ModelCounts`."""

    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def queue(self) -> Times: ...  # noqa: D102
    @property
    def answered(self) -> Mapping[str, Times]: ...  # noqa: D102
    @property
    def failed(self) -> Mapping[tuple[str, str], int]: ...  # noqa: D102
    @property
    def failed_seconds(self) -> float: ...  # noqa: D102
    @property
    def batches(self) -> Mapping[int, Batches]: ...  # noqa: D102
    @property
    def last_run(self) -> float: ...  # noqa: D102


def statistics(model: Model, counts: Counts) -> pb.ModelStatistics:
    """The statistics of a model, as far as they are counted here. There is no cache, so no cache statistics.

    As in Triton, `inference_stats` counts the whole time of a run for each of its requests, and `batch_stats`
    counts it once. The time to encode the answers is divided among the requests. Requests of all RPCs count.
    Batch sizes that are not counted separately are added up under size 0.
    """
    sizes = counts.batches.values()
    requests = sum(each.requests for each in sizes)
    output_seconds = sum(each.output_seconds for each in sizes)
    answered_seconds = sum(times.total for times in counts.answered.values())
    message = pb.ModelStatistics(
        name=model.name,
        version=model.version_text,
        last_inference=_as_date(counts.last_run),
        inference_count=counts.rows,
        execution_count=sum(each.runs for each in sizes),
        batch_stats=[_of_size(rows, each) for rows, each in sorted(counts.batches.items())],
    )
    stats = message.inference_stats
    _set(stats.success, requests, answered_seconds + output_seconds)
    _set(stats.fail, sum(counts.failed.values()), counts.failed_seconds)
    _set(stats.queue, requests, counts.queue.total)
    _set(stats.compute_input, requests, sum(each.request_input_seconds for each in sizes))
    _set(stats.compute_infer, requests, sum(each.request_infer_seconds for each in sizes))
    _set(stats.compute_output, requests, output_seconds)
    _set(stats.cache_hit, 0, 0.0)
    _set(stats.cache_miss, 0, 0.0)
    return message


def _of_size(rows: int, batches: Batches) -> pb.InferBatchStatistics:
    message = pb.InferBatchStatistics(batch_size=rows)
    _set(message.compute_input, batches.runs, batches.input_seconds)
    _set(message.compute_infer, batches.runs, batches.infer_seconds)
    _set(message.compute_output, batches.runs, batches.output_seconds)
    return message


def _set(duration: pb.StatisticDuration, count: int, seconds: float) -> None:
    duration.SetInParent()  # clients expect the field even if it is 0
    duration.count = count
    duration.ns = round(seconds * NANOS)


def _as_date(moment: float) -> int:
    """A moment of `time.monotonic()` in milliseconds since 1970; 0 for none."""
    return round((time.time() - (time.monotonic() - moment)) * 1000) if moment else 0
