"""One model on a server of its own, called alone and by many at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from penstock_client import Client, PenstockError
from tests.support.servers import SCRIPT, RunningServer
from tests.zoo.bare import Bare
from tests.zoo.compare import Compared
from tests.zoo.packages import ZooModel

CALLERS = 16
CALL_SECONDS = 30.0
BUDGET_SECONDS = 6.0
"""Once this has passed, the callers send no more than `LEAST_TURNS` requests."""
LEAST_TURNS = 3
TURNS = 48
"""Requests of each caller, if there is time."""
BURST = 8
BURSTS = 5
TOOLS = Path(__file__).parents[2] / ".venv-tools" / "bin"
ALONE = "[batching]\nenabled = false\n"


class NotServedError(Exception):
    """The server did not start with a model."""


@dataclass
class Start:
    """A start of a server with one model.

    Attributes:
        seconds: until it answers.
        resident: memory once it answers, in MiB.
        burst_seconds: the median over the answers to `BURST` calls at once; 0 if not measured.
    """

    seconds: float = 0.0
    resident: float = 0.0
    burst_seconds: float = 0.0


@dataclass
class Served:
    """How a model was served.

    Attributes:
        batched: whether its requests run together.
        reason: why, in the server's words.
        alone: the answers to one call after another, compared with ONNX Runtime's.
        together: those to 16 callers at once, compared with the answers alone.
        shared: how many of those came from a run of several requests.
        start: its start.
        peak: the most memory over all, in MiB.
        line: the line to try that the server prints; "" if it prints none.
        line_failed: what came of it; "" if it was answered, None if it could not be tried.
        failed: why the model was not served at all; "" if it was.
    """

    batched: bool = False
    reason: str = ""
    alone: Compared = field(default_factory=Compared)
    together: Compared = field(default_factory=Compared)
    shared: int = 0
    start: Start = field(default_factory=Start)
    peak: float = 0.0
    line: str = ""
    line_failed: str | None = None
    failed: str = ""


def serve(model: ZooModel, found: Bare, models: Path, scratch: Path) -> Served:
    """Serves a model as it comes.

    Args:
        model: the model.
        found: what it gives without a server.
        models: the folder with the fetched models.
        scratch: an empty folder, to be removed by the caller.
    """
    served = Served()
    try:
        with running(model, models, scratch) as (server, start), Client(server.target) as client:
            served.start = start
            info = client.model(model.name)
            served.batched, served.reason = info.batching.enabled, info.batching.reason
            _try_line(server, served)
            served.alone, answers = call_one_by_one(client, model, found)
            if answers:
                served.together, served.shared = call_at_once(client, model, found, answers)
            served.peak = memory(server.pid, "VmHWM")
            if server.process.poll() is not None:
                served.failed = f"the server ended with {server.process.returncode}"
    except NotServedError as error:
        served.failed = str(error)
    except (AssertionError, PenstockError) as error:
        served.failed = " ".join(str(error).split())[:200]
    return served


def measured(model: ZooModel, found: Bare, models: Path, scratch: Path, settings: str) -> Start:
    """A start of its own, and the answers to bursts of calls.

    Args:
        model: the model.
        found: what it gives without a server.
        models: the folder with the fetched models.
        scratch: an empty folder, to be removed by the caller.
        settings: the text of its model.toml.
    """
    with running(model, models, scratch, settings) as (server, start), Client(server.target) as client:
        for feed in found.requests[:3]:
            client.predict(model.name, feed, timeout=CALL_SECONDS)
        start.burst_seconds = median(_burst(client, model, found) for _ in range(BURSTS))
    return start


@contextmanager
def running(
    model: ZooModel, models: Path, scratch: Path, settings: str = ""
) -> Iterator[tuple[RunningServer, Start]]:
    """A server with one model, which has never seen it before."""
    repository = lay_out([model], models, scratch / "models")
    if settings:
        (repository / model.name / "model.toml").write_text(settings)
    started = time.monotonic()
    # Any free port, also of HTTP: another server on this machine may have the usual one.
    server = RunningServer(repository, "--http-port", "0", env={"XDG_CACHE_HOME": str(scratch / "cache")})
    try:
        try:
            server.wait_until_ready()
        except AssertionError:
            raise NotServedError(_why_not(server)) from None
        yield server, Start(time.monotonic() - started, memory(server.pid, "VmRSS"))
        if server.process.poll() is None:
            server.stop()
    finally:
        server.close()


def lay_out(models: list[ZooModel], folder: Path, root: Path) -> Path:
    """A repository of models that were fetched to a folder."""
    for model in models:
        version = root / model.name / "1"
        version.mkdir(parents=True)
        source = model.path(folder)
        shutil.copyfile(source, version / "model.onnx")
        for name in model.files:
            shutil.copyfile(source.with_name(Path(name).name), version / Path(name).name)
    return root


def memory(pid: int, line: str) -> float:
    """A line of /proc/PID/status, such as VmRSS or VmHWM, in MiB; 0 if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0.0
    found = re.search(rf"^{line}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def call_one_by_one(client: Client, model: ZooModel, found: Bare) -> tuple[Compared, list[dict[str, Any]]]:
    """Sends one request after another.

    Returns:
        What comparing the answers with ONNX Runtime's gave, and the answers; none if a call failed.
    """
    compared, answers = Compared(), []
    for feed, expected in zip(found.requests, found.alone, strict=True):
        try:
            answer = dict(client.predict(model.name, feed, timeout=CALL_SECONDS))
        except PenstockError as error:
            compared.answers += 1
            compared.failed(_said(error))
            return compared, []
        compared.take(model, expected, answer)
        answers.append(answer)
    return compared, answers


def call_at_once(
    client: Client, model: ZooModel, found: Bare, answers: Sequence[Mapping[str, Any]], turns: int = TURNS
) -> tuple[Compared, int]:
    """Sends all requests again, from 16 threads.

    Args:
        client: a connection to the server.
        model: the model.
        found: what was sent before.
        answers: to each request alone.
        turns: how many requests each thread sends; fewer where that takes long.

    Returns:
        What comparing the answers with those alone gave, and how many of them came from a run of several
        requests.
    """
    end = time.monotonic() + BUDGET_SECONDS
    barrier = threading.Barrier(CALLERS)
    lock = threading.Lock()
    total, together = Compared(), 0

    def call(caller: int) -> None:
        nonlocal together
        compared, shared = Compared(), 0
        barrier.wait()
        for turn in range(turns):
            if turn >= LEAST_TURNS and time.monotonic() > end:
                break
            # Neighbours send the requests in another order, so that the company of each one changes.
            place = (caller + turn * (1 + 2 * (caller % 4))) % len(answers)
            try:
                answer = client.predict(model.name, found.requests[place], timeout=CALL_SECONDS)
            except PenstockError as error:
                compared.answers += 1
                compared.failed(_said(error))
                continue
            shared += answer.timing.batch_rows > _rows(model, found.requests[place])
            compared.take(model, answers[place], answer)
        with lock:
            total.add(compared)
            together += shared

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(CALLERS)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    return total, together


def _rows(model: ZooModel, feed: Mapping[str, Any]) -> int:
    """The rows of a request, as far as the server could count them."""
    lengths = [
        feed[name].shape[settings.get("axis", 0)]
        for name, settings in model.inputs.items()
        if feed[name].ndim and settings.get("axis", 0) != "none"
    ]
    return max(lengths, default=1)


def _burst(client: Client, model: ZooModel, found: Bare) -> float:
    """The median time until the answer, of calls at once."""
    times: list[float] = []
    barrier = threading.Barrier(BURST)

    def call(place: int) -> None:
        barrier.wait()
        started = time.perf_counter()
        client.predict(model.name, found.requests[place], timeout=CALL_SECONDS)
        times.append(time.perf_counter() - started)

    callers = [threading.Thread(target=call, args=(place,)) for place in range(BURST)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    return sorted(times)[BURST // 2]


def _try_line(server: RunningServer, served: Served) -> None:
    """Runs the line to try in a shell, as somebody would who copies it."""
    end = time.monotonic() + 2.0
    while "Try it" not in server.stdout and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.1)
    served.line = server.stdout.partition("Try it:\n")[2].strip()
    if not served.line:
        return
    path = os.pathsep.join([str(SCRIPT.parent), str(TOOLS), os.environ["PATH"]])
    if shutil.which(served.line.split()[0], path=path) is None:
        return
    ended = subprocess.run(
        ["bash", "-c", served.line],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )
    said = " ".join((ended.stderr or ended.stdout).split())
    served.line_failed = "" if ended.returncode == 0 else said[:200] or f"exit code {ended.returncode}"


def _why_not(server: RunningServer) -> str:
    """Why a server has not started: the last error that it prints, without the path of the file."""
    errors = [line for line in server.stderr if line.startswith("Error: ")]
    if not errors:
        return "the server did not start in time"
    said = re.sub(r"\S*/model\.onnx", "the file", errors[-1].removeprefix("Error: "))
    return said.partition(", when it ran on")[0][:200]


def _said(error: PenstockError) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
