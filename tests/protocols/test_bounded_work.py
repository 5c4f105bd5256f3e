"""A message is handled where its work belongs: small work at once, much work by a worker or in turns."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from penstock.core import wire as wire_format
from penstock.core.errors import InvalidRequest, RequestCancelled, RequestError
from penstock.core.minifloats import BY_BITS, widened
from penstock.core.request import Response, Run
from penstock.core.tensors import DataType, Kind
from penstock.protocols import service, turns, typed_lists
from penstock.protocols.open_inference.work import WORK as INFER
from penstock.protocols.penstock_v1.work import WORK as PREDICT
from penstock.protocols.tensors import pack_bytes
from penstock.protocols.turns import Turns
from penstock.protocols.work import Bounds, too_many_names
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1.tensor_pb2 import Tensor
from protocols.test_known_requests import (
    Call,
    NoObserver,
    Server,
    add,
    meaning,
    message,
    numbers,
    request,
    wire,
)
from support.work import spec

INLINE = Bounds().inline_seconds
MOST = Bounds().names


class Held(Executor):
    """Workers that begin when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.waiting.append(lambda: fn(*args, **kwargs))
        return Future()

    def work(self) -> None:
        while self.waiting:  # work may ask for more
            waiting, self.waiting = self.waiting, []
            for each in waiting:
                each()


def held(server: Server) -> Held:
    server.service._workers = workers = Held()
    return workers


def predict(**lists: Any) -> bytes:
    made = pb.PredictRequest(model="m")
    for name, values in lists.items():
        if name == "raw":
            made.inputs["x"].raw, made.inputs["x"].datatype = values
        else:
            getattr(made.inputs["x"], name).extend(values)
    return made.SerializeToString()


def infer(datatype: str = "", raw: bytes = b"", **lists: Any) -> bytes:
    made = oip.ModelInferRequest(model_name="m")
    tensor = made.inputs.add(name="x", datatype=datatype)
    if raw:
        made.raw_input_contents.append(raw)
    for name, values in lists.items():
        getattr(tensor.contents, name).extend(values)
    return made.SerializeToString()


def texts(count: int, each: str = "") -> bytes:
    return pack_bytes(np.array([each] * count, dtype=object))


MUCH = {
    "integers": predict(int_values=[1] * 250_000),
    "texts": predict(string_values=[""] * 100_000),
    "raw texts": predict(raw=(texts(50_000), 13)),
    "raw, which may be texts": predict(raw=(texts(50_000), 0)),
    "names of outputs": pb.PredictRequest(model="m", outputs=["y"] * 50_000).SerializeToString(),
    "entries of a map": b"\x22\x00" * 100_000,
    "no request": b"\xff" * 10_000,
}
LITTLE = {
    "raw numbers": predict(raw=(bytes(250_000), 11)),
    "floats": predict(float_values=[0.5] * 20_000),
    "long texts": predict(string_values=["a" * 20_000] * 8),
    "long raw texts": predict(raw=(texts(8, "a" * 20_000), 13)),
}
INFER_MUCH = {
    "integers": infer("INT32", int_contents=[1] * 250_000),
    "texts": infer("BYTES", bytes_contents=[b""] * 100_000),
    "raw texts": infer("BYTES", texts(50_000)),
    "tensors": oip.ModelInferRequest(
        inputs=[oip.ModelInferRequest.InferInputTensor()] * 50_000
    ).SerializeToString(),
    "parameters": b"\x22\x00" * 100_000,
}
INFER_LITTLE = {
    "raw numbers": infer("FP32", bytes(250_000)),
    "floats": infer("FP32", fp32_contents=[0.5] * 20_000),
    "long raw texts": infer("BYTES", texts(8, "a" * 20_000)),
}


@pytest.mark.parametrize("title", MUCH)
def test_much_work_is_seen_before_it_is_done(title: str) -> None:
    assert PREDICT.seconds(MUCH[title]) > INLINE


@pytest.mark.parametrize("title", LITTLE)
def test_large_is_not_much_work(title: str) -> None:
    assert PREDICT.seconds(LITTLE[title]) < INLINE


@pytest.mark.parametrize("title", INFER_MUCH)
def test_much_work_in_open_inference(title: str) -> None:
    assert INFER.seconds(INFER_MUCH[title]) > INLINE


@pytest.mark.parametrize("title", INFER_LITTLE)
def test_large_is_not_much_work_in_open_inference(title: str) -> None:
    assert INFER.seconds(INFER_LITTLE[title]) < INLINE


@pytest.mark.parametrize("title", MUCH | INFER_MUCH)
def test_looking_at_it_takes_few_steps(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look itself must not be the work: it ends after some hundred fields."""
    steps = 0
    read = wire_format.read_varint

    def counted(data: bytes, position: int) -> tuple[int, int]:
        nonlocal steps
        steps += 1
        return read(data, position)

    monkeypatch.setattr(wire_format, "read_varint", counted)
    for work, messages in ((PREDICT, MUCH), (INFER, INFER_MUCH)):
        if title in messages:
            work.seconds(messages[title])
    assert steps < 5_000


# Names


def check_names(data: bytes, names: Any, most: int) -> None:
    if (error := too_many_names(data, names, most)) is not None:
        raise error


def test_as_many_names_as_are_allowed() -> None:
    made = pb.PredictRequest(model="m", outputs=[f"y{number}" for number in range(MOST - 2)])
    made.inputs["x"].raw = b"1234"
    made.metadata["key"] = "value"
    check_names(made.SerializeToString(), PREDICT.names, MOST)
    made.outputs.append("one more")
    with pytest.raises(
        InvalidRequest, match=rf"{MOST + 1} or more inputs.* at most {MOST} .*max_request_names"
    ):
        check_names(made.SerializeToString(), PREDICT.names, MOST)


@pytest.mark.parametrize(
    "data",
    [
        b"\x22\x00" * 100_000,  # empty entries of the map of inputs
        b"\x22\xa0\x8d\x06" + b"\x12\x00" * 50_000,  # one entry with many empty tensors
        b"\x0b" + b"\x00" * 100_000,  # a group
        b"\x0b\x0c" + b"\x22\x00" * 100_000,  # entries after a group
        b"\x22\x00" * 100_000 + b"\xff",  # and what cannot be parsed
    ],
    ids=["entries", "tensors", "group", "after a group", "malformed"],
)
def test_fields_count_as_well(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"(more fields than|or more inputs)"):
        check_names(data, PREDICT.names, MOST)


def test_parameters_of_tensors_count_in_open_inference() -> None:
    made = oip.ModelInferRequest(model_name="m")
    tensor = made.inputs.add(name="x")
    for number in range(MOST):
        tensor.parameters[f"p{number}"].bool_param = True
    with pytest.raises(InvalidRequest, match=f"{MOST + 1} or more inputs"):
        check_names(made.SerializeToString(), INFER.names, MOST)


def test_a_model_with_many_inputs_makes_room_for_them() -> None:
    server = Server(add)
    server.service.bounds = Bounds(names=3)
    server.service.make_room_for([server.model])  # two inputs, one output
    assert server.service.bounds.names == 6
    server.service.make_room_for([])
    assert server.service.bounds.names == 6


def test_a_call_with_too_many_names_is_rejected() -> None:
    server = Server(add)
    code, words, sent = server.unary(wire(request(1, outputs=["y"] * 3_000)))
    assert (code, sent) == (grpc.StatusCode.INVALID_ARGUMENT, [])
    assert "at most 1024 inputs" in words
    server.service.bounds = Bounds(names=10_000)
    assert server.unary(wire(request(1, outputs=["y"] * 3_000)))[0] is grpc.StatusCode.OK


def test_a_request_of_a_stream_with_too_many_names_is_rejected_alone() -> None:
    server = Server(add)
    wrong = request(2, id="who", tag=7, outputs=["y"] * 3_000)
    code, _, results = server.stream([message(request(1, tag=1), wrong, request(3, tag=3))])
    assert code is grpc.StatusCode.OK
    assert numbers([results[0], results[2]]) == [2.0, 6.0]
    assert 'tag: 7\nid: "who"\nerror' in results[1]


def test_errors_name_a_few_of_the_unknown_names() -> None:
    _, words, _ = Server(add).unary(wire(request(1, outputs=[f"o{number}" for number in range(500)])))
    assert "there is no output o0, o1, " in words
    assert "o19 and 480 more" in words


# A worker instead of the polling thread


def heavy(number: float = 1.0, **more: Any) -> pb.PredictRequest:
    """A request that counts as much work, since it has many fields."""
    made = request(number, **more)
    for index in range(600):
        made.metadata[str(index)] = "some words"
    return made


def test_a_call_that_is_much_work_is_decoded_by_a_worker() -> None:
    server = Server(add)
    workers = held(server)
    call = Call()
    handler = server.service.methods()["/penstock.v1.PredictionService/Predict"].handler(call)
    handler.received(wire(heavy(3)))
    server.work()
    assert (call.status, len(workers.waiting)) == (None, 1)
    workers.work()
    server.work()
    handler.closed(False)
    assert call.status is not None
    assert call.status.code is grpc.StatusCode.OK
    assert len(call.sent) == 1


def test_a_call_that_is_cancelled_meanwhile_is_dropped() -> None:
    server = Server(add)
    workers = held(server)
    call = Call()
    handler = server.service.methods()["/penstock.v1.PredictionService/Predict"].handler(call)
    handler.received(wire(heavy()))
    handler.closed(True)
    workers.work()
    server.work()
    assert call.sent == []
    assert len(server.tally.failures) == 1


@pytest.mark.parametrize("ordered", [True, False])
def test_results_keep_their_order(ordered: bool) -> None:
    server = Server(add)
    workers = held(server)
    call = Call(ordered)
    handler = server.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(call)
    handler.received(message(*[request(1, tag=1), heavy(2, tag=2), request(3, tag=3)]))
    server.work()
    assert (call.sent, len(workers.waiting)) == ([], 1)
    workers.work()
    handler.half_closed()
    server.drain(call, handler)
    handler.closed(False)
    found = [
        meaning(pb.PredictResult, each)
        for data in call.sent
        for each in pb.PredictStreamResponse.FromString(data).results
    ]
    assert numbers(found) == [2.0, 4.0, 6.0]
    assert call.status is not None
    assert call.status.code is grpc.StatusCode.OK


# Turns


@pytest.fixture
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)


def opened(server: Server, ordered: bool = True) -> tuple[Call, Any]:
    call = Call(ordered)
    return call, server.service.methods()["/penstock.v1.PredictionService/PredictStream"].handler(call)


def different(count: int) -> bytes:
    """Requests that do not look alike, so that each is read alone."""
    return message(*[request(number, id="i" * (1 + number % 7)) for number in range(count)])


@pytest.mark.usefixtures("_short_turns")
def test_the_requests_of_a_message_are_taken_in_turns() -> None:
    server = Server(add)
    call, handler = opened(server)
    other = Call()
    handler.received(different(100))
    assert server.tally.done == []
    steps = 0
    while server.runners.work_inline():
        steps += 1
        if steps == 20:  # another caller comes in the middle of it
            unary = server.service.methods()["/penstock.v1.PredictionService/Predict"].handler(other)
            unary.received(wire(request(1)))
        if steps == 22:
            assert other.status is not None, "it did not have to wait for the rest"
    handler.half_closed()
    server.drain(call, handler)
    results = [
        meaning(pb.PredictResult, each)
        for data in call.sent
        for each in pb.PredictStreamResponse.FromString(data).results
    ]
    assert numbers(results) == [2.0 * number for number in range(100)]
    assert steps > 100


@pytest.mark.usefixtures("_short_turns")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("rows", [0, 1])
def test_the_results_of_a_few_requests_leave_together(rows: int, ordered: bool) -> None:
    """Whether the first one is answered while the others are begun, or the thread is interrupted then."""
    server = Server(add)
    call, handler = opened(server)
    wrong = request(2)
    wrong.model = "missing"
    requests = [request(1, rows=rows), wrong, request(3, rows=rows), wrong]
    handler.received(message(*requests if ordered else [requests[0], requests[2]]))
    server.work()
    assert [len(pb.PredictStreamResponse.FromString(data).results) for data in call.sent] == [
        4 if ordered else 2
    ]


@pytest.mark.usefixtures("_short_turns")
def test_nothing_of_a_message_begins_before_all_of_it_is_read() -> None:
    server = Server(add)
    call, handler = opened(server)
    handler.received(different(50) + b"\x0a\x05abc")
    server.drain(call, handler)
    assert call.status is not None
    assert call.status.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (server.tally.done, server.tally.failures) == ([], [])


@pytest.mark.usefixtures("_short_turns")
@pytest.mark.parametrize("after", [3, 60, 70])
def test_each_request_ends_once_if_the_call_ends_between_turns(after: int) -> None:
    server = Server(add)
    _, handler = opened(server)
    handler.received(different(50))
    for _ in range(after):
        server.runners.work_inline()
    handler.closed(True)
    server.work()
    done = len(server.tally.done) + len(server.tally.failures)
    assert done == 50


@pytest.mark.usefixtures("_short_turns")
@pytest.mark.parametrize("after", [3, 60])
def test_what_is_left_of_a_message_is_not_begun_once_the_call_has_ended(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(add)
    begun: list[int] = []
    put = server.model.batcher.put
    monkeypatch.setattr(server.model.batcher, "put", lambda each: (begun.append(each.rows), put(each)))
    _, handler = opened(server)
    handler.received(different(50))
    for _ in range(after):
        server.runners.work_inline()
    before = len(begun)
    handler.closed(True)
    server.work()
    assert before < 50
    assert len(begun) <= before + 1, "one may be under way"
    assert len(server.tally.done) + len(server.tally.failures) == 50
    assert {type(error) for _, error in server.tally.failures} == {RequestCancelled}


@pytest.mark.usefixtures("_short_turns")
def test_requests_of_all_kinds_that_are_not_begun_end_once() -> None:
    """Known ones, alike and not, parsed ones, and those that no model or no parser would have taken."""
    server = Server(add)
    unknown: list[RequestError] = []
    telemetry = NoObserver()
    telemetry.failed = lambda _, error: unknown.append(error)  # type: ignore[attr-defined]
    server.service.telemetry = telemetry
    server.unary(wire(request(1)))  # to be known
    server.tally.done.clear()
    kinds = [
        *[request(number) for number in range(40)],
        request(1, id="another"),
        request(1),
        request(1, outputs=["y"] * 3_000),
    ]
    kinds[-2].model = "missing"
    _, handler = opened(server)
    workers = held(server)
    handler.received(message(*kinds))
    handler.closed(True)
    workers.work()
    server.work()
    assert len(server.tally.done) + len(server.tally.failures) == 41
    assert len(unknown) == 2


@pytest.mark.usefixtures("_short_turns")
def test_a_stop_between_turns_ends_the_stream_after_all_answers() -> None:
    server = Server(add)
    call, handler = opened(server)
    handler.received(different(50))
    for _ in range(70):
        server.runners.work_inline()
    server.service.drain()
    assert call.status is None
    server.drain(call, handler)
    assert call.status is not None
    assert call.status.code is grpc.StatusCode.UNAVAILABLE
    assert len(server.tally.done) == 50


def test_a_turn_that_fails_ends_the_call() -> None:
    broke: list[Exception] = []

    def failing() -> Any:
        yield False
        raise ValueError("a fault")

    class AllAtOnce:
        def take_turns(self, turn: Callable[[], bool]) -> None:
            while turn():
                pass

    Turns(failing(), Held(), broke.append).begin(AllAtOnce())
    assert [str(each) for each in broke] == ["a fault"]


def test_on_workers_messages_take_turns_as_well() -> None:
    """Four workers, each with a message of its own, kept a caller of another model waiting for 25 ms."""
    taken: list[str] = []

    def message_of(name: str) -> Any:
        for _ in range(3):
            taken.append(name)
            yield False

    worker = Held()
    for name in "ab":
        Turns(message_of(name), worker, lambda _: None).on_worker()
    worker.work()
    assert "".join(taken) == "ababab"


def test_messages_with_many_requests_are_handled_by_one_worker() -> None:
    server, workers = Server(add, queue_rows=10_000), Held()
    server.service._workers, server.service.offload_bytes = workers, 1000
    for _ in range(4):
        opened(server)[1].received(different(200))
    assert len(workers.waiting) == 1, "the others wait for it"
    workers.work()
    server.work()
    assert len(server.tally.done) == 4 * 200


def test_a_message_with_too_many_requests_ends_the_stream() -> None:
    server = Server(add)
    server.service.bounds = Bounds(requests=20)
    code, words, results = server.stream([different(20), different(21)])
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "more than 20 requests" in words
    assert len(results) == 20


@pytest.mark.parametrize(
    "cancel",
    [pb.PredictStreamRequest(cancel=[7] * 100).SerializeToString(), b"\x10\x07" * 100],
    ids=["packed", "one by one"],
)
def test_cancelled_tags_count_as_requests(cancel: bytes) -> None:
    server = Server(add)
    server.service.bounds = Bounds(requests=99)
    code, *_ = server.stream([cancel + b"\x18\x00" if cancel[0] != 0x10 else cancel])
    assert code is grpc.StatusCode.INVALID_ARGUMENT


# Conversions in bulk


def converted(datatype: DataType, field: str, given: Any) -> np.ndarray:
    made = pb.PredictRequest()
    getattr(made.inputs["x"], field).extend(given)
    return typed_lists.read(spec("x", ("N",), datatype), field, getattr(made.inputs["x"], field))


@pytest.mark.parametrize("count", [1, typed_lists.FEW, typed_lists.FEW + 1, 3 * typed_lists.SLICE + 1])
def test_long_lists_are_converted_like_short_ones(count: int) -> None:
    numbers_ = [(number * 7) % 100 for number in range(count)]
    for datatype in (DataType.INT8, DataType.FP32, DataType.FP64, DataType.FP16, DataType.UINT64):
        found = converted(datatype, "int_values", numbers_)
        assert (found.dtype, found.tolist()) == (datatype.dtype, numbers_)
    assert converted(DataType.BYTES, "string_values", map(str, numbers_)).tolist() == list(map(str, numbers_))


def test_protobufs_own_list_may_lack_the_protocol_of_arrays() -> None:
    class Plain(list[int]):
        """As in releases before 7."""

    given = Plain(range(3 * typed_lists.SLICE + 1))
    found = typed_lists.of_list(spec("x", ("N",), DataType.INT64), given, np.dtype("<i8"))
    assert found.tolist() == given


@pytest.mark.parametrize(
    ("datatype", "field", "wrong"),
    [
        (DataType.FP32, "int_values", 2**24 + 1),
        (DataType.FP64, "int_values", 2**63 - 1),
        (DataType.FP64, "uint_values", 2**64 - 1),
        (DataType.FP16, "int_values", -70_000),
        (DataType.INT8, "int_values", -129),
        (DataType.UINT64, "int_values", -1),
        (DataType.INT64, "uint_values", 2**63),
    ],
)
def test_one_value_of_many_does_not_fit(datatype: DataType, field: str, wrong: int) -> None:
    given = [1] * 10_000
    given[7_777] = wrong
    with pytest.raises(InvalidRequest, match=rf"the value {wrong} at position 7777 does not fit {datatype}"):
        converted(datatype, field, given)


def test_a_large_list_takes_no_step_for_each_value() -> None:
    given = pb.PredictRequest.FromString(MUCH["integers"]).inputs["x"].int_values
    if not hasattr(given, "__array__"):
        pytest.skip("this release of protobuf gives no block of values")
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        typed_lists.of_list(spec("x", ("N",), DataType.FP32), given, np.dtype("<i8"))
    finally:
        sys.setprofile(None)
    assert calls < 1_000


@pytest.mark.parametrize("count", [1, typed_lists.FEW, typed_lists.FEW + 1, typed_lists.SLICE + 3])
@pytest.mark.parametrize("datatype", DataType)
def test_typed_answers_are_the_same_in_bulk(datatype: DataType, count: int) -> None:
    if datatype is DataType.BYTES:
        values = np.array([str(number) for number in range(count)], dtype=object)
    else:
        data = np.random.default_rng(count).bytes(count * datatype.dtype.itemsize)
        data = bytes(each & 1 for each in data) if datatype is DataType.BOOL else data
        values = np.frombuffer(data, datatype.dtype)
        is_float = datatype.kind in (Kind.FLOAT, Kind.DOUBLE)
        as_numbers = widened(datatype, values) if datatype in BY_BITS else values
        if is_float:
            values = np.where(np.isnan(as_numbers), values.dtype.type(0), values)  # there are many NaNs
    whole, parts = Tensor(), Tensor()
    typed_lists.write(whole, datatype, values)
    for start in range(0, count, typed_lists.FEW):
        typed_lists.write(parts, datatype, values[start : start + typed_lists.FEW])
    assert whole.SerializeToString() == parts.SerializeToString()
    if datatype is not DataType.BYTES:
        content = b"".join(typed_lists.packed(datatype, values))
        assert whole.SerializeToString() == wire_format.field(typed_lists.list_key(datatype), content)


@pytest.mark.parametrize(
    "given",
    [[0] * 300, [0, 127, 128, 2**64 - 1] * 100, [2**63] * 300, list(range(16_380, 16_390)) * 30],
    ids=["zeros", "all lengths", "large", "two and three bytes"],
)
def test_integers_are_written_as_protobuf_writes_them(given: list[int]) -> None:
    made = Tensor()
    numbers = np.array(given, np.uint64)
    typed_lists.write(made, DataType.UINT64, numbers)
    assert made == Tensor(uint_values=given)
    content = b"".join(typed_lists.packed(DataType.UINT64, numbers))
    key = typed_lists.list_key(DataType.UINT64)
    assert Tensor.FromString(wire_format.field(key, content)) == made


# Answers


def test_an_answer_that_takes_long_to_write_is_given_by_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(add)
    workers = held(server)
    server.service.bounds = Bounds(inline_seconds=0.0)
    call = Call()
    handler = server.service.methods()["/penstock.v1.PredictionService/Predict"].handler(call)
    handler.received(wire(request(3, output_encoding=pb.TYPED)))
    server.work()
    assert (call.status, len(workers.waiting)) == (None, 1)
    assert len(server.tally.done) == 1
    workers.work()
    assert call.status is not None
    assert call.status.code is grpc.StatusCode.OK
    assert pb.PredictResponse.FromString(call.sent[0]).outputs["y"].float_values[0] == 6.0


@pytest.mark.parametrize("size", [1, 2**20], ids=["large", "middling"])
def test_a_runner_thread_has_a_worker_write_what_holds_the_interpreter(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what is so large that it is copied beside the interpreter."""
    server = Server(add)
    workers = held(server)
    server.service.bounds = Bounds(inline_seconds=0.0)
    monkeypatch.setattr(server.service.engine, "takes_calls", lambda: False)
    monkeypatch.setattr(service, "LARGE_BYTES", size)
    call = Call()
    handler = server.service.methods()["/penstock.v1.PredictionService/Predict"].handler(call)
    handler.received(wire(request(3, output_encoding=pb.TYPED)))
    server.work()
    assert (call.status is None, len(workers.waiting)) == ((True, 1) if size > 1 else (False, 0))


def test_the_size_of_each_answer_counts_not_that_of_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four answers of 1 MB were written and sent by two runner threads, beside the worker."""
    server = Server(add)
    workers = held(server)
    server.service.bounds = Bounds(inline_seconds=0.0)
    monkeypatch.setattr(server.service.engine, "takes_calls", lambda: False)
    monkeypatch.setattr(service, "LARGE_BYTES", 12)  # an answer has 8, the outputs of their run 16
    calls = [Call(), Call()]
    for number, call in enumerate(calls):
        handler = server.service.methods()["/penstock.v1.PredictionService/Predict"].handler(call)
        handler.received(wire(request(number, output_encoding=pb.TYPED)))
    server.work()
    assert server.tally.batches == [2]
    assert ([call.status for call in calls], len(workers.waiting)) == ([None, None], 1)
    workers.work()
    answers = [pb.PredictResponse.FromString(call.sent[0]) for call in calls]
    assert [each.outputs["y"].float_values[0] for each in answers] == [0.0, 2.0]


def test_raw_answers_are_not() -> None:
    server = Server(add)
    server.service.bounds = Bounds(inline_seconds=0.0)
    held(server)
    assert server.unary(wire(request(3)))[0] is grpc.StatusCode.OK


@pytest.mark.parametrize("count", [1, 8], ids=["one", "a micro-batch"])
def test_answers_of_a_stream_keep_their_order(count: int) -> None:
    server = Server(add)
    workers = held(server)
    call, handler = opened(server)
    for _ in range(2):  # the second time they are recognised
        server.service.bounds = Bounds(inline_seconds=0.0)
        typed = [request(number, tag=200, output_encoding=pb.TYPED) for number in range(count)]
        handler.received(message(*typed))
        server.work()
        server.service.bounds = Bounds()
        handler.received(message(request(100, tag=200)))
        server.drain(call, handler)
        assert call.sent == []
        workers.work()
        server.drain(call, handler)
        tensors = [
            each.response.outputs["y"]
            for data in call.sent
            for each in pb.PredictStreamResponse.FromString(data).results
        ]
        found = [
            np.frombuffer(each.raw, np.float32)[0] if each.raw else each.float_values[0] for each in tensors
        ]
        assert found == [*[2.0 * number for number in range(count)], 200.0]
        call.sent.clear()
        call.left = 0


def test_an_answer_that_cannot_be_written_ends_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(add)
    workers = held(server)
    server.service.bounds = Bounds(inline_seconds=0.0)

    def failing(*_: object) -> bytes:
        raise ValueError("a fault")

    server.service.codec = replace(server.service.codec, encode=failing)
    call = Call()
    handler = server.service.methods()["/penstock.v1.PredictionService/Predict"].handler(call)
    handler.received(wire(request(3, output_encoding=pb.TYPED)))
    server.work()
    workers.work()
    assert call.status is not None
    assert call.status.code is grpc.StatusCode.INTERNAL
    assert [str(each) for each in server.failures] == ["a fault"]


def answer(array: np.ndarray, rows: int | None = None) -> Response:
    run = Run(0.0, 0.0, 0.0, rows or 1, {"y": array})
    return Response(run, ("y",), 0.0, 0, rows)


@pytest.mark.parametrize(
    ("long", "short"),
    [
        (PREDICT.answer_seconds(answer(np.ones(250_000, np.float32)), True), np.ones(50_000, np.float32)),
        (
            PREDICT.answer_seconds(answer(np.array(["a"] * 10_000, dtype=object)), False),
            np.array(["a"], object),
        ),
    ],
    ids=["typed", "texts"],
)
def test_how_long_answers_take(long: float, short: np.ndarray) -> None:
    assert long > INLINE > PREDICT.answer_seconds(answer(short), True)


def test_how_long_a_classification_takes() -> None:
    assert INFER.answer_seconds(answer(np.ones((32, 1000), np.float32), 32), {"y": 5}) > INLINE
    assert INFER.answer_seconds(answer(np.ones((1, 1000), np.float32), 1), {"y": 5}) < INLINE
    assert INFER.answer_seconds(answer(np.ones((32, 1000), np.float32), 1), {"y": 5}) < INLINE, (
        "one row of it"
    )
    assert INFER.answer_seconds(answer(np.ones((32, 10**5), np.float32), 32), None) == 0.0


@pytest.mark.parametrize(
    ("key", "value", "weight"),
    [
        pytest.param(wire_format.key(99, wire_format.LENGTH_DELIMITED), b"\0", 4, id="long keys"),
        pytest.param(wire_format.key(9, wire_format.VARINT), b"\1", 2, id="numbers"),
    ],
)
def test_fields_that_take_longer_to_count_count_more(key: bytes, value: bytes, weight: int) -> None:
    """Four thousand of them took 4 ms."""
    field = key + value
    assert wire_format.count_names(field * 100, PREDICT.names, MOST, 10_000) == (0, 100 * weight)
    assert too_many_names(field * (4 * MOST // weight), PREDICT.names, MOST) is None
    error = too_many_names(field * 4 * MOST, PREDICT.names, MOST)
    assert f"has more fields than {MOST} inputs, outputs and parameters need" in str(error), (
        "a number of fields that it does not have is not told"
    )
