"""How overload is measured: servers of a model that can do one thing at a time, and figures of each load."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import load, machine
from benchmarks.peers import python
from benchmarks.servers import ROOT, Server, started
from benchmarks.subjects import ENVIRONMENTS, NO_EXPERIMENTS, PROGRAMS, SCRIPT
from penstock_proto.inference import grpc_service_pb2 as oip

sys.path.insert(0, str(ROOT / "tests"))
from support import zoo

DEADLINE_SECONDS = 0.05
TOLERANCE_SECONDS = 0.001
"""The server's clock for a deadline starts when the call arrives: so much later than the client's an answer
may be without being called late."""
FACTORS = (0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0)
MODELS = {"slow": 4, "fast": 1, "long": 200}
"""By name: the milliseconds of a run."""
ROW_MILLISECONDS = 2
"""What a row costs the model `rows`, whose requests run in batches."""
SETTINGS = "runs_in_parallel = 1\n[batching]\nenabled = false\n[runtime]\nintra_op_threads = 1\n"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
HIGH, LOW = 1, 3  # levels of priority in the Open Inference Protocol
WARM_UP_SECONDS = 0.4
BURST = ((0.5, 1.0), (2.0, 2.0), (0.5, 2.0))  # multiples of the best rate, and seconds
IN_A_ROW = 10
FEWEST_ANSWERS = 20
SETTLE_SECONDS = 30.0

Figure = dict[str, Any]
Record = tuple[float, float, int, float]
"""A call: when it was due, the seconds to its end, its status, the seconds to when it had not ended yet."""


@dataclass(frozen=True)
class Subject:
    """A server to measure: its name in tables, what starts it, and by which name it has the 4 ms model."""

    title: str
    command: Callable[[Path], list[str | Path]]
    model: str = "slow"
    missing: Callable[[], str] = lambda: ""


def _fifo(how: str) -> Callable[[Path], list[str | Path]]:
    return lambda models: [sys.executable, PROGRAMS / "fifo_server.py", how, *_serve(models)]


def _serve(models: Path) -> list[str | Path]:
    return ["serve", models, "--port", "0", "--http-port", "0", "--ops-port", "0"]


def _mlserver(models: Path) -> list[str | Path]:
    file = models / "slow/1/model.onnx"
    return [python("mlserver"), PROGRAMS / "mlserver_peer.py", file, "1", "0"]


def _no_mlserver() -> str:
    there = (ENVIRONMENTS / "mlserver/.made").exists()
    return "" if there else "`make bench-peers PEERS=mlserver` installs it"


SUBJECTS = {
    "penstock": Subject("Penstock", lambda models: [SCRIPT, *_serve(models)]),
    "batches": Subject(
        f"Penstock, {ROW_MILLISECONDS} ms a row", lambda models: [SCRIPT, *_serve(models)], "rows"
    ),
    "fifo": Subject("plain FIFO", _fifo("plain")),
    "fifo-drop": Subject("FIFO, drops what timed out", _fifo("drop")),
    "mlserver": Subject("MLServer", _mlserver, "tiny_mlp", _no_mlserver),
}
PEERS = ("mlserver",)


@dataclass
class Bench:
    """A run: its servers, each started when it is first needed, and how long each load lasts.

    Attributes:
        folder: for its files; holds the models.
        seconds: to measure each load.
        stack: ends the servers.
    """

    folder: Path
    seconds: float
    stack: contextlib.ExitStack
    cores: tuple[int, int] = field(default_factory=machine.cores)
    _servers: dict[str, Server] = field(default_factory=dict)

    def server(self, subject: str) -> Server:
        """A server with its model loaded, and nothing waiting in it."""
        if subject not in self._servers:
            command = SUBJECTS[subject].command(self.folder / "models")
            server = self.stack.enter_context(started(command, self.cores[:1], NO_EXPERIMENTS))
            self._servers[subject] = server
        self._settle(subject)
        self._servers[subject].check()
        return self._servers[subject]

    def source(self, subject: str, phases: Sequence[tuple[float, float]] = (), **more: Any) -> Figure:
        """What programs/paced.py sends to a server; `more` may name the model and the level of priority."""
        target, model = self._servers[subject].target, more.pop("model", SUBJECTS[subject].model)
        message = request(model, more.pop("priority", 0))
        path = self.folder / f"request-{hash(message)}"
        path.write_bytes(message)
        sent = {"target": target, "method": METHOD, "request": str(path), "phases": list(phases)}
        return {**sent, "timeout": None, **more}

    def send(self, *sources: Figure) -> list[list[Record]]:
        """Sends from sources at the same time, on the load's core.

        Raises:
            LoadError: the load's program failed.
        """
        command = [
            *machine.on_cores(self.cores[1]),
            sys.executable,
            PROGRAMS / "paced.py",
            json.dumps(sources),
        ]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode:
            raise load.LoadError(f"the load failed: {done.stderr}")
        return [[tuple(call) for call in calls] for calls in json.loads(done.stdout)]

    def _settle(self, subject: str) -> None:
        """Waits until a call takes about as long as a run: nothing waits from before."""
        calls, end = load.Calls(METHOD, request(SUBJECTS[subject].model)), time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < end:
            begun = time.monotonic()
            load.one_answer(self._servers[subject].target, calls)
            if time.monotonic() - begun < DEADLINE_SECONDS:
                return
        raise load.LoadError(f"{SUBJECTS[subject].title} was not itself again after {SETTLE_SECONDS:g} s")


def make_models(folder: Path) -> None:
    """Makes the repository of the models in `folder`."""
    zoo.repository(folder, {name: zoo.slow(milliseconds) for name, milliseconds in MODELS.items()})
    for name in MODELS:
        (folder / name / "model.toml").write_text(SETTINGS)
    zoo.repository(folder, {"rows": zoo.slow_rows(ROW_MILLISECONDS)})
    (folder / "rows/model.toml").write_text("[runtime]\nintra_op_threads = 1\n")


def request(model: str, priority: int = 0) -> bytes:
    """A request for one row, serialized; priority 0 says nothing of it."""
    message = oip.ModelInferRequest(model_name=model, raw_input_contents=[np.float32(1).tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    if priority:
        message.parameters["priority"].uint64_param = priority
    return message.SerializeToString()


def best_rate(bench: Bench, subject: str) -> float:
    """Answers a second with eight calls in flight."""
    bench.server(subject)
    seconds = WARM_UP_SECONDS + bench.seconds
    [calls] = bench.send(bench.source(subject, in_flight=8, seconds=seconds))
    ends = [due + took for due, took, status, _ in calls if not status]
    return sum(WARM_UP_SECONDS <= end < seconds for end in ends) / bench.seconds


def at_rate(bench: Bench, subject: str, rate: float) -> Figure:
    """What becomes of calls with a deadline that come at a rate; see `ends`."""
    bench.server(subject)
    phases = [(rate, WARM_UP_SECONDS + bench.seconds)]
    [calls] = bench.send(bench.source(subject, phases, timeout=DEADLINE_SECONDS))
    return ends([call for call in calls if call[0] >= WARM_UP_SECONDS], bench.seconds)


def ends(calls: Sequence[Record], seconds: float) -> Figure:
    """How calls ended.

    Returns:
        `offered` and `in_time` a second; `p50_ms` and `p99_ms` of all answers; `refused`, the share of the
        calls, and `refusal_ms`, the median time until such a caller knew; `late`, the answers that had
        not come when the deadline and the tolerance had passed, but came; `codes`, the other ends by gRPC's
        code.
    """
    answers = [took for _, took, status, _ in calls if not status]
    latest = DEADLINE_SECONDS + TOLERANCE_SECONDS
    others = [took for _, took, status, _ in calls if status]
    return {
        "offered": len(calls) / seconds,
        "in_time": sum(took <= DEADLINE_SECONDS for took in answers) / seconds,
        **latencies(answers),
        "refused": len(others) / len(calls),
        "refusal_ms": statistics.median(others) * 1e3 if others else None,
        "late": sum(not status and looked > latest for _, _, status, looked in calls),
        "codes": dict(Counter(str(status) for _, _, status, _ in calls if status)),
    }


def latencies(answers: Sequence[float]) -> Figure:
    """`p50_ms` and `p99_ms` of seconds; None of so few that they say nothing."""
    if len(answers) < FEWEST_ANSWERS:
        return {"p50_ms": None, "p99_ms": None}
    p50, p99 = np.percentile(np.array(answers) * 1e3, (50, 99))
    return {"p50_ms": float(p50), "p99_ms": float(p99)}


def burst(bench: Bench, subject: str, best: float) -> Figure:
    """Calm, then twice as much as the server can do, then calm again.

    Returns:
        `recovery_ms`: from the end of the burst to the first of ten calls in a row that are answered as fast
        as 99 of 100 in the calm before; None where there are no such ten. `calm_p99_ms`: how fast that is.
    """
    bench.server(subject)
    phases = [(factor * best, seconds) for factor, seconds in BURST]
    [calls] = bench.send(bench.source(subject, phases, timeout=DEADLINE_SECONDS))
    begin, end = BURST[0][1], BURST[0][1] + BURST[1][1]
    calm = latencies([took for due, took, status, _ in calls if due < begin and not status])["p99_ms"]
    if calm is None:
        raise load.LoadError(f"before the burst, {SUBJECTS[subject].title} answered next to nothing")
    after = [(due - end, status == 0 and took * 1e3 <= calm) for due, took, status, _ in calls if due >= end]
    return {"recovery_ms": _recovered(after), "calm_p99_ms": calm}


def _recovered(after: Sequence[tuple[float, bool]]) -> float | None:
    for index in range(len(after) - IN_A_ROW + 1):
        if all(normal for _, normal in after[index : index + IN_A_ROW]):
            return after[index][0] * 1e3
    return None


def priority(bench: Bench, best: float) -> Figure:
    """Calls of high priority at a fifth of the best rate: alone, and beside low ones at twice the best rate.

    Neither has a deadline, so that low ones pile up. Returns what `_beside` does.
    """
    bench.server("penstock")
    seconds = WARM_UP_SECONDS + bench.seconds
    high = bench.source("penstock", [(best / 5, seconds)], priority=HIGH)
    return _beside(bench, high, bench.source("penstock", [(2 * best, seconds)], priority=LOW))


def neighbour(bench: Bench, best: float) -> Figure:
    """A model of 1 ms at 100 calls a second: alone, and beside one of 200 ms that is never idle.

    Both on the one core. Returns what `_beside` does.
    """
    bench.server("penstock")
    seconds = WARM_UP_SECONDS + bench.seconds
    fast = bench.source("penstock", [(100.0, seconds)], model="fast")
    return _beside(bench, fast, bench.source("penstock", model="long", in_flight=2, seconds=seconds))


def _beside(bench: Bench, watched: Figure, other: Figure) -> Figure:
    """The latencies of what is watched: `alone`, and `beside` the other."""
    [alone] = bench.send(watched)
    beside, _ = bench.send(watched, other)
    return {name: _answered(calls) for name, calls in (("alone", alone), ("beside", beside))}


def _answered(calls: Sequence[Record]) -> Figure:
    counted = [call for call in calls if call[0] >= WARM_UP_SECONDS]
    answers = [took for _, took, status, _ in counted if not status]
    return {**latencies(answers), "failed": len(counted) - len(answers)}


def chosen(peers: bool) -> Iterator[str]:
    """The servers to measure; says which cannot be."""
    for name, subject in SUBJECTS.items():
        if name == "batches" or (name in PEERS and not peers):
            continue
        if reason := subject.missing():
            print(f"{subject.title} is not measured: {reason}", file=sys.stderr)
        else:
            yield name
