"""What the tests of a running server share: tensors, requests, streams, metrics and waiting."""

from __future__ import annotations

import json
import queue
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import grpc
import ml_dtypes
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from penstock.core.tensors import DataType, Kind
from penstock.protocols.penstock_v1.encoder import pack_bytes
from penstock.protocols.typed_lists import LIST_OF_KIND
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import prediction_pb2_grpc, tensor_pb2
from support import zoo
from support.dtypes import NO_INFINITY, SMALL, dtype_of
from support.servers import RunningServer

TRANSPORTS = ("reactor", "portable")
BOUND = 30.0
"""No call of a test may take longer: seconds."""
STREAM = "/penstock.v1.PredictionService/PredictStream"
EXAMPLES = zoo.EXAMPLES / "models"
UNARY = "/penstock.v1.PredictionService/Predict"
NO_LIMITS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
COMPLETION = (("penstock-order", "completion"),)


def connect(target: str, *options: tuple[str, Any]) -> grpc.Channel:
    """A channel with a connection of its own."""
    return grpc.insecure_channel(target, (*NO_LIMITS, ("grpc.use_local_subchannel_pool", 1), *options))


def stub_of(channel: grpc.Channel) -> Any:
    return prediction_pb2_grpc.PredictionServiceStub(channel)


def raw(array: Any, datatype: DataType = DataType.FP32) -> tensor_pb2.Tensor:
    """A tensor as programs send it."""
    array = np.asarray(array)
    data = pack_bytes(array) if datatype is DataType.BYTES else array.astype(datatype.dtype).tobytes()
    return tensor_pb2.Tensor(datatype=tensor_pb2.DataType.Value(datatype.label), shape=array.shape, raw=data)


def typed(array: Any, datatype: DataType) -> tensor_pb2.Tensor:
    """A tensor as people write it, its datatype left out."""
    array = np.asarray(array)
    flat = array.ravel()
    if datatype is DataType.BYTES:
        return tensor_pb2.Tensor(shape=array.shape, string_values=flat.tolist())
    if datatype in SMALL:
        flat = flat.view(SMALL[datatype]).astype(np.float32)
    return tensor_pb2.Tensor(shape=array.shape, **{LIST_OF_KIND[datatype.kind]: flat.tolist()})


def array_of(tensor: tensor_pb2.Tensor) -> np.ndarray:
    """The array in a tensor, however it was written; what numpy lacks as its bits."""
    datatype = next(each for each in DataType if tensor_pb2.DataType.Value(each.label) == tensor.datatype)
    shape = tuple(tensor.shape)
    lists = {field.name: value for field, value in tensor.ListFields() if field.name.endswith("_values")}
    assert len(lists) <= 1
    if lists:
        flat: Any = list(*lists.values())
        if datatype in SMALL:
            return np.array(flat, SMALL[datatype]).view(datatype.dtype).reshape(shape)
        return np.array(flat, datatype.dtype).reshape(shape)
    if datatype is DataType.BYTES:
        return np.array(unpacked(tensor.raw), object).reshape(shape)
    return np.frombuffer(tensor.raw, datatype.dtype).reshape(shape)


def unpacked(data: bytes) -> list[str]:
    texts, position = [], 0
    while position < len(data):
        start = position + 4
        position = start + int.from_bytes(data[position:start], "little")
        texts.append(data[start:position].decode())
    return texts


def examples(datatype: DataType, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Values from all over the datatype's range, the ends and what is special included."""
    random = np.random.default_rng(seed)
    count = int(np.prod(shape))
    if datatype is DataType.BYTES:
        special: Any = ["", "ü", "nul\0inside", "🦄", "a" * 1000, "\n"]
        flat = np.array([special[index % len(special)] for index in range(count)], object)
    elif datatype.kind is Kind.BOOL:
        flat = random.integers(0, 2, count).astype(bool)
    elif datatype.kind in (Kind.INT, Kind.UINT):
        bounds = np.iinfo(datatype.dtype)
        flat = random.integers(bounds.min, bounds.max, count, datatype.dtype, endpoint=True)
        flat[:2] = [bounds.min, bounds.max][:count]
    else:
        dtype = dtype_of(datatype)
        info = ml_dtypes.finfo(dtype)
        flat = random.standard_normal(count).astype(dtype)
        special = [info.max, info.smallest_subnormal, np.nan, info.min, -0.0]
        if datatype not in NO_INFINITY:
            special += [-np.inf, np.inf]
        flat[: len(special)] = np.array(special, dtype)[:count]
        flat = flat.view(datatype.dtype)
    return flat.reshape(shape)


def request(model: str, *, tag: int = 0, timeout: float = 0, **fields: Any) -> pb.PredictRequest:
    """A request; arguments that are tensors or arrays are inputs, all others are fields."""
    inputs = {key: fields.pop(key) for key in list(fields) if isinstance(fields[key], tensor_pb2.Tensor)}
    arrays = {key: raw(fields.pop(key)) for key in list(fields) if isinstance(fields[key], np.ndarray)}
    message = pb.PredictRequest(model=model, tag=tag, inputs={**inputs, **arrays}, **fields)
    if timeout:
        message.timeout.FromNanoseconds(int(timeout * 1e9))
    return message


def rows(count: int, value: float = 1.0, width: int = 3) -> np.ndarray:
    return np.full((count, width), value, np.float32)


def message(*requests: pb.PredictRequest) -> pb.PredictStreamRequest:
    return pb.PredictStreamRequest(requests=requests)


def one_each(requests: Sequence[pb.PredictRequest]) -> list[pb.PredictStreamRequest]:
    return [message(each) for each in requests]


class Stream:
    """One PredictStream call whose messages are sent when the test says so.

    Reads only when results are asked for.
    """

    def __init__(self, channel: grpc.Channel, *, timeout: float = BOUND, **how: Any) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.taken = 0  # messages that gRPC took from us
        self.call = channel.stream_stream(STREAM, None, pb.PredictStreamResponse.FromString)(
            self._messages(), timeout=timeout, **how
        )
        self._results = self._all()

    def send(self, *requests: pb.PredictRequest) -> None:
        self.send_bytes(message(*requests).SerializeToString())

    def send_bytes(self, data: bytes) -> None:
        self._queue.put(data)

    def half_close(self) -> None:
        self._queue.put(None)

    def next(self) -> pb.PredictResult:
        return next(self._results)

    def rest(self) -> list[pb.PredictResult]:
        """All further results, up to the end of the call, which must be OK."""
        return list(self._results)

    def rest_and_code(self) -> tuple[list[pb.PredictResult], grpc.StatusCode]:
        """All further results, and how the call ended."""
        results = []
        try:
            for each in self._results:
                results.append(each)  # noqa: PERF402 - what came before an error counts
        except grpc.RpcError as error:
            return results, error.code()
        return results, self.call.code()

    def cancel(self) -> None:
        self.call.cancel()
        self._queue.put(None)

    def _messages(self) -> Iterator[bytes]:
        while (data := self._queue.get()) is not None:
            self.taken += 1
            yield data

    def _all(self) -> Iterator[pb.PredictResult]:
        for each in self.call:
            yield from each.results


class Unread:
    """Answers that the client does not read: a server that stops goes on draining until `read`.

    Its model is `wide`, an identity of FP32 [N, L].
    """

    COUNT = 8

    def __init__(self, server: RunningServer) -> None:
        # With little buffered at the client, the first answer is stuck already.
        self._channel = connect(
            server.target, ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)
        )
        self._stream = Stream(self._channel)
        array = np.zeros((1, 256 * 1024), np.float32)
        self._stream.send(*[request("wide", tag=number, x=array) for number in range(self.COUNT)])
        wait_until(lambda: metric(server.ops, "rows_total", model="wide") == self.COUNT, "all are answered")

    def read(self) -> tuple[list[pb.PredictResult], grpc.StatusCode]:
        """Reads them, and gives how the call ended."""
        with self._channel:
            results, code = self._stream.rest_and_code()
            self._stream.half_close()
        return results, code


def accepted(ops: str, **labels: str) -> float:
    """The requests that have ended, wait or run."""
    seen = Metrics(ops)
    return sum(seen.sum(name, **labels) for name in ("requests_total", "queue_rows", "running_batches"))


def stream_all(
    channel: grpc.Channel, messages: Sequence[pb.PredictStreamRequest], **how: Any
) -> list[pb.PredictResult]:
    """Sends messages on one stream, half-closes, and gives all results."""
    stream = Stream(channel, **how)
    for each in messages:
        stream.send_bytes(each.SerializeToString())
    stream.half_close()
    return stream.rest()


def code_of(call: Callable[[], Any]) -> grpc.StatusCode:
    """The status code that a call ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def code_of_future(future: Any) -> grpc.StatusCode:
    """The status code of a call under way; it must end within the bound."""
    try:
        future.result(BOUND)
    except grpc.FutureTimeoutError:
        raise AssertionError("a call hangs") from None
    except grpc.FutureCancelledError:
        return grpc.StatusCode.CANCELLED
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def in_parallel(calls: Sequence[Callable[[], Any]], threads: int = 16) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return [each.result(2 * BOUND) for each in [pool.submit(call) for call in calls]]


def wait_until(condition: Callable[[], Any], what: str, seconds: float = BOUND) -> None:
    """Waits for something to become true.

    Raises:
        AssertionError: it does not; names `what`.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def get(url: str) -> tuple[int, str]:
    """The status and the text of a page."""
    try:
        with urllib.request.urlopen(url, timeout=BOUND) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Metrics:
    """One look at a server's metrics. Tests look often while they wait, so only what is wanted is parsed."""

    def __init__(self, ops: str) -> None:
        self.text = get(f"{ops}/metrics")[1]

    @cached_property
    def samples(self) -> list[Sample]:
        """All of them."""
        return _parsed(self.text)

    def sum(self, name: str, **labels: str) -> float:
        """The sum of the samples `penstock_<name>` that have these labels; 0 if there are none."""
        wanted = labels.items()
        lines = re.findall(rf"^penstock_{name}[ {{].*\n", self.text, re.MULTILINE)
        return sum(each.value for each in _parsed("".join(lines)) if wanted <= each.labels.items())

    def series(self) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return {(each.name, frozenset(each.labels.items())) for each in self.samples}


def _parsed(text: str) -> list[Sample]:
    return [each for family in text_string_to_metric_families(text) for each in family.samples]


def metric(ops: str, name: str, **labels: str) -> float:
    return Metrics(ops).sum(name, **labels)


def assert_counted(ops: str, count: float, name: str, **labels: str) -> None:
    """A counter comes to this number, and not beyond it: what is answered is counted a moment later."""
    wait_until(lambda: metric(ops, name, **labels) >= count, f"{name} {labels} is {count}")
    assert metric(ops, name, **labels) == count


def logged(server: RunningServer) -> list[dict[str, Any]]:
    """The events in a server's log so far."""
    return [json.loads(line) for line in server.stderr if line.startswith("{")]


def problems(server: RunningServer) -> list[dict[str, Any]]:
    """What it logged as a warning or worse."""
    return [event for event in logged(server) if event["level"] not in ("debug", "info")]


def is_idle(ops: str) -> bool:
    """Whether nothing waits, runs or is open."""
    seen = Metrics(ops)
    gauges = ("queue_rows", "running_batches", "streams_open", "calls_in_flight")
    return not any(seen.sum(gauge) for gauge in gauges)
