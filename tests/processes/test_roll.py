"""SIGHUP: new processes take the places of the old ones, and no caller notices."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from processes.conftest import SHORT_LIVED, TWO
from processes.kit import Load, children
from server import kit
from support import zoo
from support.servers import running_server

IDENTITY = {"identity": zoo.identity()}
SERVING = health_pb2.HealthCheckResponse.SERVING
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("transport", kit.TRANSPORTS)
def test_a_roll_under_load_refuses_and_loses_nothing(tmp_path, transport) -> None:
    path = zoo.repository(tmp_path, IDENTITY)
    with running_server(path, *TWO, "--transport", transport, env=SHORT_LIVED) as server:
        before = children(server.pid)
        load = Load(server.target)
        with load.on(Load.unary, Load.connecting, Load.streams):
            kit.wait_until(lambda: load.codes["unary", "OK"] > 100, "the load is on")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log("all processes are restarted", 40)
            after = children(server.pid)
        codes = load.codes
        assert {code for _, code, *_ in codes} == {"OK"}, codes
        answered = codes["unary", "OK"] + codes["connecting", "OK"] + 20 * codes["streams", "OK"]
        kit.wait_until(lambda: kit.metric(server.ops, "requests_total") == answered, "each is counted once")
    assert set(before).isdisjoint(after)
    assert len(after) == len(before) == 2
    assert kit.problems(server) == []


def test_streams_and_watches_that_stay_open_are_ended_in_good_order(serve) -> None:
    """All accepted requests of a stream are answered, and a watcher sees no change of the health."""
    server = serve(IDENTITY, "--drain-seconds", "0.3", env=SHORT_LIVED)
    with ExitStack() as stack:
        channels = [stack.enter_context(kit.connect(server.target)) for _ in range(6)]
        streams = [kit.Stream(each) for each in channels]
        watches = [
            health_pb2_grpc.HealthStub(each).Watch(health_pb2.HealthCheckRequest(), timeout=kit.BOUND)
            for each in channels
        ]
        for tag, stream in enumerate(streams):
            stream.send(kit.request("identity", tag=tag, x=kit.rows(1)))
            assert stream.next().tag == tag
        assert {next(each).status for each in watches} == {SERVING}
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log('"event": "leaving"')
        for tag, stream in enumerate(streams):  # on its old connection, which stays
            stream.send(kit.request("identity", tag=tag, x=kit.rows(1)))
            assert stream.next().tag == tag
        server.wait_for_log("all processes are restarted", 40)
        for stream in streams:
            assert stream.rest_and_code() == ([], UNAVAILABLE)
            assert "all accepted requests are answered" in stream.call.details()
            stream.half_close()
        for watch in watches:
            assert rest_and_code(watch) == ([], UNAVAILABLE)
    assert kit.problems(server) == []


def rest_and_code(watch) -> tuple[list[int], grpc.StatusCode]:
    seen = []
    try:
        seen.extend(each.status for each in watch)
    except grpc.RpcError as error:
        return seen, error.code()
    return seen, watch.code()


def test_new_models_come_with_a_roll_and_bad_ones_do_not(tmp_path) -> None:
    path = zoo.repository(tmp_path, {"scale": zoo.scale(2.0)})
    model = path / "scale" / "1" / "model.onnx"
    with running_server(path, *TWO, env=SHORT_LIVED) as server:
        assert scaled(server) == {2.0}
        before = children(server.pid)
        model.write_bytes(b"no model at all")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("the restart was abandoned")
        assert "model scale version 1" in server.wait_for_log("a process cannot start")
        kit.wait_until(lambda: children(server.pid) == before, "the old ones are alone")
        assert scaled(server) == {2.0}
        zoo.write(zoo.scale(3.0), model)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("all processes are restarted", 40)
        assert scaled(server) == {3.0}
        kit.assert_counted(server.ops, 30, "requests_total", model="scale")
        assert kit.metric(server.ops, "process_restarts_total") == 0


def scaled(server) -> set[float]:
    """What ten connections get for one."""
    seen = set()
    for _ in range(10):
        with kit.connect(server.target) as channel:
            answer = kit.stub_of(channel).Predict(kit.request("scale", x=kit.rows(1)), timeout=kit.BOUND)
            seen.add(float(kit.array_of(answer.outputs["y"]).flat[0]))
    return seen


def test_a_stop_does_not_wait_for_a_roll(serve) -> None:
    """Connections are kept for 30 seconds here, for which the old process waits."""
    server = serve(IDENTITY)
    with ExitStack() as stack:
        for _ in range(8):
            channel = stack.enter_context(kit.connect(server.target))
            kit.stub_of(channel).Predict(kit.request("identity", x=kit.rows(1)), timeout=kit.BOUND)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log('"event": "leaving"')
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 15
