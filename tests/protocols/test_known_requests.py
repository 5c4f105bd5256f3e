"""Requests that look like earlier ones mean what a parser says they mean, whatever bytes they are."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any
from weakref import ref

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core import wire as wire_format
from penstock.core.tensors import Array, DataType, Signature
from penstock.engine import Engine
from penstock.models.model import Batching, Model
from penstock.protocols.fast_path import known_lists, known_requests
from penstock.protocols.fast_path.known_requests import KnownRequests
from penstock.protocols.penstock_v1 import message_parts, micro_batches
from penstock.protocols.penstock_v1.service import PredictionService
from penstock.protocols.penstock_v1.spans import spans_of
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import RunCost
from penstock.scheduling.runners import Runners
from penstock.traffic.router import Router
from penstock.transport.grpc.call import OK, ServerCall, Status
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2
from support.work import HandBackend, RunByHand, Tally, policy, signature_of, spec

SIGNATURE = signature_of([spec("x", ("N", 2)), spec("w", ("N",), DataType.INT64)], [spec("y", ("N", 2))])
MANY = range(40)


@pytest.fixture(autouse=True)
def _learning_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_requests, "LEARNING_SECONDS", 0.0)


class Call(ServerCall):
    """A call that remembers what it was told to send, and how much of that has left."""

    def __init__(self, ordered: bool = True) -> None:
        super().__init__("", () if ordered else (("penstock-order", "completion"),))
        self.sent: list[bytes] = []
        self.left = 0
        self.status: Status | None = None

    def peer(self) -> str:
        return ""

    def identities(self) -> Sequence[bytes]:
        return ()

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {}

    def receive(self) -> None:
        pass

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def finish(self, status: Status = OK, message: bytes | None = None) -> None:
        self.status = self.status or status
        if message is not None:
            self.sent.append(message)


class AtOnce(Executor):
    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        fn(*args, **kwargs)
        return Future()


class NoObserver:
    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Server:
    """A service around one model, its polling thread the test's own."""

    def __init__(
        self,
        run: RunByHand,
        *,
        learns: bool = True,
        signature: Signature = SIGNATURE,
        max_stream_requests: int = 10_000,
        cost: RunCost | None = None,
        **changes: object,
    ) -> None:
        self.tally = Tally()
        self.failures: list[BaseException] = []
        self.runners = Runners(0, 1e9, self.failures.append)
        self.runners.start(threading.get_ident())
        self.router = Router()
        self._cost = cost
        self.model = self.load(run, signature, **changes)
        engine = Engine(self.router, self.runners, lambda: [self.model])
        self.service = PredictionService(
            engine, NoObserver(), AtOnce(), 1 << 20, max_stream_requests, self.failures.append
        )
        if not learns:
            self.service.known_requests.learn = lambda *_: None  # type: ignore[method-assign]

    def load(self, run: RunByHand, signature: Signature = SIGNATURE, **changes: object) -> Model:
        backend = HandBackend(run, signature)
        made = DynamicBatcher(backend, policy(**changes), self._cost or RunCost(1e-9))
        model = Model(
            "m", 1, backend, made, Batching(bool(changes.get("batched", True)), ""), is_default=True
        )
        model.observe(self.tally)
        self.router.set([model])
        return model

    def unary(self, data: bytes) -> tuple[Any, ...]:
        call = Call()
        handler = self.service.methods()["/penstock.v1.PredictionService/Predict"].handler(call)
        handler.received(data)
        self.work()
        handler.closed(False)
        assert call.status is not None
        return (
            call.status.code,
            call.status.details,
            [meaning(pb.PredictResponse, each) for each in call.sent],
        )

    def stream(self, messages: Sequence[bytes], ordered: bool = True) -> tuple[Any, ...]:
        call = Call(ordered)
        handler = self.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(call)
        for message in messages:
            if call.status is None:
                handler.received(message)
                self.drain(call, handler)
        handler.half_closed()
        self.drain(call, handler)
        handler.closed(False)
        assert call.status is not None
        results = [
            meaning(pb.PredictResult, result)
            for each in call.sent
            for result in pb.PredictStreamResponse.FromString(each).results
        ]
        return call.status.code, call.status.details, results

    def drain(self, call: Call, handler: Any) -> None:
        self.work()
        while call.left < len(call.sent):
            call.left += 1
            handler.sent()

    def work(self) -> None:
        while self.runners.work_inline():
            pass
        assert self.failures == []


def meaning(kind: Any, data: Any) -> str:
    """A message's text without the times."""
    message = kind.FromString(data) if isinstance(data, bytes) else data
    response = message.response if kind is pb.PredictResult and message.HasField("response") else message
    if hasattr(response, "timing"):
        response.ClearField("timing")
    return str(message)


def add(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
    return [inputs["x"] + inputs["w"][:, None].astype(np.float32) for _ in outputs]


def picky(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
    if (inputs["w"] == 13).any():
        raise ValueError("13")
    return add(outputs, inputs)


def request(number: int = 0, rows: int = 1, **fields: Any) -> pb.PredictRequest:
    message = pb.PredictRequest(model="m", **fields)
    x, w = message.inputs["x"], message.inputs["w"]
    x.datatype, w.datatype = tensor_pb2.FP32, tensor_pb2.INT64
    x.shape.extend((rows, 2))
    w.shape.append(rows)
    x.raw = (np.arange(2 * rows, dtype=np.float32) + number).tobytes()
    w.raw = np.full(rows, number, np.int64).tobytes()
    return message


def message(*requests: pb.PredictRequest) -> bytes:
    return pb.PredictStreamRequest(requests=requests).SerializeToString(deterministic=True)


def wire(request: pb.PredictRequest) -> bytes:
    return request.SerializeToString(deterministic=True)


def numbers(results: Sequence[str]) -> list[float]:
    """What the responses say of y[0, 0], in order."""
    found = []
    for text in results:
        (line,) = [line for line in text.splitlines() if "raw: " in line]
        found.append(float(np.frombuffer(eval("b" + line.split("raw: ")[1]), "<f4")[0]))
    return found


def test_values_ids_and_tags_are_each_requests_own() -> None:
    server = Server(add)
    for number in MANY:
        code, _, (answer,) = server.unary(wire(request(number, id=f"id-{number:03}", tag=1000 + number)))
        assert code is OK.code
        assert f'id: "id-{number:03}"' in answer
        assert f"tag: {1000 + number}" in answer
        assert numbers([answer]) == [2 * number]
    assert len(server.service.known_requests) == 1


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_message_of_many_is_answered_one_by_one(rows: int, ordered: bool) -> None:
    server = Server(add)
    server.stream([message(request(0, rows))], ordered)
    sent = [request(number, rows, tag=100 + number) for number in MANY]  # tags of one byte and of two
    server.stream([message(*sent[:1])])
    code, _, results = server.stream([message(*sent)], ordered)
    assert code is OK.code
    assert len(results) == len(MANY)
    by_tag = {int(text.split("tag: ")[1].split()[0]): text for text in results}
    assert numbers([by_tag[100 + number] for number in MANY]) == [2.0 * number for number in MANY]
    if ordered:
        assert list(by_tag) == [100 + number for number in MANY]
    assert len(server.tally.done) < len(MANY), "nothing was run as one"
    assert sum(each.count for each in server.tally.done) == len(MANY) + 2


def test_only_the_guilty_of_many_fails() -> None:
    server = Server(picky)
    server.stream([message(request(0, tag=1))])
    code, _, results = server.stream([message(*[request(number, tag=1 + number) for number in range(20)])])
    assert code is OK.code
    failed = [place for place, text in enumerate(results) if "error" in text]
    assert failed == [13]
    assert Counter(code for code, _ in server.tally.failures) == {"PredictStream": 1}
    assert sum(each.count for each in server.tally.done) == 20


def test_a_full_queue_refuses_all_of_many_with_an_error_each() -> None:
    server = Server(add, queue_rows=4)
    server.stream([message(request(0, tag=1))])
    _, _, results = server.stream([message(*[request(number, tag=1 + number) for number in range(24)])])
    assert len(results) == 24
    refused = sum("the queue is full" in text for text in results)
    assert refused
    assert refused == len(server.tally.failures)
    assert refused + sum(each.count for each in server.tally.done) == 24 + 1


def test_as_many_of_many_are_let_in_as_there_is_room_for() -> None:
    server = Server(add, queue_rows=10)
    server.stream([message(request(0, tag=1))])
    _, _, results = server.stream([message(*[request(number, tag=1 + number) for number in range(24)])])
    assert sum("the queue is full" in text for text in results) == 14


def test_many_with_a_deadline_are_begun_in_parts() -> None:
    """A batch is cut between them where all would be late together."""
    server = Server(add, max_rows=64, cost=RunCost(1.05, 2, 1.1))
    many = [request(number, tag=1) for number in range(64)]
    for each in many:
        each.timeout.seconds = 10
    server.stream([message(many[0])])
    in_a_quarter = server.model.batcher.costs.first.rows_within(2.5)
    assert 4 < in_a_quarter < 64
    _, _, results = server.stream([message(*many)])
    assert len(results) == 64
    parts = [each.count for each in server.tally.done[1:]]
    assert (sum(parts), parts[0]) == (64, pytest.approx(in_a_quarter, abs=1))


def test_a_stream_that_ends_early_drops_all_of_many() -> None:
    server = Server(add)
    server.stream([message(request(0, tag=1))])
    call = Call()
    handler = server.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(call)
    handler.received(message(*[request(number, tag=1 + number) for number in range(8)]))
    handler.closed(True)
    server.work()
    assert len(server.tally.failures) == 8
    assert server.model.batcher.waiting_rows == 0
    assert call.sent == []


@pytest.mark.parametrize("count", [1, 8])
def test_what_a_worker_had_in_hand_when_the_stream_ended_is_dropped(count: int) -> None:
    server = Server(add)
    server.stream([message(request(0, tag=1))])
    call = Call()
    handler = server.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(call)
    handler.closed(True)
    handler.received(message(*[request(number, tag=1 + number) for number in range(count)]))
    server.work()
    assert len(server.tally.failures) == count
    assert sum(each.count for each in server.tally.done) == 1


def test_a_model_that_took_the_place_of_another_answers() -> None:
    server = Server(add)
    server.unary(wire(request(1)))
    old = ref(server.model)
    server.model = server.load(lambda names, inputs: [-inputs["x"] for _ in names])
    _, _, (answer,) = server.unary(wire(request(1)))
    assert numbers([answer]) == [-1]
    server.tally.done.clear()
    gc.collect()
    assert old() is None, "a known request keeps the old model alive"


def test_a_request_without_batches_is_run_alone() -> None:
    server = Server(add, batched=False)
    for _ in range(2):
        _, _, results = server.stream([message(*[request(number, tag=number + 1) for number in range(8)])])
        assert numbers(results) == [2.0 * number for number in range(8)]


def test_text_and_bools_are_always_checked() -> None:
    both = signature_of([spec("b", ("N",), DataType.BOOL)], [spec("y", ("N",), DataType.BOOL)])
    server = Server(lambda names, inputs: [inputs["b"] for _ in names], signature=both)
    good = pb.PredictRequest(model="m")
    good.inputs["b"].CopyFrom(tensor_pb2.Tensor(datatype=tensor_pb2.BOOL, shape=[2], raw=b"\0\1"))
    bad = pb.PredictRequest.FromString(wire(good).replace(b"\0\1", b"\0\2"))
    assert bad.inputs["b"].raw == b"\0\2"
    assert server.unary(wire(good))[0] is OK.code
    assert "every byte must be 0 or 1" in server.unary(wire(bad))[1]


def test_an_answer_of_many_bytes_is_not_put_into_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batches, "LARGEST_ANSWER", 100)
    server = Server(add)
    server.stream([message(request(0, tag=1))])
    _, _, results = server.stream([message(*[request(number, tag=1 + number) for number in range(20)])])
    assert numbers(results) == [2.0 * number for number in range(20)]


def test_templates_are_few() -> None:
    known = KnownRequests(spans_of)
    server = Server(add)
    server.service.known_requests = known
    for length in range(1, 3 * known_lists.MOST):
        server.unary(wire(request(length, id="i" * length, metadata={f"k{length}": "v"})))
        assert len(known) <= known_lists.MOST
    for version in range(20):
        server.unary(wire(request(0, metadata={f"{version:02}": "v"})))
        server.unary(wire(request(0, outputs=["y"] * 2, priority=version + 100)))
    assert max(map(len, known._lists.by_length.values())) <= 2 * known_lists.MOST_OF_A_LENGTH


def test_a_number_that_does_not_end_is_found_soon() -> None:
    endless = b"\x0a" + b"\xff" * 11 + b"\x01"
    with pytest.raises(ValueError, match="too long"):
        wire_format.read_varint(endless, 1)
    assert Server(add).stream([endless])[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_requests_alike_are_run_on_memory_that_begins_alike() -> None:
    places = set()

    def noting(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        places.update(array.ctypes.data % 16 for array in inputs.values())
        return add(outputs, inputs)

    server = Server(noting)
    for length in range(1, 40):
        for _ in range(2):
            server.unary(wire(request(length, id="i" * length)))
    assert places == {0}


@pytest.mark.parametrize("place", ["of the request", "of an input"])
def test_a_field_of_another_wire_type_is_none(place: str) -> None:
    fixed = bytes((3 << 3 | 5,))  # the number of `id`, and of `raw`
    answers = []
    for learns in (True, False):
        server = Server(add, learns=learns)
        for number in (1, 1):
            made = request(number)
            if place == "of the request":
                data = wire(made) + fixed + b"abcd"
            else:
                made.inputs["x"].ClearField("raw")
                made.inputs["x"].float_values.extend((number, number))
                made.inputs["x"].MergeFromString(fixed + b"abcd")
                data = wire(made)
            answers.append(server.unary(data))
    assert answers[:2] == answers[2:]


def test_the_rest_of_many_is_not_run_for_a_stream_that_ended() -> None:
    ran = []

    def failing(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        ran.append(len(inputs["w"]))
        if len(ran) == 4:  # of many, a half of a half
            handler.closed(True)
        return picky(outputs, inputs)

    server = Server(failing, max_rows=32)
    server.stream([message(request(0, tag=1))])
    call = Call()
    handler = server.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(call)
    handler.received(message(*[request(13, tag=1 + number) for number in range(20)]))
    server.work()
    assert ran == [1, 20, 10, 5]
    assert sum(each.count for each in server.tally.done) + len(server.tally.failures) == 21


def test_no_message_is_read_while_the_one_before_is_taken_apart() -> None:
    server = Server(add, queue_rows=1, max_stream_requests=4)
    taken: list[int] = []

    class Quick(Call):
        def send(self, message: bytes) -> None:
            handler.sent()

        def receive(self) -> None:
            taken.append(len(server.tally.failures))

    call = Quick(ordered=False)
    handler = server.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(call)
    handler.received(message(*[request(number, id="i") for number in range(9)]))
    assert taken == [8], "the next message was asked for too soon"


def test_of_many_whose_answers_cannot_all_be_written_each_has_one() -> None:
    def texts(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        return [np.array([None if number == 5 else "text" for number in inputs["w"]], object)]

    inputs = [SIGNATURE.inputs[name] for name in ("x", "w")]
    server = Server(texts, signature=signature_of(inputs, [spec("y", ("N",), DataType.BYTES)]), max_rows=32)
    server.stream([message(request(0, tag=1))])
    call = Call()
    handler = server.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(call)
    handler.received(message(*[request(number, tag=1 + number) for number in range(8)]))
    server.runners.work_inline()
    assert len(server.failures) == 1
    for _ in call.sent:
        handler.sent()
    sent = [result for each in call.sent for result in pb.PredictStreamResponse.FromString(each).results]
    assert [result.tag for result in sent] == [1 + number for number in range(8)]
    assert [result.HasField("error") for result in sent] == [number >= 5 for number in range(8)]


@st.composite
def requests(draw: st.DrawFn) -> pb.PredictRequest:
    fields: dict[str, Any] = {"tag": draw(st.sampled_from([0, 1, 127, 128, 300, 2**21, 2**63]))}
    if draw(st.booleans()):
        fields["id"] = draw(st.sampled_from(["a", "b", "ü", "same-length"]))
    if not draw(st.integers(0, 4)):
        fields["output_encoding"] = pb.TYPED
    if not draw(st.integers(0, 4)):
        fields["version"] = draw(st.sampled_from(["1", "2"]))
    made = request(draw(st.sampled_from([0, 1, 2, 13])), draw(st.sampled_from([1, 1, 1, 3])), **fields)
    if not draw(st.integers(0, 6)):
        made.inputs["x"].shape[0] += 1
    return made


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    place = draw(st.integers(0, len(data) - 1))
    return data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    kinds = draw(st.lists(requests(), min_size=1, max_size=3))
    found = []
    for _ in range(draw(st.integers(1, 4))):
        sent = []
        for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6)):
            sent += [kind] * draw(st.sampled_from([1, 1, 2, 5, 9]))
        data = message(*sent)
        found.append(damaged(draw, data) if draw(st.booleans()) else data)
    return found


slowly = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@slowly
@given(messages(), st.booleans())
def test_streams_mean_the_same_with_and_without_templates(sent: list[bytes], ordered: bool) -> None:
    known, parsed = Server(picky), Server(picky, learns=False)
    for number in range(1, len(sent) + 1):
        told = known.stream(sent[:number], ordered)
        expected = parsed.stream(sent[:number], ordered)
        assert (told[:2], Counter(told[2])) == (expected[:2], Counter(expected[2]))
        if ordered:
            assert told[2] == expected[2]


@slowly
@given(st.data())
def test_calls_mean_the_same_with_and_without_templates(data: st.DataObject) -> None:
    known, parsed = Server(picky), Server(picky, learns=False)
    kinds = [wire(each) for each in data.draw(st.lists(requests(), min_size=1, max_size=3))]
    for _ in range(data.draw(st.integers(1, 6))):
        sent = data.draw(st.sampled_from(kinds))
        if data.draw(st.booleans()):
            sent = damaged(data.draw, sent)
        assert known.unary(sent) == parsed.unary(sent)


def test_more_alike_than_are_compared_at_once() -> None:
    server = Server(add, queue_rows=10_000)
    count = 3 * message_parts.MOST + 5
    server.stream([message(request(0, tag=200))])
    _, _, results = server.stream([message(*[request(number, tag=200 + number) for number in range(count)])])
    assert numbers(results) == [2.0 * number for number in range(count)]
    assert len(server.tally.done) < count / 4


def test_two_kinds_by_turns() -> None:
    """Each looks like one that came before, and none like the next."""
    server = Server(add)
    kinds = [request(number, tag=200 + number, priority=1 + number % 2) for number in range(20)]
    server.stream([message(kinds[0])])
    server.stream([message(kinds[1])])
    _, _, results = server.stream([message(*kinds)])
    assert numbers(results) == [2.0 * number for number in range(20)]


def test_what_is_no_row_of_requests_is_parsed() -> None:
    one = message(request(1, tag=1))
    known = KnownRequests(spans_of)
    assert list(message_parts.requests_in(one + one, known)) == [(wire(request(1, tag=1)), None)] * 2
    for odd in (one[:-1], one + b"\x12\x00", b"\x0a", b"\x0a\xff", b"\x0a\x05abc"):
        with pytest.raises(ValueError, match=r"."):
            list(message_parts.requests_in(odd, known))


def test_a_message_of_requests_that_are_all_alike_is_read_at_once() -> None:
    """And as it is read part by part; anything else in it is left to that."""
    server = Server(add)
    server.stream([message(request(0, tag=200))])
    known, several = server.service.known_requests, [request(number, tag=200 + number) for number in range(6)]

    def all_alike(data: bytes, most: int = 32) -> Any:
        length, first = wire_format.read_varint(data, 1)
        return message_parts.all_alike(data, first, first + length, known, most)

    found, ((part, _),) = all_alike(message(*several)), message_parts.requests_in(message(*several), known)
    assert found.count == part.count == 6
    assert (found.known, found.seconds) == (part.known, part.seconds)
    assert found.messages.tobytes() == part.messages.tobytes()
    for other in (
        message(*several[:3]),
        message(*several, request(6, tag=2)),
        message(*several[:5], request(6, tag=206, priority=1)),
        message(*several) + pb.PredictStreamRequest(cancel=[200]).SerializeToString(),
        message(*several)[:-1],
        message(*[request(number, tag=200, version="2") for number in range(6)]),
    ):
        assert all_alike(other) is None
    assert all_alike(message(*several), most=5) is None
