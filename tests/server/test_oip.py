"""The Open Inference Protocol: inference, as its clients see it."""

from __future__ import annotations

import time
from typing import Any

import grpc
import numpy as np
import pytest

from penstock.core.tensors import DataType
from penstock_proto.inference import grpc_service_pb2 as pb
from penstock_proto.v1 import prediction_pb2
from server import kit, oip_kit
from server.conftest import ALONE
from server.oip_kit import X, output, request
from support import zoo

P = pb.InferParameter


@pytest.fixture
def oip(channel: grpc.Channel) -> Any:
    return oip_kit.stub_of(channel)


def refusal(stub: Any, message: pb.ModelInferRequest) -> tuple[grpc.StatusCode, str]:
    (found,) = oip_kit.refusals(stub, [message])
    return found


def models():
    """One for each test that counts, or that wants settings of its own."""
    return {
        "large": (zoo.identity(DataType.FP32, ("N", 1024)), ""),
        "dropped": (zoo.slow(100), ALONE),
        "together": (
            zoo.identity(DataType.FP32, ("N", 1)),
            "[batching]\nmax_delay_seconds = 20.0\nmax_rows = 8\n",
        ),
        "shapes": (
            zoo.identity(DataType.FP32, ("N", "L")),
            "[batching]\nmax_delay_seconds = 5.0\nmax_rows = 4\n",
        ),
        "turns": (zoo.slow(200), "runs_in_parallel = 1\n" + ALONE),
    }


@pytest.mark.parametrize("datatype", DataType, ids=str)
def test_every_datatype_comes_back_bit_for_bit(oip, channel, datatype) -> None:
    name = f"identity_{datatype.label.lower()}"
    array = kit.examples(datatype, (4, 3))
    message = request(name, datatype=datatype, x=array)
    unary = oip.ModelInfer(message)
    (streamed,) = oip_kit.stream_all(channel, [message])
    for answer in (unary, streamed.infer_response):
        assert answer.outputs[0].datatype == datatype.label
        assert answer.raw_output_contents == message.raw_input_contents
        assert list(answer.outputs[0].shape) == [4, 3]


def test_what_an_answer_says(oip) -> None:
    answer = oip.ModelInfer(request("scale", version="stable", id="an id", x=X))
    assert (answer.model_name, answer.model_version, answer.id) == ("scale", "2", "an id")
    assert not answer.parameters
    np.testing.assert_array_equal(oip_kit.arrays_of(answer)["y"], X * 2)
    assert oip.ModelInfer(request("scale", x=X)).model_version == "10", "the default"


def test_outputs_wanted(oip) -> None:
    every = oip_kit.arrays_of(oip.ModelInfer(request("multi", x=X)))
    assert len(every) > 1
    for name, values in every.items():
        only = oip_kit.arrays_of(oip.ModelInfer(request("multi", x=X, outputs=[output(name), output(name)])))
        assert list(only) == [name]
        np.testing.assert_array_equal(only[name], values)


def test_a_classification(oip) -> None:
    wanted = [output("y", classification=P(int64_param=2))]
    found = oip_kit.arrays_of(oip.ModelInfer(request("identity", x=X, outputs=wanted)))["y"]
    assert found.tolist() == [["3.000000:2", "2.000000:1"], ["6.000000:0", "5.000000:1"]]


def test_what_is_not_there_is_not_found(oip) -> None:
    code, words = refusal(oip, request("nobody", x=X))
    assert (code, "no model 'nobody'" in words) == (grpc.StatusCode.NOT_FOUND, True)
    code, words = refusal(oip, request("scale", version="99", x=X))
    assert code is grpc.StatusCode.NOT_FOUND
    assert words == "model scale has no version or label '99'; it has 1, 2, 10, old, stable"


def test_what_does_not_fit_is_refused(oip) -> None:
    bad = grpc.StatusCode.INVALID_ARGUMENT
    assert refusal(oip, request("identity")) == (
        bad,
        "input x is missing: expected x FP32[N,3]; got none",
    )
    assert refusal(oip, request("identity", x=X, outputs=[output("z")])) == (
        bad,
        "there is no output z; identity version 1 has y",
    )
    assert refusal(oip, request("add", a=X, b=X[:1])) == (
        bad,
        "all inputs need the same number of rows: a has 2, b has 1",
    )
    reserved = refusal(oip, request("identity", x=X, parameters={"triton_other": P(bool_param=True)}))
    assert reserved[0] is bad
    ranked = refusal(
        oip,
        request(
            "identity_bytes",
            datatype=DataType.BYTES,
            x=np.array([["a"] * 3], object),
            outputs=[output("y", classification=P(int64_param=1))],
        ),
    )
    assert ranked == (bad, "output y is BYTES: its values cannot be ranked for a classification")


def test_a_message_that_is_none(channel) -> None:
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", None, None)
    assert kit.code_of(lambda: call(b"\xff\xff", timeout=kit.BOUND)) is grpc.StatusCode.INVALID_ARGUMENT
    stream = oip_kit.Stream(channel)
    stream.send(request("identity", id="good", x=X))
    stream.send_bytes(b"\xff\xff")
    answers, code, words = stream.rest_and_status()
    assert [each.infer_response.id for each in answers] == ["good"]
    assert (code, words) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "the request (2 bytes) cannot be parsed as ModelInferRequest",
    )


def test_a_model_that_fails_hurts_only_the_guilty(oip) -> None:
    bad = np.array([[100]], np.int64)
    assert refusal(oip, request("fails", datatype=DataType.INT64, x=bad))[0] is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=str)
def test_compressed_messages(oip, channel, compression) -> None:
    wide = np.zeros((10_000, 3), np.float32)
    answer = oip.ModelInfer(request("identity", x=wide), compression=compression)
    assert answer.raw_output_contents[0] == wide.tobytes()
    (streamed,) = oip_kit.stream_all(channel, [request("identity", x=wide)], compression=compression)
    assert streamed.infer_response.raw_output_contents[0] == wide.tobytes()


def test_large_tensors_come_whole_and_in_order(oip, channel) -> None:
    large = np.random.default_rng(1).random((20, 2**18), np.float32)  # 20 MiB
    message = request("wide", id="large", x=large)
    assert oip.ModelInfer(message).raw_output_contents[0] == large.tobytes()
    small = request("wide", id="small", x=np.ones((1, 1), np.float32))
    answers = oip_kit.stream_all(channel, [message, small, message, small])
    assert [each.infer_response.id for each in answers] == ["large", "small", "large", "small"]


# Streams


def test_a_stream_answers_in_order_and_marks_each_answer_as_final(channel) -> None:
    requests = [
        request("slow", id="0", x=np.ones((1, 1), np.float32)),
        request("nobody", id="1", x=X),
        *[request("identity", id=str(number), x=X * number) for number in range(2, 200)],
        request("identity", id="200"),
        request("scale", id="201", x=X),
    ]
    answers = oip_kit.stream_all(channel, requests)
    assert [each.infer_response.id for each in answers] == [str(number) for number in range(202)]
    errors = {each.infer_response.id: each.error_message for each in answers if each.error_message}
    assert set(errors) == {"1", "200"}
    assert errors["200"] == "input x is missing: expected x FP32[N,3]; got none"
    for each in answers:
        final = each.infer_response.parameters
        assert bool(final) != bool(each.error_message)
        assert not final or final["triton_final_response"].bool_param


def test_the_first_error_ends_a_stream_that_wants_it_so(channel, server) -> None:
    how = {"metadata": (("triton_grpc_error", "true"),)}
    good = [request("identity", id=str(number), x=X) for number in range(20)]
    assert len(oip_kit.stream_all(channel, good, **how)) == 20
    kit.wait_until(lambda: not kit.Metrics(server.ops).sum("streams_open"), "the streams before are over")
    stream = oip_kit.Stream(channel, **how)
    slow = request("slow", id="slow", x=np.ones((1, 1), np.float32))
    stream.send(slow, *good, request("identity", id="bad"), *good, slow, *good)
    answers, code, words = stream.rest_and_status()
    assert [each.infer_response.id for each in answers] == ["slow", *map(str, range(20))]
    assert not any(each.error_message for each in answers)
    assert (code, words) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "input x is missing: expected x FP32[N,3]; got none",
    )
    kit.wait_until(lambda: not kit.Metrics(server.ops).sum("streams_open"), "the stream is over")


def test_such_a_stream_ends_though_requests_are_being_run(channel) -> None:
    """The error of a request that is refused at once waits for its turn, and then ends all that follows."""
    stream = oip_kit.Stream(channel, metadata=(("triton_grpc_error", "true"),))
    slow = [request("slow", id=str(number), x=np.ones((1, 1), np.float32)) for number in range(4)]
    stream.send(request("nobody", id="bad"), *slow)
    answers, code, _ = stream.rest_and_status()
    assert (answers, code) == ([], grpc.StatusCode.NOT_FOUND)


def test_such_a_stream_ends_whatever_waits_behind_the_error(serve) -> None:
    """However many there are, each is dropped once, and the drop of the last one ends the stream."""
    settings = {"slow": "[batching]\nenabled = false\n"}
    running = serve({"slow": zoo.slow(5), "gate": zoo.slow(50)}, settings=settings)
    one = np.ones((1, 1), np.float32)
    counts = (0, 1, 2, 3, 10, 400)
    with kit.connect(running.target) as channel:
        for count in counts:
            stream = oip_kit.Stream(channel, metadata=(("triton_grpc_error", "true"),))
            behind = [request("slow", x=one) for _ in range(count)]
            stream.send(request("gate", id="gate", x=one), request("nobody", id="bad"), *behind)
            answers, code, _ = stream.rest_and_status()
            assert [each.infer_response.id for each in answers] == ["gate"]
            assert code is grpc.StatusCode.NOT_FOUND
        stats = oip_kit.stub_of(channel)

        def all_ended() -> bool:
            """Of what was read: some of it came after the end of its stream."""
            parts = oip_kit.statistics(stats, "slow").inference_stats
            ended = parts.success.count + parts.fail.count + 2 * len(counts)
            return ended == kit.Metrics(running.ops).sum("stream_requests_total")

        kit.wait_until(lambda: kit.Metrics(running.ops).sum("queue_rows") == 0, "nothing waits")
        kit.wait_until(all_ended, "each ends once")
    assert not [line for line in running.stderr if "unexpected failure" in line]


def test_large_requests_may_be_cancelled_while_they_are_read(own_server) -> None:
    large = request("large", id="abc", x=np.ones((2048, 1024), np.float32))
    with kit.connect(own_server.target) as channel:
        stub = oip_kit.stub_of(channel)
        for _ in range(2):
            stub.ModelInfer(large)
            time.sleep(0.05)  # so that what it looks like is known
        for number in range(60):
            call = stub.ModelInfer.future(large)
            time.sleep(0.0005 * number)
            call.cancel()
        kit.wait_until(lambda: kit.Metrics(own_server.ops).sum("calls_in_flight") == 0, "all are over")
        assert stub.ModelInfer(large).raw_output_contents[0] == large.raw_input_contents[0]
    assert not [line for line in own_server.stderr if "unexpected failure" in line]


def test_half_close_drains(channel) -> None:
    slow = [request("slow", id=str(number), x=np.ones((1, 1), np.float32)) for number in range(5)]
    assert [each.infer_response.id for each in oip_kit.stream_all(channel, slow)] == list("01234")


def test_what_a_cancelled_stream_has_asked_for_is_dropped(own_server) -> None:
    before = kit.metric(own_server.ops, "stream_requests_total")
    with kit.connect(own_server.target) as channel:
        stream = oip_kit.Stream(channel)
        stream.send(*[request("dropped", x=np.ones((1, 1), np.float32)) for _ in range(100)])
        stream.next()
        kit.wait_until(
            lambda: kit.metric(own_server.ops, "stream_requests_total") == before + 100, "all have come"
        )
        stream.cancel()
        kit.wait_until(
            lambda: kit.Metrics(own_server.ops).sum("cancelled_total", model="dropped") > 50,
            "dropped requests",
        )
        stats = oip_kit.statistics(oip_kit.stub_of(channel), "dropped")
        assert stats.inference_stats.fail.count + stats.inference_stats.success.count <= 100


# Both protocols and one queue


def test_requests_of_all_rpcs_share_a_batch(own_server) -> None:

    def x(value: float) -> np.ndarray:
        return np.full((2, 1), value, np.float32)

    with kit.connect(own_server.target) as channel:
        oip, own = oip_kit.stub_of(channel), kit.stub_of(channel)
        mine, theirs = kit.Stream(channel), oip_kit.Stream(channel)
        for _ in range(3):  # from then on it is known how fast they come, and four fill a batch
            own.Predict(kit.request("together", x=x(0.0)))
            time.sleep(0.2)
        mine.send(kit.request("together", x=x(1.0)))
        theirs.send(request("together", x=x(2.0)))
        unary = oip.ModelInfer.future(request("together", x=x(3.0)))
        other = own.Predict.future(kit.request("together", x=x(4.0)))
        assert kit.array_of(mine.next().response.outputs["y"]).max() == 1.0
        assert oip_kit.arrays_of(theirs.next().infer_response)["y"].tolist() == [[2.0]] * 2
        assert oip_kit.arrays_of(unary.result(kit.BOUND))["y"].tolist() == [[3.0]] * 2
        assert kit.array_of(other.result(kit.BOUND).outputs["y"]).max() == 4.0
        kit.wait_until(lambda: oip_kit.statistics(oip, "together").inference_count == 14, "all is counted")
        stats = oip_kit.statistics(oip, "together")
        assert (stats.inference_count, stats.execution_count) == (14, 4)
        assert [each.batch_size for each in stats.batch_stats] == [2, 8]


def test_inner_shapes_of_both_protocols_are_told_apart_alike(own_server) -> None:
    with kit.connect(own_server.target) as channel:
        oip, own = oip_kit.stub_of(channel), kit.stub_of(channel)
        for _ in range(3):  # from then on it is known how fast they come
            own.Predict(kit.request("shapes", x=kit.rows(4, 1.0, 3)))
            time.sleep(0.2)
        for width in (4, 5):  # the first request of a shape runs alone
            own.Predict(kit.request("shapes", x=kit.rows(2, 1.0, width)))
            time.sleep(0.2)
        for width in (4, 5):
            futures = [
                oip.ModelInfer.future(request("shapes", x=kit.rows(2, 1.0, width))),
                own.Predict.future(kit.request("shapes", x=kit.rows(2, 1.0, width))),
            ]
            for future in futures:
                future.result(kit.BOUND)
        kit.wait_until(lambda: oip_kit.statistics(oip, "shapes").inference_count == 24, "all is counted")
        stats = oip_kit.statistics(oip, "shapes")
        assert (stats.inference_count, stats.execution_count) == (24, 7)


def test_priority_goes_first(own_server) -> None:
    with kit.connect(own_server.target) as channel:
        stub, done = oip_kit.stub_of(channel), []
        futures = []

        def ask(id: str, level: int) -> None:
            parameters = {"priority": P(uint64_param=level)} if level else {}
            message = request("turns", id=id, x=np.ones((1, 1), np.float32), parameters=parameters)
            futures.append(stub.ModelInfer.future(message))
            futures[-1].add_done_callback(lambda each: done.append(each.result().id))

        ask("first", 0)
        kit.wait_until(
            lambda: kit.Metrics(own_server.ops).sum("running_batches", model="turns") == 1, "a run"
        )
        for level in (3, 2, 0, 1):
            ask(f"level {level}", level)
        kit.wait_until(lambda: len(done) == 5, "all are answered")
        assert (done[0], done[1], done[-1]) == ("first", "level 1", "level 3")


# Bounds


def codes_of_bounds(serve: Any, **env: str) -> tuple[set[grpc.StatusCode], grpc.StatusCode]:
    settings = "[batching]\nenabled = false\nqueue_rows = 4\n"
    running = serve({"slow": zoo.slow(100)}, settings={"slow": settings}, env=env)
    one = np.ones((1, 1), np.float32)
    with kit.connect(running.target) as channel:
        stub = oip_kit.stub_of(channel)
        futures = [stub.ModelInfer.future(request("slow", x=one)) for _ in range(20)]
        full = {kit.code_of_future(each) for each in futures} - {grpc.StatusCode.OK}
        futures = [stub.ModelInfer.future(request("slow", x=one)) for _ in range(2)]
        late = request("slow", x=one, parameters={"timeout": P(int64_param=1000)})
        late_code = refusal(stub, late)[0]
        for each in futures:
            each.result(kit.BOUND)
    return full, late_code


def test_the_codes_of_bounds(serve) -> None:
    assert codes_of_bounds(serve) == (
        {grpc.StatusCode.RESOURCE_EXHAUSTED},
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )


def test_tritons_codes_of_bounds(serve) -> None:
    unavailable = grpc.StatusCode.UNAVAILABLE
    assert codes_of_bounds(serve, PENSTOCK_SERVER__TRITON_STATUS_CODES="true") == ({unavailable}, unavailable)


def test_a_message_over_the_limit(serve) -> None:
    running = serve(
        {"wide": zoo.identity(DataType.FP32, ("N", "L"))}, env={"PENSTOCK_SERVER__MAX_MESSAGE_BYTES": "1000"}
    )
    with kit.connect(running.target) as channel:
        stub = oip_kit.stub_of(channel)
        assert refusal(stub, request("wide", x=np.ones((1, 300), np.float32)))[0] is (
            grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        assert refusal(stub, request("wide", x=np.ones((1, 100), np.float32)))[0] is grpc.StatusCode.OK


def test_a_reader_that_stops_reading_stops_being_read(serve) -> None:
    """No more requests of a stream are in flight than the bound, however much the client sends."""
    running = serve({"identity": zoo.identity()}, env={"PENSTOCK_SERVER__MAX_STREAM_REQUESTS": "10"})
    with kit.connect(running.target, ("grpc.http2.lookahead_bytes", 0)) as channel:
        stream = oip_kit.Stream(channel)
        wide = request("identity", x=np.ones((20_000, 3), np.float32))
        stream.send(*[wide for _ in range(100)])
        kit.wait_until(
            lambda: kit.Metrics(running.ops).sum("stream_requests_total") >= 10, "the first requests"
        )
        taken = kit.Metrics(running.ops).sum("stream_requests_total")
        stream.half_close()
        answers, code, _ = stream.rest_and_status()
        assert (len(answers), code) == (100, grpc.StatusCode.OK)
        assert taken < 100


def test_an_own_request_beside_garbage(oip, stub) -> None:
    """Both protocols are served on the same port."""
    assert isinstance(stub.Predict(kit.request("identity", x=kit.rows(1))), prediction_pb2.PredictResponse)
    assert oip.ModelInfer(request("identity", x=X)).id == ""
