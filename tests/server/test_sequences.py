"""Models whose state a running server keeps: by stream, by id, by both protocols and the clients."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import penstock_client
from penstock.core.tensors import DataType
from penstock_client import Sequence
from penstock_proto.inference import grpc_service_pb2 as oip_pb
from penstock_proto.v1 import model_pb2, model_pb2_grpc
from penstock_proto.v1 import prediction_pb2 as pb
from server import kit, oip_kit
from support import zoo
from support.servers import RunningServer, running_server

SUM = '[sequence]\nstate = { sum = "sumN" }\n'
MODELS: dict[str, tuple[Any, str]] = {
    "sum": (zoo.running_sum, SUM),
    "mean": (zoo.running_mean, '[sequence]\nstate = { h = "hn" }\n'),
    "hasty": (zoo.running_sum, f"{SUM}idle_seconds = 0.2\n"),
    "few": (zoo.running_sum, f"{SUM}max_sequences = 2\n"),
    "scalar": (zoo.running_scalar, SUM),
    "alone": (zoo.running_sum, f"{SUM}[batching]\nenabled = false\n"),
    "scaled": (zoo.scaled, ""),
    "identity": (zoo.identity, ""),
}
BY_ID = (("penstock-sequences", "by-id"),)


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RunningServer]]:
    """Gives the server of a transport; one for all tests of this file."""
    path = zoo.repository(
        tmp_path_factory.mktemp("kept"), {name: make() for name, (make, _) in MODELS.items()}
    )
    for name, (_, settings) in MODELS.items():
        (path / name / "model.toml").write_text(settings)
    running: dict[str, RunningServer] = {}
    with ExitStack() as stack:

        def get(transport: str) -> RunningServer:
            if transport not in running:
                running[transport] = stack.enter_context(running_server(path, "--transport", transport))
            return running[transport]

        yield get


@pytest.fixture
def server(keeping: Callable[[str], RunningServer], transport: str) -> RunningServer:
    return keeping(transport)


def step(value: int, *, model: str = "sum", sequence: Any = None, **fields: Any) -> pb.PredictRequest:
    x = kit.raw(np.full((1, 1), value), DataType.INT64)
    return kit.request(model, x=x, sequence=sequence, **fields)


def of(id: str = "", *, start: bool = False, end: bool = False) -> pb.Sequence:
    return pb.Sequence(id=id, start=start, end=end)


def answer(result: pb.PredictResult | pb.PredictResponse) -> int:
    if isinstance(result, pb.PredictResult):
        assert result.HasField("response"), result.error
        result = result.response
    assert list(result.outputs) == ["y"]
    return int(kit.array_of(result.outputs["y"])[0, 0])


def test_a_stream_that_ends_while_its_message_is_decoded_leaves_no_state(server: RunningServer) -> None:
    """Large messages are decoded by workers, who go on after the end."""
    for number in range(6):
        with kit.connect(server.target) as channel:
            stream = kit.Stream(channel)
            steps = [step(1, sequence=of(f"{number} {each} {'x' * 200}", start=True)) for each in range(4000)]
            stream.send(*steps)
            time.sleep(0.02 + 0.03 * number)
            stream.cancel()
    kit.wait_until(lambda: kit.is_idle(server.ops), "all have ended")
    kit.wait_until(
        lambda: kit.Metrics(server.ops).sum("sequences", model="sum") == 0, "no state is left", 5.0
    )


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """The status and the words that a call ends with."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code().name, raised.value.details()  # type: ignore[attr-defined]


@pytest.fixture
def predict(stub: Any) -> Callable[..., Any]:
    return lambda *how, **more: stub.Predict(step(*how, **more), timeout=kit.BOUND)


def test_a_stream_is_a_sequence(channel: grpc.Channel) -> None:
    for _ in range(2):  # each one of its own, and read by templates the second time
        results = kit.stream_all(channel, kit.one_each([step(each, tag=each) for each in range(1, 21)]))
        assert [answer(each) for each in results] == [each * (each + 1) // 2 for each in range(1, 21)]


def test_many_steps_in_one_message_are_run_in_order(channel: grpc.Channel) -> None:
    requests = [step(1, tag=300 + each) for each in range(200)]
    for _ in range(2):
        results = kit.stream_all(channel, [kit.message(*requests)])
        assert [answer(each) for each in results] == list(range(1, 201))
        assert [each.tag for each in results] == [each.tag for each in requests]


def test_streams_at_once_keep_apart_and_share_batches(server: RunningServer) -> None:
    def one(number: int) -> tuple[list[int], int]:
        with kit.connect(server.target) as channel:
            results = kit.stream_all(channel, [kit.message(*[step(number)] * 50)])
        return [answer(each) for each in results], max(each.response.timing.batch_rows for each in results)

    together = kit.in_parallel([lambda n=n: one(n) for n in range(1, 13)], threads=12)
    assert [sums for sums, _ in together] == [[n * each for each in range(1, 51)] for n in range(1, 13)]
    kit.wait_until(lambda: kit.metric(server.ops, "sequences", model="sum") == 0, "the states are dropped")


def test_the_state_of_another_axis(channel: grpc.Channel) -> None:
    """y = (x + the last y) / 2, and what was two steps ago is in the state as well."""
    values = np.random.default_rng(1).standard_normal((10, 1, 3)).astype(np.float32)
    expected, before = [], np.zeros((1, 3), np.float32)
    for each in values:
        before = (each + before) / 2
        expected.append(before)
    results = kit.stream_all(channel, kit.one_each([kit.request("mean", x=each) for each in values]))
    got = [kit.array_of(each.response.outputs["y"]) for each in results]
    assert np.array_equal(got, expected)


def test_calls_are_steps_by_id(predict: Callable[..., Any]) -> None:
    assert answer(predict(1, sequence=of("unary", start=True))) == 1
    assert answer(predict(2, sequence=of("unary"))) == 3
    assert answer(predict(5, sequence=of("unary", start=True))) == 5
    assert answer(predict(1, sequence=of("unary", end=True))) == 6
    code, words = refusal(lambda: predict(1, sequence=of("unary")))
    assert (code, words) == (
        "FAILED_PRECONDITION",
        "sequence unary has no state: it never began, has ended, or has expired (after 60 s without a "
        "step); send a step with start to begin it (over HTTP: with the header "
        "Penstock-Sequence-Start: true)",
    )


def test_a_call_has_to_say_of_which_sequence_it_is(
    channel: grpc.Channel, predict: Callable[..., Any]
) -> None:
    kit.stream_all(channel, kit.one_each([step(1)] * 5))  # what looks alike is known from streams
    for sequence in (None, of(start=True)):
        code, words = refusal(lambda sequence=sequence: predict(1, sequence=sequence))
        assert code == "INVALID_ARGUMENT"
        assert words == (
            "sum version 1 has a state, so the request must name its sequence: set the sequence's id (and "
            "start with its first step); over HTTP by the headers Penstock-Sequence-Id and "
            "Penstock-Sequence-Start; or send all steps of the sequence on one stream"
        )


def test_ids_and_the_stream_s_own_sequence_on_one_stream(channel: grpc.Channel) -> None:
    requests = [
        step(1),
        step(10, sequence=of("a", start=True)),
        step(2),
        step(20, sequence=of("a")),
        step(100, sequence=of("b")),
        step(4, sequence=of(end=True)),
        step(8),
        step(16, sequence=of(start=True)),
        step(32),
    ]
    results = kit.stream_all(channel, [kit.message(*requests)])
    failed = {4: "sequence b has no state", 6: "the stream's sequence cannot continue: it has ended"}
    for place, words in failed.items():
        assert results[place].error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert results[place].error.message.startswith(words)
    assert [answer(results[each]) for each in (0, 1, 2, 3, 5, 7, 8)] == [1, 10, 3, 30, 7, 16, 48]


def test_what_began_on_a_stream_ends_with_it(
    server: RunningServer, channel: grpc.Channel, predict: Callable[..., Any]
) -> None:
    stream = kit.Stream(channel)
    stream.send(step(1), step(2, sequence=of("gone", start=True)))
    assert [answer(stream.next()), answer(stream.next())] == [1, 2]
    assert answer(predict(3, sequence=of("gone"))) == 5
    assert kit.metric(server.ops, "sequences", model="sum") == 2
    stream.cancel()
    kit.wait_until(lambda: kit.metric(server.ops, "sequences", model="sum") == 0, "the states are dropped")
    assert refusal(lambda: predict(1, sequence=of("gone")))[0] == "FAILED_PRECONDITION"


def test_a_state_may_be_a_scalar(channel: grpc.Channel) -> None:
    x = kit.raw(np.array(3), DataType.INT64)
    results = kit.stream_all(channel, [kit.message(*[kit.request("scalar", x=x) for _ in range(3)])])
    assert [int(kit.array_of(each.response.outputs["y"])) for each in results] == [3, 6, 9]


def test_a_stream_may_be_by_id_only(channel: grpc.Channel) -> None:
    requests = [step(1), step(1, sequence=of("x", start=True)), step(1, sequence=of("x"))]
    results = kit.stream_all(channel, [kit.message(*requests)], metadata=BY_ID)
    assert results[0].error.message.endswith("set the sequence's id (and start with its first step)")
    assert [answer(each) for each in results[1:]] == [1, 2]


def test_a_failed_step_is_as_if_it_had_not_been_sent(channel: grpc.Channel) -> None:
    results = kit.stream_all(channel, [kit.message(step(1), step(5000), step(2))])
    assert results[1].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert [answer(results[0]), answer(results[2])] == [1, 3]


def test_an_idle_sequence_expires(
    server: RunningServer, channel: grpc.Channel, predict: Callable[..., Any]
) -> None:
    before = kit.metric(server.ops, "sequences_expired_total", model="hasty")
    predict(1, model="hasty", sequence=of("late", start=True))
    stream = kit.Stream(channel)
    stream.send(step(1, model="hasty"))
    stream.next()
    kit.wait_until(
        lambda: kit.metric(server.ops, "sequences_expired_total", model="hasty") == before + 2, "they expire"
    )
    stream.send(step(1, model="hasty"), step(7, model="hasty", sequence=of(start=True)))
    assert stream.next().error.message == (
        "the stream's sequence cannot continue: its state has expired (after 0.2 s without a step); send a "
        "step with start to begin it, or open a new stream"
    )
    assert answer(stream.next()) == 7
    assert refusal(lambda: predict(1, model="hasty", sequence=of("late")))[0] == "FAILED_PRECONDITION"


def test_there_is_a_most_of_sequences(predict: Callable[..., Any]) -> None:
    for id in "ab":
        predict(1, model="few", sequence=of(id, start=True))
    assert refusal(lambda: predict(1, model="few", sequence=of("c", start=True))) == (
        "RESOURCE_EXHAUSTED",
        "2 sequences are active, the limit, all of them this caller's; end some of them",
    )
    for id in "ab":
        predict(1, model="few", sequence=of(id, end=True))
    assert answer(predict(1, model="few", sequence=of("c", start=True, end=True))) == 1


def test_what_the_server_keeps_is_not_sent_and_not_given(stub: Any) -> None:
    state = kit.raw(np.zeros((1, 1)), DataType.INT64)
    wrong = step(1, sequence=of("s", start=True))
    wrong.inputs["sum"].CopyFrom(state)
    code, words = refusal(lambda: stub.Predict(wrong, timeout=kit.BOUND))
    assert code == "INVALID_ARGUMENT"
    assert words.startswith("there is no input sum: expected x INT64[N,1]")
    assert words.endswith("; the server keeps sum; requests must not send it or ask for it")
    wrong = step(1, sequence=of("s", start=True), outputs=["sumN"])
    code, words = refusal(lambda: stub.Predict(wrong, timeout=kit.BOUND))
    assert code == "INVALID_ARGUMENT"
    assert "the server keeps sumN" in words


@pytest.mark.parametrize("model", ["sum", "alone"])
@pytest.mark.parametrize("count", [0, 2])
def test_a_step_is_one_row(stub: Any, model: str, count: int) -> None:
    x = kit.raw(np.ones((count, 1)), DataType.INT64)
    wrong = kit.request(model, x=x, sequence=of("rows", start=True))
    assert refusal(lambda: stub.Predict(wrong, timeout=kit.BOUND)) == (
        "INVALID_ARGUMENT",
        f"a step of a sequence has one row, got {count}; {model} version 1 has a state",
    )


def test_a_model_that_is_not_batched_keeps_its_state(channel: grpc.Channel) -> None:
    results = kit.stream_all(channel, [kit.message(*[step(1, model="alone")] * 20)])
    assert [answer(each) for each in results] == list(range(1, 21))


def test_the_model_service_says_what_is_kept(channel: grpc.Channel) -> None:
    models = model_pb2_grpc.ModelServiceStub(channel)  # type: ignore[no-untyped-call]
    model = models.GetModel(model_pb2.GetModelRequest(model="few"), timeout=kit.BOUND)
    assert [each.name for each in (*model.inputs, *model.outputs)] == ["x", "y"]
    kept = model.kept_state
    assert (dict(kept.state), kept.idle.seconds, kept.max_sequences) == ({"sum": "sumN"}, 60, 2)
    assert model.batching.enabled
    other = models.GetModel(model_pb2.GetModelRequest(model="identity"), timeout=kit.BOUND)
    assert not other.HasField("kept_state")


# The Open Inference Protocol


def infer(value: int, **parameters: Any) -> oip_pb.ModelInferRequest:
    kinds: dict[type, str] = {bool: "bool_param", int: "int64_param", str: "string_param"}
    said = {
        f"sequence_{name}": oip_pb.InferParameter(**{kinds[type(each)]: each})
        for name, each in parameters.items()
    }
    return oip_kit.request("sum", datatype=DataType.INT64, parameters=said, x=[[value]])


def test_triton_s_parameters_are_steps(channel: grpc.Channel) -> None:
    stub = oip_kit.stub_of(channel)

    def sent(value: int, **parameters: Any) -> int:
        got = stub.ModelInfer(infer(value, **parameters), timeout=kit.BOUND)
        return int(oip_kit.arrays_of(got)["y"][0, 0])

    assert [sent(1, id=7, start=True), sent(2, id=7), sent(4, id="7"), sent(8, id=7, end=True)] == [
        1,
        3,
        7,
        15,
    ]
    assert refusal(lambda: sent(1, id=7))[0] == "FAILED_PRECONDITION"
    for unsaid in ({}, {"id": 0}, {"id": ""}):
        assert refusal(lambda unsaid=unsaid: sent(1, **unsaid))[0] == "INVALID_ARGUMENT"


def infer_all(channel: grpc.Channel, *requests: Any, **how: Any) -> list[Any]:
    call = channel.stream_stream(
        oip_kit.STREAM,
        oip_pb.ModelInferRequest.SerializeToString,
        oip_pb.ModelStreamInferResponse.FromString,
    )(iter(requests), timeout=kit.BOUND, **how)
    return [each.error_message or int(oip_kit.arrays_of(each.infer_response)["y"][0, 0]) for each in call]


def test_a_stream_of_the_protocol_is_a_sequence(channel: grpc.Channel) -> None:
    requests = [infer(each) for each in (1, 2, 4)] + [infer(8, id=9, start=True), infer(16, id=9), infer(32)]
    assert infer_all(channel, *requests) == [1, 3, 7, 8, 24, 39]


def test_a_stream_of_the_protocol_may_be_by_id_only(channel: grpc.Channel) -> None:
    first, second = infer_all(channel, infer(1), infer(2, id=5, start=True), metadata=BY_ID)
    assert "set the sequence's id" in first
    assert second == 2


# Scalars


def test_requests_share_a_batch_only_where_their_scalars_are_equal(server: RunningServer) -> None:
    """Also where they look alike to the last byte of everything else, and come in one message."""
    factors = [1.0, -0.0, 0.0, 3.0] * 40
    requests = [
        kit.request("scaled", x=np.full((1, 3), -2, np.float32), factor=np.array(factor, np.float32))
        for factor in factors
    ]

    def one(_: int) -> list[bool]:
        with kit.connect(server.target) as channel:
            results = kit.stream_all(
                channel, [kit.message(*requests), kit.message(*sorted(requests, key=str))]
            )
        return [each.response.outputs["y"].raw for each in results]

    expected = [(np.full((1, 3), -2, np.float32) * np.float32(factor)).tobytes() for factor in factors]
    for got in kit.in_parallel([lambda n=n: one(n) for n in range(4)], threads=4):
        assert got[: len(factors)] == expected
        assert sorted(got[len(factors) :]) == sorted(expected)


# The client


def test_the_client_s_steps(server: RunningServer) -> None:
    for transport in ("auto", "unary", "stream"):
        with penstock_client.Client(server.target, transport=transport) as client:

            def step(id: str, value: int, client: Any = client, **how: bool) -> int:
                return int(client.predict("sum", {"x": value}, sequence=Sequence(id, **how))["y"][0, 0])

            assert [step("c", 1, start=True), step("c", 2), step("d", 9, start=True)] == [1, 3, 9]
            assert step("c", 4, end=True) == 7
            with pytest.raises(penstock_client.PenstockError, match="has no state") as raised:
                step("c", 1)
            assert raised.value.status is grpc.StatusCode.FAILED_PRECONDITION
            for _ in range(3):  # none is of a sequence that the client's own stream might have
                with pytest.raises(penstock_client.InvalidInput, match="set the sequence's id"):
                    client.predict("sum", {"x": 1})
            assert step("d", 1, end=True) == 10


def test_the_client_s_stream_is_a_sequence(server: RunningServer) -> None:
    with penstock_client.Client(server.target) as client:
        info = client.model("sum")
        assert info.kept_state == penstock_client.KeptState({"sum": "sumN"}, 60.0, 10_000)
        got = [int(each["y"][0, 0]) for each in client.predict_stream("sum", [{"x": 1}] * 50)]
    assert got == list(range(1, 51))


def test_steps_of_many_callers_are_never_merged(server: RunningServer) -> None:
    with penstock_client.Client(server.target, merge_rows=True, transport="stream") as client:
        done: dict[int, list[int]] = {}

        def one(number: int) -> None:
            done[number] = [
                int(
                    client.predict("sum", {"x": number}, sequence=Sequence(f"m{number}", turn == 0))["y"][
                        0, 0
                    ]
                )
                for turn in range(20)
            ]

        threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert done == {number: [number * turn for turn in range(1, 21)] for number in range(8)}


def test_the_asyncio_client_s_steps(server: RunningServer) -> None:
    async def one(client: penstock_client.AsyncClient, number: int) -> list[int]:
        got = []
        for turn in range(20):
            sequence = Sequence(f"a{number}", start=turn == 0, end=turn == 19)
            got.append(int((await client.predict("sum", {"x": number}, sequence=sequence))["y"][0, 0]))
        return got

    async def all_of_them(merge_rows: bool) -> list[list[int]]:
        async with penstock_client.AsyncClient(server.target, merge_rows=merge_rows) as client:
            return await asyncio.gather(*[one(client, number) for number in range(16)])

    for merge_rows in (False, True):
        got = asyncio.run(all_of_them(merge_rows))
        assert got == [[number * turn for turn in range(1, 21)] for number in range(16)]


def test_an_id_is_a_text() -> None:
    with pytest.raises(TypeError, match="the id of a sequence is a str, not 7"):
        Sequence(7)  # type: ignore[arg-type]


def test_every_step_is_answered_at_the_stop(serve: Any, tmp_path: Path) -> None:
    server = serve({"sum": zoo.running_sum()}, "--drain-seconds", "10", settings={"sum": SUM})
    with kit.connect(server.target) as channel:
        stream = kit.Stream(channel)
        stream.send(*[step(1)] * 400)
        assert answer(stream.next()) == 1
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        results, code = stream.rest_and_code()
        stopping.join()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert [answer(each) for each in results] == list(range(2, 401))
