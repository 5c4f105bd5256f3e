"""The benchmarks measure what they say they measure, and notice answers that are none."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from benchmarks import bench, load, loads, lone, measures, messages
from benchmarks.load import Calls, LoadError, Shape
from benchmarks.servers import Server, ServerError, started
from benchmarks.subjects import SUBJECTS, Files

ROOT = Path(__file__).parents[2]
CALLS = 40
ANSWER = b"good answer"

pytestmark = pytest.mark.skipif(
    shutil.which("h2load") is None or shutil.which("taskset") is None or (os.cpu_count() or 1) < 2,
    reason="the benchmarks need h2load, taskset and two cores",
)


@contextmanager
def answering(answer: Callable[[int, grpc.ServicerContext], bytes]) -> Iterator[str]:
    """A server whose unary `/test/Call` answers with what it is given for each call's number."""
    lock = threading.Lock()
    numbers = iter(range(10**9))

    def call(request: bytes, context: grpc.ServicerContext) -> bytes:
        with lock:
            number = next(numbers)
        return answer(number, context)

    server = grpc.server(ThreadPoolExecutor(4))
    handlers = {"Call": grpc.unary_unary_rpc_method_handler(call)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def calls(size: int = len(ANSWER)) -> Calls:
    return Calls("/test/Call", b"request", size, size)


def core() -> int:
    return min(os.sched_getaffinity(0))


def test_good_answers_are_counted() -> None:
    with answering(lambda number, context: ANSWER) as target:
        assert load.unary(target, calls(), CALLS, Shape(2, 4), core()) > 0
        assert load.one_answer(target, calls()) == ANSWER


def test_one_error_among_good_answers_is_noticed() -> None:
    def answer(number: int, context: grpc.ServicerContext) -> bytes:
        if number == CALLS // 2:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return ANSWER

    with answering(answer) as target, pytest.raises(LoadError, match="good answers have"):
        load.unary(target, calls(), CALLS, Shape(2, 4), core())


def test_a_longer_answer_is_noticed() -> None:
    with (
        answering(lambda number, context: ANSWER * 2) as target,
        pytest.raises(LoadError, match="640 to 640"),
    ):
        load.unary(target, calls(), CALLS, Shape(1, 1), core())


def test_wrong_numbers_are_noticed(tmp_path: Path) -> None:
    files = Files(tmp_path)
    wrong = messages.echo_answer()  # of the right size, but zeros
    server = SUBJECTS["penstock"]

    with answering(lambda number, context: wrong) as target:
        given = Server(subprocess.Popen(["true"]), tmp_path, target)
        given.process.wait()
        elsewhere = Calls("/test/Call", b"request", len(wrong), len(wrong))
        subject = type(server)(server.title, server.command, lambda _: elsewhere, server.check)
        with pytest.raises(LoadError, match="answers wrong: the answer is"):
            bench.checked(given, subject, files)


def test_right_numbers_pass(tmp_path: Path) -> None:
    right = Files(tmp_path).golden
    answer = messages.pb.PredictResponse()
    answer.outputs["y"].raw = right.tobytes()
    messages.check_answer(answer.SerializeToString(), right)
    answer.outputs["y"].raw = np.nextafter(right, np.float32(9)).tobytes()[:-4]
    with pytest.raises(ValueError, match="should be"):
        messages.check_answer(answer.SerializeToString(), right)


def test_a_stall_shows_in_the_open_loop() -> None:
    def answer(number: int, context: grpc.ServicerContext) -> bytes:
        if 60 <= number < 64:  # all of the server's threads
            time.sleep(0.4)
        return ANSWER

    with answering(answer) as target:
        figure = loads.open_loop(target, calls(), 100, 1.5, core())
    # Calls that were due during the stall waited for its end, though they were not the ones that stalled.
    assert figure["max_us"] > 390_000
    assert figure["p50_us"] < figure["max_us"] / 2
    assert figure["p99_us"] > 200_000
    assert figure["rate"] == pytest.approx(100, rel=0.02)


def test_an_error_ends_the_open_loop() -> None:
    def answer(number: int, context: grpc.ServicerContext) -> bytes:
        if number == 20:
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        return ANSWER

    with answering(answer) as target, pytest.raises(LoadError, match="without a good answer"):
        loads.open_loop(target, calls(), 200, 0.5, core())


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with pytest.raises(ServerError, match="no such model"), started(command, [core()]):
        pass


def test_a_run_measures_and_says_what_it_could_not(tmp_path: Path) -> None:
    """One group, tiny: with Penstock's real server, h2load and the open loop."""
    path = tmp_path / "results.json"
    words = ["--only", "half-rate", "--rounds", "1", "--seconds", "0.2", "--json", str(path)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # progress is for terminals
    results = json.loads(path.read_text())
    [figure] = results["figures"]["half-rate"]["penstock"]
    assert figure["rate"] > 0
    assert figure["p99_us"] >= figure["p50_us"] > 0
    # In a fresh clone there is no yardstick until `make bench` has made its environment.
    measured, missing = (results[part].get("half-rate", {}) for part in ("figures", "missing"))
    assert ("yardstick-tuned" in measured) != ("yardstick-tuned" in missing)
    assert "Penstock, on both cores" in run.stdout


def test_callers_with_a_connection_each_are_run_together() -> None:
    """A call that looks alone may have others beside it, unread in their connections."""
    with bench.running({"penstock": SUBJECTS["penstock"]}, 0.1) as run:
        server = run.server("penstock")
        load.unary(server.target, run.calls("penstock"), 3000, Shape(4, 1), core())
        with urllib.request.urlopen(f"http://{server.operations}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    batches = re.search(r'penstock_batch_rows_count\{model="tiny_mlp".*\} (\S+)', text)
    assert batches is not None
    assert float(batches[1]) < 2000  # one by one they were 3001


def test_penstocks_own_count_of_answers_is_read(tmp_path: Path) -> None:
    with bench.running({"penstock": SUBJECTS["penstock"]}, 0.1) as run:
        server = run.server("penstock")  # asks once, to check the answer
        assert server.predictions() == 1
        made = measures.unary("penstock", 4)(run)
        assert made["rate"] > 0
        assert server.predictions() == 1 + bench.WARM_UP_CALLS
        unknown = replace(
            run.calls("penstock"), request=messages.pb.PredictRequest(model="x").SerializeToString()
        )
        with pytest.raises(LoadError):
            load.unary(server.target, unknown, 10, Shape(1, 1), core())
        assert server.predictions() == 1 + bench.WARM_UP_CALLS


def test_python_calls_are_those_of_the_polling_thread() -> None:
    """Requests that come in one message take fewer calls for each than single ones."""
    command = [sys.executable, "-m", "benchmarks.python_calls", "--count", "256"]
    command += ["--only", "unary-32", "stream-32", "--functions", "400"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    single, gathered = (float(each) for each in re.findall(r"(?m)^\S.* (\d+\.\d+)$", done.stdout))
    assert 1.0 < gathered < single
    assert "reactor.py:" in done.stdout


def line_of_rejected_calls(code: str) -> lone.Line:
    return lone.Line("a line", "any", lambda: Calls("/test/Call", b"request"), 1, code)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        yield running


def test_calls_that_end_with_their_status_are_counted(process: subprocess.Popen[bytes]) -> None:
    def reject(number: int, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "there is no such model")
        raise AssertionError

    with answering(reject) as target:
        server = Server(process, Path(os.devnull), target)
        calls = lone._checked(server, line_of_rejected_calls("NOT_FOUND"))
        assert load.unary(target, calls, 20, Shape(1, 2), core()) > 0
        with pytest.raises(LoadError, match="NOT_FOUND, there is no such model; expected UNAVAILABLE"):
            lone._checked(server, line_of_rejected_calls("UNAVAILABLE"))


def test_an_answer_among_rejected_calls_is_noticed(process: subprocess.Popen[bytes]) -> None:
    def mostly_reject(number: int, context: grpc.ServicerContext) -> bytes:
        if number != 12:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such model")
        return b"answer"

    with answering(mostly_reject) as target:
        calls = lone._checked(Server(process, Path(os.devnull), target), line_of_rejected_calls("NOT_FOUND"))
        with pytest.raises(LoadError, match="bytes"):
            load.unary(target, calls, 20, Shape(1, 1), core())


def test_an_answer_where_a_rejection_is_expected_is_noticed(process: subprocess.Popen[bytes]) -> None:
    with answering(lambda number, context: b"answer") as target:
        server = Server(process, Path(os.devnull), target)
        with pytest.raises(LoadError, match="answered; expected NOT_FOUND"):
            lone._checked(server, line_of_rejected_calls("NOT_FOUND"))
