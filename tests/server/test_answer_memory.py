"""Answers that nobody reads: how much of them the server holds, and that each accepted request ends once."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from penstock.core.tensors import DataType
from server import kit
from support import zoo
from support.servers import RunningServer

MB = 1_000_000
WIDTH = 500_000  # FP32: answers of 2 MB
STREAMS, REQUESTS = 4, 30
STANDSTILL_SECONDS = 0.3
TOTAL = 12 * MB
BOUNDS = {
    "PENSTOCK_SERVER__STREAM_ANSWER_BYTES": str(4 * MB),
    "PENSTOCK_SERVER__CALLER_ANSWER_BYTES": str(8 * MB),
    "PENSTOCK_SERVER__TOTAL_ANSWER_BYTES": str(TOTAL),
    "PENSTOCK_SERVER__MAX_ANSWER_BYTES": str(3 * MB),
}
TOO_LARGE = grpc.StatusCode.RESOURCE_EXHAUSTED
MOST_GROWTH = 5 * TOTAL
"""Of the memory: an answer that is being sent takes it twice; runs and the allocator take some."""

FEW = 20
ARENA = 8 / 256
OTHER = 2 * MB
"""What handling a call may take besides."""


class Peak:
    """The largest memory of a server while it is watched, as the kernel counts it."""

    def __init__(self, server: RunningServer) -> None:
        self._folder = Path(f"/proc/{server.pid}")
        (self._folder / "clear_refs").write_text("5")  # counts from now on

    def bytes(self) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    def settled(self) -> int:
        """Once it stands still."""
        before, now = -1, self.bytes()
        while now != before:
            time.sleep(STANDSTILL_SECONDS)
            before, now = now, self.bytes()
        return now


@pytest.fixture
def server(serve) -> RunningServer:
    """Its models answer with 2 MB, which the signature tells of one and not of the other."""
    models = {
        "fixed": zoo.widened(WIDTH),
        "open": zoo.widened(WIDTH, named="W"),
        "small": zoo.identity(),
    }
    return serve(models, env=BOUNDS)


@pytest.mark.alone
def test_answers_that_nobody_reads_are_few_and_those_that_are_too_large_are_errors(server) -> None:
    """Streams ask for 60 MB each. Later they read, and everything is there, in order."""
    small = kit.request("small", x=kit.rows(1))
    with ExitStack() as stack:
        own = stack.enter_context(kit.connect(server.target))
        for model in ("fixed", "open"):
            # The first run takes memory for later ones.
            kit.stub_of(own).Predict(kit.request(model, x=kit.rows(1, width=1)), timeout=kit.BOUND)
            two_rows = kit.request(model, x=kit.rows(2, width=1))
            future = kit.stub_of(own).Predict.future(two_rows, timeout=kit.BOUND)
            assert kit.code_of_future(future) is TOO_LARGE
            [result] = kit.stream_all(own, [kit.message(two_rows)])
            assert result.error.code == TOO_LARGE.value[0]
            peak = Peak(server)
            before = peak.bytes()
            channels = [stack.enter_context(kit.connect(server.target)) for _ in range(STREAMS)]
            streams = [kit.Stream(channel) for channel in channels]
            for tag in range(1, REQUESTS + 1):
                for stream in streams:
                    stream.send(kit.request(model, x=kit.rows(1, tag, width=1), tag=tag))
            grown = peak.settled() - before
            assert grown < MOST_GROWTH, f"{model}: {grown / MB} MB"
            assert kit.stub_of(own).Predict(small, timeout=kit.BOUND)  # a caller beside them
            streams.pop().cancel()
            for stream in streams:
                stream.half_close()
            for stream in streams:
                assert [each.tag for each in stream.rest()] == list(range(1, REQUESTS + 1))
            assert peak.bytes() - before < MOST_GROWTH
    kit.wait_until(lambda: kit.is_idle(server.ops), "nothing is left")
    assert kit.problems(server) == []


def test_one_large_answer_takes_three_times_its_size(serve) -> None:
    """Once in ONNX Runtime, which keeps that for later runs, once as a message and once more in gRPC.

    ONNX Runtime's arena has 8 more bytes for every 256 that it gives.
    """
    server = serve({"wide": zoo.widened(16 * WIDTH, named="W"), "small": zoo.identity()})
    size = 16 * WIDTH * 4
    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        raw = kit.request("wide", x=kit.rows(1, width=1))
        typed = kit.request("wide", x=kit.typed([[1]], DataType.FP32))
        for _ in range(FEW):
            stub.Predict(kit.request("small", x=kit.rows(1)), timeout=kit.BOUND)
        peak = Peak(server)
        before = peak.bytes()

        def is_returned() -> bool:
            # grpc.aio lets go of a call only when others come.
            stub.Predict(kit.request("small", x=kit.rows(1)), timeout=kit.BOUND)
            return Peak(server).bytes() - before < size + size * ARENA + OTHER

        for request in (raw, typed, raw):
            for call in (
                lambda request=request: stub.Predict(request, timeout=kit.BOUND),
                lambda request=request: kit.stream_all(channel, [kit.message(request)]),
            ):
                call()
                grown = peak.bytes() - before
                assert grown < 3 * size + size * ARENA + OTHER, grown / size
                kit.wait_until(is_returned, "what gRPC took is returned")
