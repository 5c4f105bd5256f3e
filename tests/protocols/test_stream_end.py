"""The end of a stream and a message that comes at the same moment: what is not answered is not run either."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from penstock.core.tensors import Array
from penstock.protocols.open_inference.service import InferenceService
from penstock.protocols.penstock_v1.stream import PredictStream
from penstock.protocols.stream import STOPPING
from penstock.protocols.stream_items import Settled
from penstock.transport.grpc.call import OK, Status
from penstock_proto.inference import grpc_service_pb2 as oip_pb
from protocols.test_known_requests import AtOnce, Call, NoObserver, Server, add, message, request

PENSTOCK = "/penstock.v1.PredictionService/PredictStream"
OIP = "/inference.GRPCInferenceService/ModelStreamInfer"


class LateCall(Call):
    """A call to which a message comes just while its handler ends it, on another thread in reality."""

    handler: Any = None
    late: bytes | None = None

    def finish(self, status: Status = OK, message: bytes | None = None) -> None:
        late, self.late = self.late, None
        if late is not None:
            self.handler.received(late)
        super().finish(status, message)


def oip_message() -> bytes:
    asked = oip_pb.ModelInferRequest(model_name="m")
    for name, datatype, array in (("x", "FP32", np.zeros((1, 2), "<f4")), ("w", "INT64", np.zeros(1, "<i8"))):
        asked.inputs.add(name=name, datatype=datatype, shape=array.shape)
        asked.raw_input_contents.append(array.tobytes())
    return asked.SerializeToString()


@pytest.mark.parametrize("protocol", [PENSTOCK, OIP])
@pytest.mark.parametrize("end", ["stop", "half_closed"])
def test_a_message_that_comes_as_the_stream_ends_is_not_run(protocol: str, end: str) -> None:
    runs: list[int] = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        runs.append(len(inputs["x"]))
        return add(outputs, inputs)

    server = Server(run)
    data = message(request(1)) if protocol == PENSTOCK else oip_message()
    if protocol == OIP:  # the only service of this server
        parts = server.service.engine, NoObserver(), AtOnce(), 1 << 20, 10_000, server.failures.append
        server.service = InferenceService(*parts)  # type: ignore[assignment]
    call = LateCall(ordered=True)
    call.handler = server.service.methods()[protocol].handler(call)
    call.handler.received(data)
    server.drain(call, call.handler)
    assert len(call.sent) == 1
    runs.clear()
    call.late = data
    getattr(call.handler, end)()
    server.work()
    call.handler.closed(False)
    assert call.status == (STOPPING if end == "stop" else OK)
    assert runs == []
    assert len(call.sent) == 1
    assert server.failures == []
    assert server.model.batcher.waiting_rows == 0


class ExchangingCall(Call):
    """A call that is told to stop by another thread just as it is given an answer to exchange."""

    can_exchange = True
    handler: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.stopping = threading.Thread(target=self._stop)

    def _stop(self) -> None:
        self.handler.stop()

    def exchange(self, message: bytes) -> None:
        self.stopping.start()
        self.stopping.join(0.2)
        self.told.append("exchange")

    def finish(self, status: Status = OK, message: bytes | None = None) -> None:
        self.told.append("finish")


def test_an_answer_that_is_exchanged_leaves_before_the_status_of_a_server_that_stops() -> None:
    server, call, step = Server(add), ExchangingCall(), Settled(())
    call.handler = stream = server.service.methods()[PENSTOCK].handler(call)
    assert isinstance(stream, PredictStream)
    stream.begun(step)  # the one request in flight, a step of the stream's own sequence
    stream._in_flight, stream._exchanges = 1, True
    flush = stream.done(step, ((b"answer", 1),))
    assert flush is not None
    flush()
    call.stopping.join()
    assert call.told[0] == "exchange"
    assert set(call.told[1:]) == {"finish"}
