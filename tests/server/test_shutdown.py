"""SIGTERM: health first, then everything that was accepted is answered, and nothing hangs."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server import kit
from server.conftest import ALONE
from support import zoo

ONE, ROW = np.ones((1, 1), np.float32), np.ones((1, 3), np.float32)
WIDE = zoo.identity(kit.DataType.FP32, ("N", "L"))
LINGER = "PENSTOCK_SERVER__LINGER_SECONDS"
OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


def models(milliseconds: float):
    return {"slow": zoo.slow(milliseconds), "identity": zoo.identity()}


def slow(**fields):
    return kit.request("slow", x=ONE, **fields)


def serve_long_runs(serve, *flags: str, exit_code: int | None):
    """A server whose model "slow" loads quickly and runs as long as `long` asks, on a thread of its own."""
    env = {"PENSTOCK_RUNNERS__INLINE_BELOW_SECONDS": "0"}
    models = {"slow": zoo.as_slow_as_asked()}
    return serve(models, *flags, settings={"slow": ALONE}, env=env, exit_code=exit_code)


def long():
    """A request whose run takes 1.5 seconds."""
    return kit.request("slow", x=kit.raw(np.array([[zoo.rounds_in(1500)]]), kit.DataType.INT64))


class Watcher:
    """Watches a server's health on a thread, and keeps what it saw and when."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.call = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=kit.BOUND
        )
        self.seen = [next(self.call).status]
        self.code: grpc.StatusCode | None = None
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        try:
            self.seen.extend(each.status for each in self.call)
        except grpc.RpcError as error:
            self.code = error.code()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_calls_are_accepted_until_it_has_been_noticed(serve, processes: str) -> None:
    """A load balancer needs a while to see that the server stops; its calls are answered meanwhile."""
    server = serve({"identity": zoo.identity()}, "--processes", processes, env={LINGER: "3"})
    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        assert stub.Predict(kit.request("identity", x=ROW), timeout=kit.BOUND).version == "1"
        server.process.send_signal(signal.SIGTERM)
        kit.wait_until(lambda: kit.get(f"{server.ops}/readyz")[0] == 503, "it is not ready")
        # One of several processes hears of it a moment after the supervisor, and lingers from then on.
        stopped = health_pb2.HealthCheckResponse.NOT_SERVING
        if processes == "1":
            assert health_of(channel) == stopped
        kit.wait_until(lambda: health_of(channel) == stopped, "health says so, too")
        assert stub.Predict(kit.request("identity", x=ROW), timeout=kit.BOUND).version == "1"
        assert server.process.wait(kit.BOUND) == 0


def test_a_call_whose_message_never_comes_holds_up_no_stop(serve) -> None:
    server = serve({"identity": zoo.identity()}, "--drain-seconds", str(kit.BOUND))
    never = threading.Event()

    def messages():
        never.wait(kit.BOUND)
        yield b""

    with kit.connect(server.target) as channel:
        call = channel.stream_unary(kit.UNARY).future(messages(), timeout=2 * kit.BOUND)
        kit.wait_until(lambda: kit.metric(server.ops, "calls_in_flight") == 1, "it has come")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < kit.BOUND / 2
        assert kit.code_of_future(call) is UNAVAILABLE
        never.set()


def health_of(channel: grpc.Channel) -> int:
    check = health_pb2_grpc.HealthStub(channel).Check
    return check(health_pb2.HealthCheckRequest(), timeout=kit.BOUND).status


def test_plain_callers_see_nothing_but_what_they_may_retry(serve) -> None:
    """Calls that arrive in the last moment are rejected or lose their connection; gRPC cancels none."""
    server = serve({"identity": zoo.identity()})
    codes: set[grpc.StatusCode] = set()

    def call_until_it_is_gone() -> None:
        with kit.connect(server.target) as channel:
            stub = kit.stub_of(channel)
            while server.process.poll() is None:
                future = stub.Predict.future(kit.request("identity", x=ROW), timeout=kit.BOUND)
                codes.add(kit.code_of_future(future))

    callers = [threading.Thread(target=call_until_it_is_gone) for _ in range(4)]
    for each in callers:
        each.start()
    kit.wait_until(lambda: OK in codes, "calls are answered")
    assert server.stop() == 0
    for each in callers:
        each.join(kit.BOUND)
    assert codes == {OK, UNAVAILABLE}


def test_every_accepted_request_is_answered(serve) -> None:
    """Unary calls and streams wait in the queue when the signal comes; all of them get their answers."""
    server = serve(models(10), "--drain-seconds", "25", settings={"slow": ALONE})
    with kit.connect(server.target) as channel, kit.connect(server.target) as other:
        watcher = Watcher(other)
        stub = kit.stub_of(channel)
        futures = [stub.Predict.future(slow(), timeout=kit.BOUND) for _ in range(50)]
        streams = [kit.Stream(channel) for _ in range(5)]
        for stream in streams:
            stream.send(*[slow(tag=n) for n in range(10)])
        kit.wait_until(lambda: kit.accepted(server.ops) == 100, "all are accepted")
        server.process.send_signal(signal.SIGTERM)
        kit.wait_until(lambda: kit.get(f"{server.ops}/readyz")[0] == 503, "not ready any more")
        assert kit.get(f"{server.ops}/livez")[0] == 200
        assert Counter(map(kit.code_of_future, futures)) == {OK: 50}
        for stream in streams:
            results, code = stream.rest_and_code()
            stream.half_close()
            assert [each.tag for each in results] == list(range(10))
            assert not any(each.HasField("error") for each in results)
            assert code is UNAVAILABLE
            assert "stopping" in stream.call.details()
        assert server.wait() == 0
        watcher.thread.join(kit.BOUND)
        serving, stopped = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        assert watcher.seen == [serving, stopped]
        assert watcher.code is UNAVAILABLE
    assert [each.get("exception", each) for each in kit.problems(server)] == []


def test_health_flips_before_work_is_drained(serve) -> None:
    server = serve({"slow": zoo.slow(20), "wide": WIDE}, settings={"slow": ALONE})
    with kit.connect(server.target) as channel, kit.connect(server.target) as other:
        unread = kit.Unread(server)
        futures = [kit.stub_of(channel).Predict.future(slow(), timeout=kit.BOUND) for _ in range(3)]
        kit.wait_until(lambda: kit.accepted(server.ops, model="slow") == 3, "all are accepted")
        watcher = Watcher(other)
        server.process.send_signal(signal.SIGTERM)
        kit.wait_until(lambda: len(watcher.seen) == 2, "the watcher hears of it")
        asked = health_pb2_grpc.HealthStub(other).Check(health_pb2.HealthCheckRequest(), timeout=kit.BOUND)
        assert asked.status == health_pb2.HealthCheckResponse.NOT_SERVING
        refusals: list[str] = []
        kit.wait_until(
            lambda: is_rejected(other, refusals), "calls are rejected, a moment after health says so"
        )
        assert "stopping" in refusals[0]
        assert {kit.code_of_future(each) for each in futures} == {OK}
        assert server.process.poll() is None
        results, code = unread.read()
        assert [each.tag for each in results] == list(range(kit.Unread.COUNT))
        assert code is UNAVAILABLE
        assert server.wait() == 0
        watcher.thread.join(kit.BOUND)


def is_rejected(channel: grpc.Channel, details: list[str]) -> bool:
    """Whether a request is rejected as the server stops; collects the details."""
    future = kit.stub_of(channel).Predict.future(slow(), timeout=kit.BOUND)
    code = kit.code_of_future(future)
    details += [future.details()] * (code is UNAVAILABLE)
    return bool(details)


@pytest.mark.parametrize("model", ["slow", "identity"])
def test_a_stop_under_load(serve, model) -> None:
    """Whatever is sent while the server stops is answered or ends UNAVAILABLE; nothing else, no hang."""
    server = serve(models(1), settings={"slow": ALONE}, env={"PENSTOCK_SERVER__MAX_STREAM_REQUESTS": "100"})
    x = ONE if model == "slow" else kit.rows(1)
    halt = threading.Event()
    unary: Counter[grpc.StatusCode] = Counter()
    streams: list[tuple[int, int, grpc.StatusCode]] = []

    def call_often() -> None:
        with kit.connect(server.target) as channel:
            stub = kit.stub_of(channel)
            while not halt.is_set():
                futures = [stub.Predict.future(kit.request(model, x=x), timeout=kit.BOUND) for _ in range(8)]
                unary.update(map(kit.code_of_future, futures))

    def stream_on() -> None:
        with kit.connect(server.target) as channel:
            stream, tags, code = kit.Stream(channel), [], None
            sender = threading.Thread(target=send_on, args=(stream,))
            sender.start()
            results, code = stream.rest_and_code()
            tags = [each.tag for each in results]
            errors = {each.error.code for each in results if each.HasField("error")}
            assert tags == list(range(len(tags)))  # none lost, none twice
            assert errors <= {UNAVAILABLE.value[0]}
            sender.join()
            streams.append((len(tags), stream.taken, code))

    def send_on(stream: kit.Stream) -> None:
        tag = 0
        while not halt.is_set():
            if tag - 500 < stream.taken * 5:
                stream.send(*[kit.request(model, tag=tag + n, x=x) for n in range(5)])
                tag += 5
            else:
                time.sleep(0.001)
        stream.half_close()

    workers = [threading.Thread(target=each) for each in [call_often] * 4 + [stream_on] * 4]
    for worker in workers:
        worker.start()
    kit.wait_until(lambda: kit.metric(server.ops, "requests_total") > 1000, "the load is on")
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    halt.set()
    for worker in workers:
        worker.join(kit.BOUND)
    assert not any(worker.is_alive() for worker in workers), "a caller hangs"
    # gRPC's core cancels the calls that reach it while it shuts down: those were not accepted.
    assert set(unary) <= {OK, UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert unary[OK] > 0
    assert len(streams) == 4
    assert {code for *_, code in streams} == {UNAVAILABLE}
    assert [each.get("exception", each) for each in kit.problems(server)] == []


def test_an_idle_server_with_open_streams_stops(serve) -> None:
    server = serve(models(1), settings={"slow": ALONE})
    with kit.connect(server.target) as channel:
        streams = [kit.Stream(channel) for _ in range(3)]
        streams[0].send(slow(tag=1))
        assert streams[0].next().tag == 1
        kit.wait_until(lambda: kit.metric(server.ops, "streams_open") == 3, "they are open")
        assert server.stop() == 0
        for stream in streams:
            assert stream.rest_and_code() == ([], UNAVAILABLE)
            stream.half_close()


def test_too_little_time_to_drain(serve) -> None:
    """What cannot be answered in time ends with an error, and the exit code says so."""
    server = serve(models(200), "--drain-seconds", "0.3", settings={"slow": ALONE}, exit_code=1)
    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        futures = [stub.Predict.future(slow(), timeout=10 * kit.BOUND) for _ in range(30)]
        stream = kit.Stream(channel)
        stream.send(*[slow(tag=n) for n in range(10)])
        kit.wait_until(lambda: kit.accepted(server.ops) == 40, "all are accepted")
        assert server.stop() == 1
        codes = Counter(map(kit.code_of_future, futures))
        results, code = stream.rest_and_code()
        stream.half_close()
        assert set(codes) <= {OK, UNAVAILABLE}, codes
        assert codes[UNAVAILABLE] >= 20
        assert code is UNAVAILABLE
        assert [each.tag for each in results] == list(range(len(results)))


@pytest.mark.alone
def test_a_run_that_outlasts_the_drain_does_not_hold_the_server(serve) -> None:
    server = serve_long_runs(serve, "--drain-seconds", "0.1", exit_code=1)
    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        run = stub.Predict(long(), timeout=kit.BOUND).timing.compute.ToMilliseconds() / 1000
        future = stub.Predict.future(long(), timeout=kit.BOUND)
        kit.wait_until(lambda: kit.metric(server.ops, "running_batches") == 1, "it runs")
        started = time.monotonic()
        assert server.stop() == 1
        assert time.monotonic() - started < 0.75 * run, "it waited for the run to end"
        assert kit.code_of_future(future) is UNAVAILABLE


def test_a_second_signal_ends_it_at_once(serve) -> None:
    server = serve_long_runs(serve, exit_code=None)
    with kit.connect(server.target) as channel:
        future = kit.stub_of(channel).Predict.future(long(), timeout=kit.BOUND)
        kit.wait_until(lambda: kit.metric(server.ops, "running_batches") == 1, "it runs")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log('"stopping"')
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
        assert not future.done() or kit.code_of_future(future) is UNAVAILABLE
        assert kit.code_of_future(future) is UNAVAILABLE


def test_ctrl_c_stops_it_too(serve) -> None:
    server = serve({"identity": zoo.identity()})
    assert server.stop(signal.SIGINT) == 0
    assert "stopped" in {each["event"] for each in kit.logged(server)}


def test_a_client_that_does_not_read_cannot_hold_the_stop_for_ever(serve) -> None:
    server = serve({"wide": WIDE}, "--drain-seconds", "1", exit_code=1)
    unread = kit.Unread(server)
    assert server.stop() == 1
    assert unread.read()[1] is UNAVAILABLE
