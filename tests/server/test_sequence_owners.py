"""A sequence belongs to the caller that began it: its connection, or the name that it gives itself."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

import penstock_client
from penstock.core.tensors import DataType
from penstock_proto.inference import grpc_service_pb2 as oip_pb
from penstock_proto.v1 import prediction_pb2 as pb
from server import kit, oip_kit
from support import zoo
from support.servers import RunningServer

SUM = '[sequence]\nstate = { sum = "sumN" }\n'
SHARED = (("penstock-sequences", "shared"),)
BY_ID = (("penstock-sequences", "by-id"),)
NAMED = (("penstock-caller", "till 7"),)


def models() -> dict[str, tuple[Any, str]]:
    return {
        "sum": (zoo.running_sum(), SUM),
        "few": (zoo.running_sum(), f"{SUM}max_sequences = 4\n"),
        "ours": (zoo.running_sum(), f"{SUM}shared = true\n"),
    }


class Relay:
    """Carries connections to a server, until they are cut."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._to = host, int(port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def cut(self) -> None:
        """Ends all connections; new ones are carried."""
        for each in self._ends:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()
        for each in (self._listening, *self._ends):
            each.close()

    def _run(self, work: Callable[..., None], *of: socket.socket) -> None:
        self._threads.append(threading.Thread(target=work, args=of, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._to)
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    self._run(self._carry, one, other)

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay(own_server: RunningServer) -> Iterator[Relay]:
    made = Relay(own_server.target)
    yield made
    made.close()


class Caller:
    """A foreign client with a connection of its own."""

    def __init__(self, target: str, metadata: Any = ()) -> None:
        self._channel = kit.connect(target)
        self._stub = kit.stub_of(self._channel)
        self._oip = oip_kit.stub_of(self._channel)
        self._metadata = metadata

    def step(self, id: str, value: int = 1, *, model: str = "sum", **how: bool) -> int:
        """The sum after a unary step."""
        got = self._stub.Predict(
            request(id, value, model=model, **how), timeout=kit.BOUND, metadata=self._metadata
        )
        return int(kit.array_of(got.outputs["y"])[0, 0])

    def infer(self, id: str, value: int = 1, **how: bool) -> int:
        """The same in the Open Inference Protocol."""
        got = self._oip.ModelInfer(oip_request(id, value, **how), timeout=kit.BOUND, metadata=self._metadata)
        return int(oip_kit.arrays_of(got)["y"][0, 0])

    def stream(self) -> kit.Stream:
        return kit.Stream(self._channel, metadata=self._metadata)

    def infer_all(self, *requests: oip_pb.ModelInferRequest) -> list[Any]:
        """What a stream of the Open Inference Protocol answers."""
        call = self._channel.stream_stream(
            oip_kit.STREAM,
            oip_pb.ModelInferRequest.SerializeToString,
            oip_pb.ModelStreamInferResponse.FromString,
        )(iter(requests), timeout=kit.BOUND, metadata=self._metadata)
        return [each.error_message or int(oip_kit.arrays_of(each.infer_response)["y"][0, 0]) for each in call]

    def close(self) -> None:
        self._channel.close()


def request(id: str, value: int = 1, *, model: str = "sum", **how: bool) -> pb.PredictRequest:
    x = kit.raw(np.full((1, 1), value), DataType.INT64)
    return kit.request(model, x=x, sequence=pb.Sequence(id=id, **how))


def oip_request(
    id: str, value: int = 1, *, start: bool = False, end: bool = False
) -> oip_pb.ModelInferRequest:
    said = {
        "sequence_id": oip_pb.InferParameter(string_param=id),
        "sequence_start": oip_pb.InferParameter(bool_param=start),
        "sequence_end": oip_pb.InferParameter(bool_param=end),
    }
    return oip_kit.request("sum", datatype=DataType.INT64, parameters=said, x=[[value]])


@pytest.fixture
def connect(own_server: RunningServer) -> Iterator[Callable[..., Caller]]:
    made: list[Caller] = []

    def one(target: str = own_server.target, metadata: Any = ()) -> Caller:
        made.append(Caller(target, metadata))
        return made[-1]

    yield one
    for each in made:
        each.close()


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """The status and the text that a call ends with."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code().name, raised.value.details()  # type: ignore[attr-defined]


def is_refused(call: Callable[[], Any]) -> bool:
    with contextlib.suppress(grpc.RpcError):
        call()
        return False
    return True


UNKNOWN = "sequence {} is unknown to this caller: another caller began it, on another connection; use ids"
TAKEN = "sequence {} cannot begin: another caller began it, on another connection; use ids"


def test_another_connection_does_not_go_on_with_a_sequence(connect: Callable[..., Caller]) -> None:
    a, b = connect(), connect()
    assert a.step("1", 5, start=True) == 5
    for call, text in (
        (lambda: b.step("1", 100), UNKNOWN),
        (lambda: b.step("1", 100, start=True), TAKEN),
        (lambda: b.infer("1", 100), UNKNOWN),
        (lambda: b.infer("1", 100, start=True), TAKEN),
    ):
        code, words = refusal(call)
        assert code == "FAILED_PRECONDITION"
        assert words.startswith(text.format("1"))
    stream = b.stream()
    stream.send(request("1", 100), request("1", 100, start=True))
    assert {stream.next().error.code for _ in range(2)} == {grpc.StatusCode.FAILED_PRECONDITION.value[0]}
    answers = b.infer_all(oip_request("1", 100), oip_request("1", 100, start=True))
    assert [each.split(":")[0] for each in answers] == [
        "sequence 1 is unknown to this caller",
        "sequence 1 cannot begin",
    ]
    assert a.infer("1") == 6  # by either protocol, and on a stream
    stream = a.stream()
    stream.send(request("1"), request("1", end=True))
    assert [int(kit.array_of(stream.next().response.outputs["y"])[0, 0]) for _ in range(2)] == [7, 8]
    assert b.step("1", 2, start=True, end=True) == 2


@pytest.mark.parametrize("metadata", [NAMED, SHARED], ids=["one name", "shared"])
def test_callers_may_use_the_same_sequences_on_purpose(connect: Callable[..., Caller], metadata: Any) -> None:
    a, b, other = connect(metadata=metadata), connect(metadata=metadata), connect()
    assert [a.step("2", start=True), b.step("2"), b.infer("2"), a.step("2")] == [1, 2, 3, 4]
    assert refusal(lambda: other.step("2"))[1].startswith("sequence 2 is unknown to this caller")
    assert b.step("2", end=True) == 5


def test_a_model_may_let_every_caller_use_every_sequence(connect: Callable[..., Caller]) -> None:
    a, b = connect(), connect(metadata=NAMED)
    assert a.step("3", start=True, model="ours") == 1
    assert [b.step("3", model="ours"), a.step("3", model="ours", end=True)] == [2, 3]


def test_a_client_whose_connection_is_renewed_goes_on(connect: Callable[..., Caller], relay: Relay) -> None:
    a, b = connect(relay.target), connect()
    assert a.step("4", 5, start=True) == 5
    assert is_refused(lambda: b.step("4"))
    relay.cut()
    got: list[int] = []

    def has_gone_on() -> bool:
        with contextlib.suppress(grpc.RpcError):  # the connection has to be found to be broken first
            got.append(a.step("4"))
        return bool(got)

    kit.wait_until(has_gone_on, "it goes on")
    assert got == [6]
    assert is_refused(lambda: b.step("4"))
    assert a.step("4", end=True) == 7


def test_what_a_client_left_behind_may_be_begun_anew(connect: Callable[..., Caller]) -> None:
    """A client that crashed and comes back counts from 1 again."""
    for metadata in ((), NAMED):
        a, b = connect(metadata=metadata), connect()
        a.step("5", 5, start=True)
        a.close()
        kit.wait_until(lambda b=b: not is_refused(lambda: b.step("5", start=True)), "it is gone")
        assert b.step("5", end=True) == 2


def test_what_a_named_caller_began_on_a_stream_by_id_is_its_own_on_the_next(
    connect: Callable[..., Caller],
) -> None:
    caller = connect(metadata=(*NAMED, *BY_ID))
    stream = caller.stream()
    stream.send(request("6", 5, start=True))
    stream.next()
    stream.cancel()
    assert caller.step("6", end=True) == 6


@pytest.mark.parametrize("transport_of_client", ["unary", "stream", "auto"])
def test_our_client_goes_on_over_a_new_connection(relay: Relay, transport_of_client: Any) -> None:
    with penstock_client.Client(relay.target, transport=transport_of_client, timeout=kit.BOUND) as client:

        def step(**how: bool) -> int:
            sequence = penstock_client.Sequence(f"ours {transport_of_client}", **how)
            return int(client.predict("sum", {"x": 1}, sequence=sequence)["y"][0, 0])

        def is_connected() -> bool:
            with contextlib.suppress(penstock_client.Unavailable):
                return client.health() == "SERVING"
            return False

        assert [step(start=True), step()] == [1, 2]
        for _ in range(3):
            relay.cut()
            try:
                total = step()
            except penstock_client.Unavailable:
                kit.wait_until(is_connected, "gRPC to notice that the connection is gone")
                total = step()
            assert total >= 3
        assert step(end=True) == total + 1


def test_one_caller_does_not_keep_others_from_beginning(
    own_server: RunningServer, connect: Callable[..., Caller]
) -> None:
    a, b = connect(), connect()
    for id in "1234":
        a.step(f"a{id}", model="few", start=True)
    assert refusal(lambda: a.step("a5", model="few", start=True)) == (
        "RESOURCE_EXHAUSTED",
        "4 sequences are active, the limit, all of them this caller's; end some of them",
    )
    before = kit.metric(own_server.ops, "sequences_evicted_total", model="few")
    for id in "12":
        b.step(f"b{id}", model="few", start=True)
    kit.assert_counted(own_server.ops, before + 2, "sequences_evicted_total", model="few")
    assert kit.metric(own_server.ops, "sequences", model="few") == 4
    assert refusal(lambda: a.step("a1", model="few")) == (
        "FAILED_PRECONDITION",
        "sequence a1 has no state: it was ended to make room for another caller, when all places were in use"
        "; send a step with start to begin it (over HTTP: with the header Penstock-Sequence-Start: true)",
    )
    with pytest.raises(grpc.RpcError) as raised:
        b.step("b3", model="few", start=True)
    assert "grpc-retry-pushback-ms" not in dict(raised.value.trailing_metadata())  # type: ignore[attr-defined]
    assert [a.step(id, model="few", end=True) for id in ("a3", "a4")] == [2, 2]
    assert [b.step(id, model="few", end=True) for id in ("b1", "b2")] == [2, 2]


def test_two_clients_are_two_callers(own_server: RunningServer) -> None:
    """Also where they share a connection, as clients of one process do."""
    for transport in ("unary", "stream"):
        with (
            penstock_client.Client(own_server.target, transport=transport) as a,
            penstock_client.Client(own_server.target, transport=transport) as b,
        ):
            start = penstock_client.Sequence("7", start=True)
            a.predict("sum", {"x": 1}, sequence=start)
            with pytest.raises(penstock_client.FailedPrecondition, match="unknown to this caller"):
                b.predict("sum", {"x": 1}, sequence="7")
            with pytest.raises(
                penstock_client.FailedPrecondition, match="cannot begin: another caller began it"
            ):
                b.predict("sum", {"x": 1}, sequence=start)
            assert a.predict("sum", {"x": 1}, sequence=penstock_client.Sequence("7", end=True))["y"] == 2


@pytest.mark.parametrize("words", ["share", "shared,byid", ""])
def test_words_that_mean_nothing_are_rejected(own_server: RunningServer, words: str) -> None:
    """On each kind of call whose sequences they are about."""
    metadata = (("penstock-sequences", words),)
    step = request("a", start=True)
    with kit.connect(own_server.target) as channel:
        stub = kit.stub_of(channel)
        calls: list[Callable[[], Any]] = [
            lambda: stub.Predict(step, timeout=kit.BOUND, metadata=metadata),
            lambda: list(stub.PredictStream(iter(()), timeout=kit.BOUND, metadata=metadata)),
            lambda: list(
                oip_kit.stub_of(channel).ModelStreamInfer(iter(()), timeout=kit.BOUND, metadata=metadata)
            ),
        ]
        for call in calls:
            with pytest.raises(grpc.RpcError) as raised:
                call()
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert f"penstock-sequences is {words!r}, expected by-id, shared" in raised.value.details()
