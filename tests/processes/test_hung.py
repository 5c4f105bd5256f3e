"""A run that hangs in one of several processes: what the supervisor makes of it."""

from __future__ import annotations

import os
import signal

import grpc
import numpy as np

from penstock.core.tensors import DataType
from processes.conftest import SHORT_LIVED
from processes.kit import children
from server import kit
from server.test_isolation import HUNG, ON_RUNNERS, endless, rounds
from support import zoo

ROUNDS = {"rounds": zoo.as_slow_as_asked()}


def events(server) -> list[str]:
    return [each["event"] for each in kit.problems(server)]


def test_a_process_whose_polling_thread_hangs_is_replaced(serve) -> None:
    env = HUNG | SHORT_LIVED | {"PENSTOCK_SERVER__DRAIN_SECONDS": "0"}
    server = serve(ROUNDS, env=env, settings={"rounds": "inline = true"})
    before = children(server.pid)
    with kit.connect(server.target) as channel:
        future = kit.stub_of(channel).Predict.future(endless(), timeout=kit.BOUND)
        kit.wait_until(lambda: "a process is stuck and is replaced" in events(server), "it is seen")
        kit.wait_until(lambda: len(set(children(server.pid)) - set(before)) == 1, "another one comes")
        kit.wait_until(lambda: len(children(server.pid)) == 2, "the old one is gone")
        assert kit.code_of_future(future) is grpc.StatusCode.UNAVAILABLE
    assert len(set(children(server.pid)) & set(before)) == 1
    for _ in range(8):
        with kit.connect(server.target) as channel:
            assert kit.stub_of(channel).Predict(rounds(1), timeout=kit.BOUND).model == "rounds"
    assert kit.get(f"{server.ops}/readyz") == (200, "ok\n")


def test_a_process_that_is_stuck_is_replaced_once(serve) -> None:
    """Also if what hangs there changes while the one that takes its place is still starting."""
    env = HUNG | SHORT_LIVED | {"PENSTOCK_SERVER__DRAIN_SECONDS": "0"}
    models = ROUNDS | {"other": zoo.as_slow_as_asked()}
    server = serve(models, env=env, settings={"rounds": "inline = true", "other": "inline = false"})
    before = children(server.pid)

    def hanging(*names: str) -> bool:
        words = f"ok, but in some processes a run of {', '.join(names)} hangs\n"
        return kit.get(f"{server.ops}/readyz")[1] == words

    with kit.connect(server.target) as channel:
        stub = kit.stub_of(channel)
        other = kit.request("other", x=kit.raw(np.array([[2**62]]), DataType.INT64))
        calls = [stub.Predict.future(other, timeout=3)]
        kit.wait_until(lambda: hanging("other"), "one hangs on a thread of its own")
        calls.append(stub.Predict.future(endless(), timeout=kit.BOUND))
        kit.wait_until(lambda: len(children(server.pid)) == 3, "another process is started")
        [started] = set(children(server.pid)) - set(before)
        os.kill(started, signal.SIGSTOP)
        kit.wait_until(lambda: hanging("rounds"), "the first run is ended at its deadline")
        os.kill(started, signal.SIGCONT)
        assert [kit.code_of_future(call) for call in calls][1] is grpc.StatusCode.UNAVAILABLE
    server.wait_for_log("all processes are restarted")
    assert events(server).count("a process is stuck and is replaced") == 1
    assert started in children(server.pid)


def test_a_model_that_hangs_in_one_process_is_named_and_one_that_does_everywhere_is_not_ready(serve) -> None:
    server = serve(ROUNDS, env=HUNG | ON_RUNNERS)
    channels, calls = [], []

    def readyz() -> tuple[int, str]:
        return kit.get(f"{server.ops}/readyz")

    def one_more() -> bool:
        channels.append(kit.connect(server.target))
        calls.append(kit.stub_of(channels[-1]).Predict.future(endless(), timeout=kit.BOUND))
        return readyz()[0] == 503

    one_more()
    kit.wait_until(
        lambda: readyz() == (200, "ok, but in some processes a run of rounds hangs\n"), "it is named"
    )
    kit.wait_until(one_more, "both have one")
    assert readyz() == (503, "a run of rounds hangs in every process\n")
    for call in calls:
        call.cancel()
    kit.wait_until(lambda: readyz() == (200, "ok\n"), "all runs have ended")
    for channel in channels:
        channel.close()
    assert "a process is stuck and is replaced" not in events(server)
