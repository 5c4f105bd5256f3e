"""Requests of the Open Inference Protocol, for tests of a running server."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np

from penstock.core.tensors import DataType
from penstock.protocols.tensors import pack_bytes
from penstock_proto.inference import grpc_service_pb2 as pb
from penstock_proto.inference import grpc_service_pb2_grpc
from server import kit

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
X = np.array([[1, 2, 3], [6, 5, 4]], np.float32)


def stub_of(channel: grpc.Channel) -> Any:
    return grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(
    model: str,
    *,
    datatype: DataType = DataType.FP32,
    outputs: Sequence[Any] = (),
    parameters: dict[str, Any] | None = None,
    id: str = "",
    version: str = "",
    **inputs: Any,
) -> pb.ModelInferRequest:
    """A request with raw inputs, all of the same datatype."""
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=id, outputs=outputs)
    for name, value in (parameters or {}).items():
        message.parameters[name].CopyFrom(value)
    for name, values in inputs.items():
        array = np.asarray(values)
        message.inputs.add(name=name, datatype=datatype.label, shape=array.shape)
        data = pack_bytes(array) if datatype is DataType.BYTES else array.astype(datatype.dtype).tobytes()
        message.raw_input_contents.append(data)
    return message


def output(name: str, **parameters: pb.InferParameter) -> pb.ModelInferRequest.InferRequestedOutputTensor:
    return pb.ModelInferRequest.InferRequestedOutputTensor(name=name, parameters=parameters)


def arrays_of(answer: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    """The outputs of an answer, BF16 as its 16 bits."""
    found = {}
    for each, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        datatype = DataType[each.datatype]
        flat = (
            np.array(kit.unpacked(raw), object)
            if datatype is DataType.BYTES
            else np.frombuffer(raw, datatype.dtype)
        )
        found[each.name] = flat.reshape(tuple(each.shape))
    return found


class Stream:
    """One ModelStreamInfer call whose messages are sent when the test says so."""

    def __init__(self, channel: grpc.Channel, *, timeout: float = kit.BOUND, **how: Any) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.call = channel.stream_stream(STREAM, None, pb.ModelStreamInferResponse.FromString)(
            iter(self._queue.get, None), timeout=timeout, **how
        )

    def send(self, *requests: pb.ModelInferRequest) -> None:
        for each in requests:
            self.send_bytes(each.SerializeToString())

    def send_bytes(self, data: bytes) -> None:
        self._queue.put(data)

    def half_close(self) -> None:
        self._queue.put(None)

    def next(self) -> pb.ModelStreamInferResponse:
        return next(self.call)

    def rest_and_status(self) -> tuple[list[pb.ModelStreamInferResponse], grpc.StatusCode, str]:
        """All further answers, and how the call ended."""
        answers = []
        try:
            for each in self.call:
                answers.append(each)  # noqa: PERF402 - what came before an error counts
        except grpc.RpcError as error:
            return answers, error.code(), error.details()
        return answers, self.call.code(), self.call.details()

    def cancel(self) -> None:
        self.call.cancel()
        self._queue.put(None)


def stream_all(
    channel: grpc.Channel, requests: Sequence[pb.ModelInferRequest], **how: Any
) -> list[pb.ModelStreamInferResponse]:
    """Sends requests on one stream, half-closes, and gives all answers; the call must end with OK."""
    stream = Stream(channel, **how)
    stream.send(*requests)
    stream.half_close()
    answers, code, details = stream.rest_and_status()
    assert code is grpc.StatusCode.OK, details
    return answers


def statistics(stub: Any, model: str, version: str = "") -> pb.ModelStatistics:
    (found,) = stub.ModelStatistics(pb.ModelStatisticsRequest(name=model, version=version)).model_stats
    return found


def refusals(stub: Any, requests: Sequence[pb.ModelInferRequest]) -> Iterator[tuple[grpc.StatusCode, str]]:
    for each in requests:
        try:
            stub.ModelInfer(each, timeout=kit.BOUND)
        except grpc.RpcError as error:
            yield error.code(), error.details()
        else:
            yield grpc.StatusCode.OK, ""
