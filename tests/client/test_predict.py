import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

import penstock_client
from client.standin import StandIn, echo, status
from penstock_client import Cancelled
from penstock_proto.v1 import prediction_pb2

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_an_answer_has_the_outputs_and_who_made_them(server, client) -> None:
    result = client.predict("echo", {"x": X}, id="seven")
    assert (result.model, result.version, result.id, result.index) == ("echo", "1", "seven", None)
    np.testing.assert_array_equal(result["x"], X)
    assert result["x"].dtype == np.float32
    assert list(result) == ["x"]
    assert len(result) == 1
    assert result.outputs["x"] is result["x"]
    assert result == result  # noqa: PLR0124 - and not an ambiguous array
    assert "echo version 1" in repr(result)
    assert "float32[2, 3]" in repr(result)


def test_timing_comes_in_seconds(server, client) -> None:
    timing = client.predict("echo", {"x": X}).timing
    assert timing.queue_seconds == pytest.approx(0.00025)
    assert timing.compute_seconds == pytest.approx(1.5)
    assert timing.batch_rows == 7


def test_an_unknown_output_is_a_key_error_that_names_the_known(server, client) -> None:
    with pytest.raises(KeyError, match='no output "z"; there are: x'):
        client.predict("echo", {"x": X})["z"]


def test_everything_asked_for_is_in_the_request(server, client) -> None:
    server.add("two", "stable", a="FP32 N", b="INT64 N")
    result = client.predict(
        "two", {"a": [1.0], "b": [2]}, version="stable", outputs=["b"], priority=-3, id="i"
    )
    (request,) = server.requests
    assert (request.model, request.version, request.priority, request.id) == ("two", "stable", -3, "i")
    assert list(request.outputs) == ["b"]
    assert request.output_encoding == prediction_pb2.RAW
    assert list(result) == ["b"]


def test_one_output_may_be_asked_for_by_its_bare_name(server, client) -> None:
    client.predict("echo", {"x": X}, outputs="x")
    assert list(server.requests[0].outputs) == ["x"]


def test_a_version_may_be_a_number(server, client) -> None:
    server.add("echo", "3", x="FP32 N,3")
    client.predict("echo", {"x": X}, version=3)
    assert server.requests[0].version == "3"


def test_the_signature_is_fetched_once(server, client) -> None:
    for _ in range(3):
        client.predict("echo", {"x": X})
    assert (server.calls["GetModel"], len(server.requests)) == (1, 3)


def test_threads_that_start_together_fetch_the_signature_once(server: StandIn) -> None:
    with penstock_client.Client(server.target) as client, ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: client.predict("echo", {"x": X}), range(24)))
    assert (server.calls["GetModel"], len(server.requests)) == (1, 24)


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND])
def test_a_signature_the_server_contradicts_is_dropped(server, client, code) -> None:
    client.predict("echo", {"x": X})
    server.answer = lambda _: status(code, "changed")
    with pytest.raises(penstock_client.PenstockError, match="changed"):
        client.predict("echo", {"x": X})
    server.answer = echo
    server.add("echo", x="FP64 N,3")
    assert client.predict("echo", {"x": X})["x"].dtype == np.float64
    assert server.calls["GetModel"] == 2


def test_other_failures_keep_the_signature(server, client) -> None:
    server.answer = lambda _: status(grpc.StatusCode.INTERNAL, "no")
    for _ in range(2):
        with pytest.raises(penstock_client.ModelFailed):
            client.predict("echo", {"x": X})
    assert server.calls["GetModel"] == 1


def test_a_model_replaced_under_the_client_is_not_refused_by_its_old_signature(server, client) -> None:
    client.predict("echo", {"x": X})
    server.add("echo", y="INT64 N")
    assert client.predict("echo", {"y": np.array([1])})["y"].tolist() == [1]


def test_a_refused_input_never_reaches_the_server(server, client) -> None:
    with pytest.raises(penstock_client.InvalidInput):
        client.predict("echo", {"x": np.zeros(3, np.float32)})
    assert server.requests == []


def test_the_timeout_is_told_to_the_server(server, connect, transport) -> None:
    client = connect(server.target, timeout=30.0)

    def told() -> float | None:
        if transport == "unary":
            return server.remaining
        timeout = server.requests[-1].timeout
        return timeout.seconds + timeout.nanos / 1e9 or None

    client.predict("echo", {"x": X})
    assert told() == pytest.approx(30, abs=5)
    client.predict("echo", {"x": X}, timeout=5.0)
    assert told() == pytest.approx(5, abs=2)
    client.predict("echo", {"x": X}, timeout=float("inf"))
    assert told() is None or told() > 1e6


def test_metadata_of_a_request_is_told_to_the_server(server, client, transport) -> None:
    client.predict("echo", {"x": X}, metadata={"traceparent": "00-1"})
    where = server.metadata if transport == "unary" else server.requests[-1].metadata
    assert where["traceparent"] == "00-1"
    for wrong in ({"Key": "v"}, {"k": "ü"}, {"k": 1}, {"k-bin": "v"}, [("k", "v"), ("k", "w")]):
        with pytest.raises(ValueError, match="metadata"):
            client.predict("echo", {"x": X}, metadata=wrong)
    for wrong in ("ab", ["ab"], [("k",)], 7):
        with pytest.raises(TypeError, match="metadata is a mapping of a key to a value, or pairs of both"):
            client.predict("echo", {"x": X}, metadata=wrong)
    assert len(server.requests) == 1
    client.predict("echo", {"x": X}, metadata=[("traceparent", "00-2")])
    where = server.metadata if transport == "unary" else server.requests[-1].metadata
    assert where["traceparent"] == "00-2"


def test_a_deadline_that_passes_is_an_error_of_its_own(server, client) -> None:
    client.predict("echo", {"x": X})
    release = threading.Event()
    server.answer = lambda request: release.wait(20) and echo(request)
    started = time.monotonic()
    with pytest.raises(penstock_client.DeadlineExceeded) as caught:
        client.predict("echo", {"x": X}, timeout=0.1)
    release.set()
    assert time.monotonic() - started < 10
    assert caught.value.status is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_is_above_0(server, client, connect, timeout) -> None:
    with pytest.raises(ValueError, match="above 0"):
        client.predict("echo", {"x": X}, timeout=timeout)
    with pytest.raises(ValueError, match="above 0"):
        connect(server.target, timeout=timeout)


def test_a_timeout_longer_than_any_wait_is_no_limit(server, connect) -> None:
    """Python waits for at most 292 years on Linux, and 49 days on Windows."""
    client = connect(server.target, timeout=1e13)
    for timeout in (None, 1e10, 1e300):
        assert "x" in client.predict("echo", {"x": X}, timeout=timeout)


def test_metadata_that_is_none_is_refused(server, connect) -> None:
    for wrong in ("ab", ["ab"], [("k",)], 7, None):
        with pytest.raises(TypeError, match="metadata is a mapping of a key to a value, or pairs of both"):
            connect(server.target, metadata=wrong)


@pytest.mark.parametrize("form", [dict, list])
def test_metadata_goes_with_every_call(server, connect, form) -> None:
    client = connect(server.target, metadata=form([("authorization", "Bearer t")]))
    calls = [
        lambda: client.predict("echo", {"x": X}),
        client.models,
        lambda: client.model("echo"),
        client.health,
        lambda: list(client.predict_stream("echo", [{"x": X}])),
    ]
    for call in calls:
        server.metadata = {}
        call()
        assert server.metadata["authorization"] == "Bearer t"


def test_messages_may_be_large_both_ways(server, client) -> None:
    large = np.zeros((2_000_000, 3), np.float32)
    np.testing.assert_array_equal(client.predict("echo", {"x": large})["x"], large)


def test_options_go_before_the_clients_own(server, connect) -> None:
    client = connect(server.target, options=[("grpc.max_receive_message_length", 1000)])
    with pytest.raises(penstock_client.Exhausted):
        client.predict("echo", {"x": np.zeros((1000, 3), np.float32)})


def test_numbers_are_read_only_views_of_the_bytes(server, client) -> None:
    array = client.predict("echo", {"x": X})["x"]
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_the_context_manager_closes(server: StandIn) -> None:
    with penstock_client.Client(server.target) as client:
        client.health()
    with pytest.raises(Cancelled, match="the client was closed"):
        client.health()


async def test_the_asynchronous_context_manager_closes(server: StandIn) -> None:
    async with penstock_client.AsyncClient(server.target) as client:
        assert await client.health() == "SERVING"
        assert (await client.predict("echo", {"x": X}))["x"].shape == (2, 3)
    with pytest.raises(Cancelled, match="the client was closed"):
        await client.predict("echo", {"x": X})


WRONG = [
    ({"timeout": "1"}, "a timeout is a number of seconds above 0, not '1'"),
    ({"timeout": True}, "a timeout is a number of seconds above 0, not True"),
    ({"timeout": [1]}, r"a timeout is a number of seconds above 0, not \[1\]"),
    ({"priority": "1"}, "priority is an integer, .*, not '1'"),
    ({"priority": 1.5}, "priority is an integer, .*, not 1.5"),
    ({"priority": [1]}, r"priority is an integer, .*, not \[1\]"),
    ({"model": 7}, "model is a str, not 7"),
    ({"model": ["echo"]}, r"model is a str, not \['echo'\]"),
    ({"version": None}, 'version is a number, a label, or "" for the default, not None'),
    ({"version": 1.0}, 'version is a number, a label, or "" for the default, not 1.0'),
    ({"outputs": 7}, "outputs is a list of names, a name, or None for all, not 7"),
    ({"outputs": [1]}, "outputs is a list of names, a name, or None for all, not .*1"),
    ({"outputs": [["x"]]}, "outputs is a list of names, a name, or None for all, not .*'x'"),
]


@pytest.mark.parametrize(("arguments", "text"), WRONG)
def test_an_argument_of_a_wrong_type_is_named(server, client, arguments, text) -> None:
    given = {"model": "echo", **arguments}
    name = given.pop("model")
    with pytest.raises(TypeError, match=text):
        client.predict(name, {"x": X}, **given)
    with pytest.raises(TypeError, match=text):
        list(client.predict_stream(name, [{"x": X}], **given))
    assert server.requests == []


def test_a_priority_of_more_than_32_bits_is_named(server, client) -> None:
    with pytest.raises(ValueError, match="priority is -2147483648 to 2147483647, not 2147483648"):
        client.predict("echo", {"x": X}, priority=2**31)
    assert client.predict("echo", {"x": X}, priority=np.int64(2**31 - 1))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"timeout": "1"}, "a timeout is a number of seconds above 0, not '1'"),
        ({"max_pending": "1"}, "max_pending is an integer, 1 to 16256, not '1'"),
        ({"max_pending": 1.5}, "max_pending is an integer, 1 to 16256, not 1.5"),
        ({"metadata": {"k": 1}}, "metadata is a str, or bytes, for a str, not 1 for 'k'"),
        ({"metadata": [(1, "v")]}, "metadata is a str, or bytes, for a str, not 'v' for 1"),
    ],
)
def test_a_setting_of_a_wrong_type_is_named(server, connect, settings, text) -> None:
    with pytest.raises(TypeError, match=text):
        connect(server.target, **settings)


def test_other_methods_name_an_argument_of_a_wrong_type(server, client) -> None:
    for call, text in (
        (lambda: client.model(7), "name is a str, not 7"),
        (lambda: client.model("echo", None), 'version is a number, a label, or "" for the default, not None'),
        (lambda: client.health(7), "model is a str, not 7"),
        (lambda: list(client.predict_stream("echo", [], max_in_flight="1")), "max_in_flight is an integer"),
    ):
        with pytest.raises(TypeError, match=text):
            call()
    for arguments, text in (
        ({"attempts": "3"}, "attempts is an integer, at least 1, not '3'"),
        ({"budget": "1"}, "budget is a number, 0 to 1, not '1'"),
        ({"max_wait": None}, "max_wait is a number of seconds above 0, not None"),
    ):
        with pytest.raises(TypeError, match=text):
            penstock_client.Retry(**arguments)


def test_a_timeout_of_numpy_is_not_rounded_to_the_past(server, client) -> None:
    """Added to the clock as float32, two seconds were over at once."""
    for timeout in (np.float32(20), np.float64(20), np.int64(20)):
        assert client.predict("echo", {"x": X}, timeout=timeout)["x"].tolist() == X.tolist()


def test_an_error_has_the_id_of_its_call(server, client) -> None:
    def failed(*arguments, **settings) -> penstock_client.PenstockError:
        with pytest.raises(penstock_client.PenstockError) as caught:
            client.predict(*arguments, **settings)
        return caught.value

    assert failed("none", {"x": X}, id="first").id == "first"
    assert failed("echo", {"x": "no number"}, id="second").id == "second"
    assert client.predict("echo", {"x": X}, id="third").id == "third"
    server.answer = lambda _: status(grpc.StatusCode.INTERNAL, "no")
    assert failed("echo", {"x": X}, id="fourth").id == "fourth"
    assert failed("echo", {"x": X}).id == ""


@pytest.mark.parametrize("id", [None, 0, b"", 7])
def test_an_id_that_is_no_text_is_named_in_every_call(server, client, id) -> None:
    """Once a stream was open, those that are false passed as no id."""
    for _ in range(2):
        with pytest.raises(TypeError, match=f"an id is a str, not {id!r}"):
            client.predict("echo", {"x": X}, id=id)
        assert client.predict("echo", {"x": X}).id == ""
    assert len(server.requests) == 2


def test_each_of_many_callers_gets_an_error_with_its_own_id(server, client) -> None:
    assert client.predict("echo", {"x": X})
    server.answer = lambda _: status(grpc.StatusCode.UNAUTHENTICATED, "no")

    def id_of(id: str) -> str:
        with pytest.raises(penstock_client.Unauthenticated) as caught:
            client.predict("echo", {"x": X}, id=id)
        return caught.value.id

    ids = [f"call {number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(id_of, ids)) == ids


def test_a_timeout_says_what_was_waited_for(server, client) -> None:
    assert client.predict("echo", {"x": X})
    release = threading.Event()
    server.answer = lambda request: release.wait(20) and echo(request)
    try:
        with pytest.raises(penstock_client.DeadlineExceeded) as caught:
            client.predict("echo", {"x": X}, timeout=0.25, id="late")
    finally:
        release.set()
    assert str(caught.value) == 'the timeout of 0.25 s passed before model "echo" answered'
    assert caught.value.id == "late"


def test_a_timeout_of_other_calls_says_what_was_waited_for(server, connect) -> None:
    client = connect(server.target, timeout=0.25)
    release = threading.Event()
    server._note = lambda *_: release.wait(20)
    try:
        with pytest.raises(penstock_client.DeadlineExceeded) as caught:
            client.models()
        assert str(caught.value) == "the timeout of 0.25 s passed before the server answered"
        with pytest.raises(penstock_client.DeadlineExceeded) as caught:
            client.predict("echo", {"x": X})
        assert str(caught.value) == 'the timeout of 0.25 s passed before model "echo" answered'
    finally:
        release.set()
