import asyncio
import pickle
import threading

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.rpc import status_pb2

import penstock_client
from client.standin import StandIn, abort, status
from penstock_client import _errors

X = np.ones((1, 3), np.float32)
FAILURES = [each for each in grpc.StatusCode if each is not grpc.StatusCode.OK]
CLASSES = {
    grpc.StatusCode.INVALID_ARGUMENT: penstock_client.InvalidInput,
    grpc.StatusCode.NOT_FOUND: penstock_client.NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: penstock_client.FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: penstock_client.Exhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: penstock_client.DeadlineExceeded,
    grpc.StatusCode.CANCELLED: penstock_client.Cancelled,
    grpc.StatusCode.UNAVAILABLE: penstock_client.Unavailable,
    grpc.StatusCode.UNAUTHENTICATED: penstock_client.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: penstock_client.PermissionDenied,
    grpc.StatusCode.INTERNAL: penstock_client.ModelFailed,
}


def check(error: penstock_client.PenstockError, code: grpc.StatusCode) -> None:
    assert type(error) is CLASSES.get(code, penstock_client.PenstockError)
    assert (error.status, error.message, str(error)) == (code, "the reason", "the reason")
    assert error.retry_after_seconds == pytest.approx(1.25)


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
def test_every_status_is_one_error_on_every_transport(server, client, transport, code) -> None:
    server.answer = lambda _: status(code, "the reason", 1.25)
    with pytest.raises(penstock_client.PenstockError) as caught:
        client.predict("echo", {"x": X})
    check(caught.value, code)
    assert isinstance(caught.value.__cause__, grpc.RpcError) == (transport == "unary")
    (returned,) = client.predict_stream("echo", [{"x": X}], errors="return")
    check(returned, code)
    assert returned.index == 0
    server.stream = lambda _, context: abort(context, status(code, "the reason", 1.25))
    with pytest.raises(penstock_client.PenstockError) as caught:
        list(client.predict_stream("echo", [{"x": X}], errors="return"))
    check(caught.value, code)
    assert caught.value.index is None


def test_every_class_of_the_tree_is_in_the_table_and_public() -> None:
    assert set(penstock_client.PenstockError.__subclasses__()) == set(CLASSES.values())
    assert {each.__name__ for each in CLASSES.values()} <= set(penstock_client.__all__)


def test_without_a_hint_there_is_none(server, client) -> None:
    server.answer = lambda _: status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    with pytest.raises(penstock_client.Exhausted) as caught:
        client.predict("echo", {"x": X})
    assert caught.value.retry_after_seconds is None


def test_nobody_at_the_target_is_unavailable(connect) -> None:
    client = connect("127.0.0.1:1")
    for call in (
        lambda: client.predict("echo", {"x": X}),
        lambda: list(client.predict_stream("echo", [{"x": X}])),
        client.models,
        lambda: client.model("echo"),
        client.health,
    ):
        with pytest.raises(penstock_client.Unavailable):
            call()


def test_an_unknown_model_is_not_found(server, client) -> None:
    for call in (
        lambda: client.predict("none", {"x": X}),
        lambda: list(client.predict_stream("none", [{"x": X}], errors="return")),
        lambda: client.model("none"),
    ):
        with pytest.raises(penstock_client.NotFound, match="no none; there is"):
            call()


@pytest.mark.parametrize("number", [0, 99, -1])
def test_a_number_that_is_no_failure_of_grpc_is_unknown(number) -> None:
    error = _errors.from_status(status_pb2.Status(code=number, message="odd"))
    assert type(error) is penstock_client.PenstockError
    assert error.status is grpc.StatusCode.UNKNOWN


def test_damaged_details_do_not_hide_the_error() -> None:
    damaged = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff")
    error = _errors.from_status(status_pb2.Status(code=8, message="full", details=[damaged]))
    assert isinstance(error, penstock_client.Exhausted)
    assert error.retry_after_seconds is None


def test_damaged_trailers_do_not_hide_the_error(server, client) -> None:
    def fail(request, context):
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")

    server.stream = fail
    with pytest.raises(penstock_client.Exhausted, match="full"):
        list(client.predict_stream("echo", [{"x": X}]))


def test_errors_survive_pickling() -> None:
    error = penstock_client.Exhausted("full", retry_after_seconds=2.0)
    error.index = 4
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.message, copy.retry_after_seconds, copy.index, copy.status) == (
        type(error), "full", 2.0, 4, grpc.StatusCode.RESOURCE_EXHAUSTED
    )  # fmt: skip


async def test_a_cancelled_task_is_cancelled_and_not_an_error(server: StandIn) -> None:
    called, release, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def wait(_: object) -> status_pb2.Status:
        loop.call_soon_threadsafe(called.set)
        release.wait(20)
        return status(grpc.StatusCode.INTERNAL, "too late")

    server.answer = wait
    async with penstock_client.AsyncClient(server.target) as client:
        task = asyncio.create_task(client.predict("echo", {"x": X}))
        await asyncio.wait_for(called.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
