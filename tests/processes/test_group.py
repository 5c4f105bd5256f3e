"""Several processes look like one server."""

from __future__ import annotations

import os
import signal
import urllib.request

from grpc_health.v1 import health_pb2, health_pb2_grpc

from processes.kit import X, children, loaded_files, pids_of
from server import kit
from support import zoo

SERVING = health_pb2.HealthCheckResponse.SERVING


def predict(server, times: int = 1, model: str = "identity") -> None:
    """Predictions, each on a connection of its own and so with any of the processes."""
    for _ in range(times):
        with kit.connect(server.target) as channel:
            kit.stub_of(channel).Predict(kit.request(model, x=X), timeout=kit.BOUND)


def test_the_supervisor_serves_nothing_itself(serve) -> None:
    server = serve({"identity": zoo.identity()}, fresh=True)  # one that is forked has loaded everything
    assert len(children(server.pid)) == 2
    libraries = loaded_files(server.pid)
    assert "cygrpc" not in libraries
    assert "onnxruntime" not in libraries
    assert all("cygrpc" in loaded_files(pid) for pid in children(server.pid))


def test_the_split_is_printed(group) -> None:
    [line] = [line for line in group.stdout.splitlines() if line.startswith("processes ")]
    cores = len(os.sched_getaffinity(0))
    assert line.split()[1:5] == ["2", "on", str(cores), "cores:" if cores > 1 else "core,"]


def test_metrics_are_one_answer_for_all(group) -> None:
    before = kit.Metrics(group.ops)
    predict(group, 30)
    wanted = before.sum("requests_total") + 30
    kit.wait_until(lambda: kit.metric(group.ops, "requests_total") == wanted, "all are counted")
    after = kit.Metrics(group.ops)

    def grown(name: str, **labels: str) -> float:
        return after.sum(name, **labels) - before.sum(name, **labels)

    assert grown("requests_total", model="identity", code="OK") == 30
    assert grown("request_seconds_count", model="identity") == 30
    assert grown("request_seconds_bucket", model="identity", le="+Inf") == 30
    assert grown("rows_total", model="identity") == 30
    assert after.sum("processes") == 2
    assert after.sum("model_info", model="identity") == 1
    memory = {
        each.labels["process"]: each.value
        for each in after.samples
        if each.name == "process_resident_memory_bytes"
    }
    assert memory.keys() == {"supervisor", "1", "2"}
    assert min(memory.values()) > 10_000_000
    assert len(after.series()) == len(after.samples), "a series comes twice"


def test_metrics_come_in_the_format_that_is_asked_for(group) -> None:
    wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
    request = urllib.request.Request(f"{group.ops}/metrics", headers=wanted)
    with urllib.request.urlopen(request, timeout=kit.BOUND) as answer:
        page = answer.read().decode()
    assert page.rstrip().endswith("# EOF")
    assert "penstock_processes 2.0" in page


def test_health_is_the_same_whoever_answers(group) -> None:
    for _ in range(10):
        with kit.connect(group.target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for service in ("", "identity"):
                request = health_pb2.HealthCheckRequest(service=service)
                assert stub.Check(request, timeout=kit.BOUND).status == SERVING
    assert kit.get(f"{group.ops}/readyz") == (200, "ok\n")
    assert kit.get(f"{group.ops}/livez") == (200, "ok\n")


def test_a_crash_is_noticed_and_hurts_nobody_else(serve) -> None:
    server = serve({"identity": zoo.identity()})
    predict(server, 20)
    kit.wait_until(lambda: kit.metric(server.ops, "requests_total") == 20, "all are counted")
    first = pids_of(server)
    os.kill(first[1], signal.SIGKILL)
    event = server.wait_for_log("a process ended unexpectedly")
    assert f'"worker_pid": {first[1]}, "signal": "SIGKILL"' in event
    kit.wait_until(lambda: kit.metric(server.ops, "processes") == 2, "another takes its place")
    second = pids_of(server)
    assert second[2] == first[2]
    assert second[1] != first[1]
    assert children(server.pid) == sorted(second.values())
    predict(server, 20)
    kit.wait_until(lambda: kit.metric(server.ops, "requests_total") == 40, "all are counted, none forgotten")
    assert kit.metric(server.ops, "process_restarts_total", process="1") == 1
    assert kit.metric(server.ops, "process_restarts_total", process="2") == 0
    os.kill(second[1], signal.SIGSEGV)  # again, and soon
    kit.wait_until(lambda: len(crashes(server)) == 2, "it is noticed")
    assert [each["restart_in_seconds"] for each in crashes(server)] == [0.0, 0.5]
    kit.wait_until(lambda: kit.metric(server.ops, "processes") == 2, "another takes its place")
    assert pids_of(server)[2] == first[2]


def crashes(server) -> list[dict]:
    return [each for each in kit.logged(server) if each["event"] == "a process ended unexpectedly"]
