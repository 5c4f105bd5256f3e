"""PredictStream: many requests over one call, answered in order or as they finish."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TypeAlias, cast

import grpc
from typing_extensions import override

from penstock.errors import InvalidRequest
from penstock.models.model import Model
from penstock.rpc import status
from penstock.rpc.blocks import LEAST, requests_in
from penstock.rpc.door import parsed
from penstock.rpc.items import Block, Item
from penstock.rpc.outbox import Outbox
from penstock.rpc.pending import PredictDoor
from penstock.rpc.steps import has_own_sequence
from penstock.rpc.stream import Stream
from penstock.rpc.templates import Template
from penstock.tensors import Array
from penstock.transport.call import ServerCall, Status
from penstock_proto.v1 import prediction_pb2 as pb

ORDER_KEY = "penstock-order"
ORDERS = ("request", "completion")
PARTS = 4
"""Requests with a deadline are begun in as many parts as would be in time one after another, at least."""
MANY_REQUESTS = 4096  # in one message: more would hold the polling thread up, however small they are
_Read: TypeAlias = "tuple[bytes | Array, Template | pb.PredictRequest]"
"""A request's bytes, and what they look like or mean; or those of several that look alike."""


class PredictStream(Stream):
    """One stream of `PredictStreamRequest` messages, each with any number of requests.

    Args:
        call: the call.
        service: the service it belongs to.
    """

    def __init__(self, call: ServerCall, service: PredictDoor) -> None:
        metadata = dict(call.metadata)
        order = metadata.get(ORDER_KEY, ORDERS[0])
        super().__init__(call, service, Outbox(call.send), ordered=order == ORDERS[0])
        self._service = service
        self.has_sequence = has_own_sequence(metadata)
        if order not in ORDERS:
            words = f"metadata {ORDER_KEY} is {order!r}, expected one of {', '.join(ORDERS)}"
            call.finish(Status(grpc.StatusCode.INVALID_ARGUMENT, words))

    @override
    def _handle(self, data: bytes) -> None:
        try:
            requests = self._read(data)
        except InvalidRequest as error:
            self._service.telemetry.failed("PredictStream", error)
            self._end_with(status.to_status(error))
            return
        if len(requests) > MANY_REQUESTS and len(data) <= self._service.offload_bytes:
            self._service.offload(self._call, data, lambda _: self._take(requests))
        else:
            self._take(requests)

    def _read(self, data: bytes) -> list[_Read]:
        """The requests in a message.

        Raises:
            InvalidRequest: it is none.
        """
        found = requests_in(data, self._service.templates)
        if found is None:  # not as clients write it, or none
            requests = parsed(pb.PredictStreamRequest, data).requests
            return [(each.SerializeToString(), each) for each in requests]
        return [(part, template or parsed(pb.PredictRequest, bytes(part))) for part, template in found]

    def _take(self, requests: Sequence[_Read]) -> None:
        count = sum([1 if isinstance(data, bytes) else len(data) for data, _ in requests])
        self._coming(count)
        for data, read in requests:
            if isinstance(data, bytes):
                self._begin(data, read)
            else:
                self._begin_many(data, cast(Template, read))
        self._took()

    def _begin(self, data: bytes, read: Template | pb.PredictRequest) -> None:
        item = Item(self)
        self._add(item)
        service = self._service
        if not isinstance(read, Template):
            item.submit(data, read, self._call, service)
        elif not item.submit_alike(data, read, self._call, service):
            item.submit(data, pb.PredictRequest.FromString(data), self._call, service)
        if self._closed:  # while a worker was decoding
            item.cancel(service)

    def _begin_many(self, messages: Array, template: Template) -> None:
        """Begins requests that look alike, as many together as fit into a batch."""
        service = self._service
        start = 0
        while start < len(messages):
            model = template.model_now(service.engine.route)
            together = _together(model, template, self._call.deadline)
            if model is None or together < LEAST:
                self._begin(messages[start].tobytes(), template)
                start += 1
                continue
            part = messages[start : start + together]
            start += together
            block = Block(self, template, part)
            self._add(block)
            block.submit(part, model, self._call, service)
            if self._closed:
                block.cancel(service)


def _together(model: Model | None, template: Template, deadline: float) -> int:
    """How many requests that look alike are begun as one: into a batch it goes whole, or not at all."""
    if model is None or not template.rows:
        return 0
    batcher = model.batcher
    rows: float = batcher.policy.max_rows
    room = batcher.policy.queue_rows - batcher.waiting_rows
    if 0 < room < rows:
        rows = room
    seconds = min(template.asked.timeout_seconds, deadline - time.monotonic())
    if seconds < math.inf:
        rows = min(rows, batcher.costs.of(template.shape_key).rows_within(seconds / PARTS))
    return int(rows) // template.rows
