"""Steps of a stream's own sequence, one a message: each is answered together with asking for the next one."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from penstock.core.tensors import DataType
from penstock_proto.inference import grpc_service_pb2 as oip_pb
from penstock_proto.v1 import prediction_pb2 as pb
from server import kit
from support import zoo

SUM = '[sequence]\nstate = { sum = "sumN" }\n'
STEPS = 30
INFER = "/inference.GRPCInferenceService/ModelStreamInfer"


def step(value: int, **fields: Any) -> pb.PredictStreamRequest:
    x = kit.raw(np.full((1, 1), value), DataType.INT64)
    return pb.PredictStreamRequest(requests=[kit.request("sum", x=x, **fields)])


def infer(value: int) -> oip_pb.ModelInferRequest:
    made = oip_pb.ModelInferRequest(
        model_name="sum", raw_input_contents=[np.full((1, 1), value, "<i8").tobytes()]
    )
    made.inputs.add(name="x", datatype="INT64", shape=[1, 1])
    return made


class Stream:
    """A stream whose messages are sent one by one."""

    def __init__(self, channel: grpc.Channel, method: str = kit.STREAM) -> None:
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        kind = pb.PredictStreamResponse if method == kit.STREAM else oip_pb.ModelStreamInferResponse
        self.call = channel.stream_stream(
            method, lambda message: message.SerializeToString(), kind.FromString
        )(self._sent(), timeout=kit.BOUND)

    def _sent(self) -> Iterator[Any]:
        while (message := self._messages.get()) is not None:
            yield message

    def send(self, *messages: Any) -> None:
        """Sends messages; None ends the client's side."""
        for each in messages:
            self._messages.put(each)

    def sums(self, count: int) -> list[int]:
        """The next answers, as many of them."""
        found: list[int] = []
        while len(found) < count:
            message = next(self.call)
            if isinstance(message, oip_pb.ModelStreamInferResponse):
                found.append(int(np.frombuffer(message.infer_response.raw_output_contents[0], "<i8")[0]))
            else:
                found += [int(kit.array_of(each.response.outputs["y"])[0, 0]) for each in message.results]
        return found

    def ask(self, message: Any) -> int:
        """The answer to one message."""
        self.send(message)
        [found] = self.sums(1)
        return found


@pytest.fixture
def running(serve: Any) -> Any:
    return serve({"sum": zoo.running_sum()}, settings={"sum": SUM})


@pytest.mark.parametrize("method", [kit.STREAM, INFER])
def test_steps_one_by_one_and_all_at_once(running: Any, method: str) -> None:
    make = step if method == kit.STREAM else infer
    with kit.connect(running.target) as channel:
        stream = Stream(channel, method)
        assert [stream.ask(make(1)) for _ in range(STEPS)] == list(range(1, STEPS + 1))
        stream.send(*[make(1)] * STEPS)
        assert stream.sums(STEPS) == list(range(STEPS + 1, 2 * STEPS + 1))
        stream.send(None)
        assert list(stream.call) == []
        assert stream.call.code() is grpc.StatusCode.OK
        kit.wait_until(lambda: kit.is_idle(running.ops), "nothing waits or runs")


@pytest.mark.parametrize("method", [kit.STREAM, INFER])
def test_a_stream_whose_last_step_is_answered_ends_when_the_server_stops(running: Any, method: str) -> None:
    make = step if method == kit.STREAM else infer
    with kit.connect(running.target) as channel:
        stream = Stream(channel, method)
        assert [stream.ask(make(1)) for _ in range(STEPS)] == list(range(1, STEPS + 1))
        assert running.stop() == 0
        with pytest.raises(grpc.RpcError):
            next(stream.call)
        assert stream.call.code() is grpc.StatusCode.UNAVAILABLE
        assert "all accepted requests are answered" in stream.call.details()


def test_steps_of_all_kinds_by_turns(running: Any) -> None:
    """Messages that are handled in one step, and others: with a tag, of several requests, and a wrong one."""
    with kit.connect(running.target) as channel:
        stream = Stream(channel)
        expected = 0
        for turn in range(STEPS):
            several = pb.PredictStreamRequest(requests=[*step(1).requests, *step(1).requests])
            stream.send(
                step(1), step(1, tag=7), several, step(1), pb.PredictStreamRequest(cancel=[9]), step(1)
            )
            assert stream.sums(6) == list(range(expected + 1, expected + 7)), turn
            expected += 6
            wrong = step(1)
            wrong.requests[0].inputs["x"].shape[:] = [1, 2]
            stream.send(wrong)
            [result] = next(stream.call).results
            assert result.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        stream.call.cancel()
        kit.wait_until(lambda: kit.is_idle(running.ops), "nothing waits or runs")
        kit.wait_until(
            lambda: not kit.Metrics(running.ops).sum("sequences", model="sum"), "its state is gone"
        )
