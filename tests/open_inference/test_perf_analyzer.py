"""perf_analyzer, Triton's load generator: it runs without errors, and reports our statistics."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from open_inference import kit
from penstock_proto.inference import grpc_service_pb2 as pb
from penstock_proto.inference import grpc_service_pb2_grpc as pb_grpc
from support.servers import RunningServer

REQUESTS = 200
HTTP = "http://"
SECONDS = 15.0  # a run takes one
TRIES = 4
RUNS = {
    "sync": ("--sync", "--concurrency-range", "2"),
    "async": ("--async", "--concurrency-range", "8"),
    "streaming": ("--streaming", "--async", "--concurrency-range", "8"),
    "batch": ("--sync", "-b", "4", "--concurrency-range", "2"),
    "http": ("--sync", "--concurrency-range", "2"),
    "http async": ("--async", "--concurrency-range", "8"),
}
COUNTED = re.compile(r"^ +(Inference count|Execution count|Successful request count): (\d+)$", re.MULTILINE)
TIMES = re.compile(
    r"^ +Avg request latency: (\d+) usec \(overhead \d+ usec \+ queue (\d+) usec \+ compute input (\d+) usec"
    r" \+ compute infer (\d+) usec \+ compute output (\d+) usec\)$",
    re.MULTILINE,
)


@pytest.fixture(scope="session")
def perf_analyzer() -> Callable[..., str]:
    """Runs it with arguments, and gives what it prints."""
    python = kit.python_of("perf")
    # Its libraries: that of the CUDA runtime is in a package, which nothing tells the loader of.
    libraries = next(python.parents[1].glob("lib/*/site-packages/nvidia/cuda_runtime/lib"))
    variables = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    program = python.with_name("perf_analyzer")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=variables,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    skip_where_it_cannot_run(program, variables)
    return run


def skip_where_it_cannot_run(program: Path, variables: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, env=variables, check=False
        )
    except OSError as error:  # made for another machine
        pytest.skip(f"perf_analyzer cannot run here: {error}")
    if done.returncode:
        pytest.skip(f"perf_analyzer cannot run here: {done.stderr.strip()} (Debian has libb64-0d)")


def arguments(target: str, model: str, *more: str) -> list[str]:
    """Its arguments; a target that begins with http:// is asked over HTTP."""
    protocol = "http" if target.startswith(HTTP) else "grpc"
    url = target.removeprefix(HTTP)
    return ["-m", model, "-u", url, "-i", protocol, "--request-count", str(REQUESTS), *more]


def inferences(target: str, model: str) -> int:
    """How many a server has answered, by its own statistics."""
    with grpc.insecure_channel(target) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelStatistics(pb.ModelStatisticsRequest(name=model), timeout=SECONDS)
    return int(answer.model_stats[0].inference_count)


def run_until_it_ends(
    perf_analyzer: Callable[..., str],
    server: RunningServer,
    model: str,
    *more: str,
    expected: set[int],
    over_http: bool = False,
) -> str:
    """What it prints; whatever it does, the server has answered all of its requests.

    Of its synchronous runs about one in a hundred never ends, though no request is unanswered: with its last
    answers in hand it waits for itself.
    """
    for _ in range(TRIES):
        before = inferences(server.target, model)
        try:
            report = perf_analyzer(*arguments(server.http if over_http else server.target, model, *more))
        except subprocess.TimeoutExpired:
            report = ""
        assert inferences(server.target, model) - before in expected
        if report:
            return report
    pytest.fail(f"perf_analyzer did not end in {TRIES} runs")


@pytest.mark.parametrize("way", RUNS)
def test_it_runs_and_reports_what_the_server_did(
    oip_server: Callable[[str], RunningServer], perf_analyzer: Callable[..., str], way: str
) -> None:
    server, rows = oip_server("reactor"), 4 if way == "batch" else 1
    report = run_until_it_ends(
        perf_analyzer,
        server,
        "tiny_mlp",
        *RUNS[way],
        expected={rows * REQUESTS},
        over_http=way.startswith("http"),
    )
    assert "Failed" not in report
    assert "rror" not in report.replace("Avg gRPC", "")
    counted = {name: int(count) for name, count in COUNTED.findall(report)}
    # It first asks for the statistics when its first requests are under way: those may be left out.
    assert REQUESTS // 2 <= counted["Successful request count"] <= REQUESTS
    assert counted["Inference count"] == rows * counted["Successful request count"]
    assert 0 < counted["Execution count"] <= counted["Successful request count"]
    [times] = TIMES.findall(report)
    total, *parts = map(int, times)
    infer = parts[2]
    assert total >= infer > 0
    assert total >= sum(parts)


@pytest.mark.parametrize(("model", "shape"), [("identity_bytes", ""), ("alone", "x:2,3"), ("wide", "x:7")])
def test_it_makes_up_input_for_other_models(
    oip_server: Callable[[str], RunningServer], perf_analyzer: Callable[..., str], model: str, shape: str
) -> None:
    server = oip_server("reactor")
    rows = int(shape[2]) if model == "alone" else 1
    more = ("--shape", shape) if shape else ()
    run_until_it_ends(perf_analyzer, server, model, "--sync", *more, expected={REQUESTS, rows * REQUESTS})
