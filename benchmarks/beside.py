"""A caller beside others that are much work: whether anyone waits because of what others do.

    python -m benchmarks.beside [--only NAME ...] [--servers NAME ...] [--seconds 5] [--rounds 2]
                                [--script PENSTOCK]

The server has one core, the load the other: attackers, and a caller of another model, one call at a time. The
attackers have a lower priority there, so that the caller's times are the server's. In every round each server
meets each attack: Penstock with both transports, and two floors that answer every message with the same
bytes, a bare grpc.aio server and the bare reactor. Printed are, in milliseconds, the caller's median, 99th
percentile and longest time alone and beside the attackers; how many times as long the 99th percentile is;
how many messages the attackers sent, and how many of their calls ended with an error; and the server's
largest memory in MB. For "failing, log unread" standard error of the server is a full pipe that nobody reads,
and the attackers' calls all fail; each of those of "long by value" is one run, which goes on until the attack
ends.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from benchmarks import machine, messages
from benchmarks.rounds import progress
from benchmarks.servers import ROOT, Server, started
from benchmarks.subjects import NO_EXPERIMENTS, PROGRAMS, free_ports
from penstock.core import wire
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

ECHO, ECHO_STREAM = "/bench/Echo", "/bench/EchoStream"
PREDICT, STREAM = messages.SERVICE + "Predict", messages.SERVICE + "PredictStream"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
SYMBOL = wire.field(wire.key(4, wire.LENGTH_DELIMITED), b"penstock.v1.PredictionService")
"""Asks reflection for the file that contains this symbol."""
ALONE_SECONDS = 2.0
SETTLED_SECONDS = 1.0
LARGE = 2**24  # numbers: 64 MiB
WIDE = 250_000
ANSWER_WIDTH = 5_000_000  # numbers: answers of 20 MB
TABLE = 10  # rows of a table; a model that looks up one beyond fails


@dataclass(frozen=True)
class Attack:
    """What the attackers do.

    Attributes:
        reach: what the caller's times should be.
        callers: how many.
        kind: see `programs/attackers.py`; "greedy" and "greedy, unread" are `programs/greedy_streams.py`.
        message: what they send again and again.
        method: what they call.
        connections: of greedy streams; those of the others have one each.
        reads_log: whether standard error of the server is read.
    """

    reach: str
    callers: int
    kind: str
    message: Callable[[], bytes]
    method: str = PREDICT
    connections: int = 8
    reads_log: bool = True

    def command(self, target: str, method: str, message: Path, seconds: float) -> list[object]:
        """Runs the attackers for so many seconds; prints JSON with `messages` and `ended`."""
        if not self.kind.startswith("greedy"):
            program = [PROGRAMS / "attackers.py", target, method, message, self.callers, seconds, self.kind]
        else:
            reads = "no" if "unread" in self.kind else "yes"
            streams = [self.callers, self.connections]
            program = [PROGRAMS / "greedy_streams.py", target, method, message, *streams, seconds, reads]
        return ["nice", "-n", "5", sys.executable, *program]


def _large(model: str) -> bytes:
    return _request(model, np.zeros((1, LARGE), np.float32)).SerializeToString()


def _request(model: str, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> pb.PredictRequest:
    request = pb.PredictRequest(model=model)
    tensor = request.inputs["x"]
    tensor.datatype = tensor_pb2.FP32
    tensor.shape.extend(values.shape)
    tensor.raw = values.tobytes()
    return request


def _integers() -> bytes:
    request = pb.PredictRequest(model="wide")
    request.inputs["x"].int_values.extend([1] * WIDE)
    return request.SerializeToString()


def _names() -> bytes:
    request = messages.request("tiny_mlp")
    request.outputs.extend(["y"] * 50_000)
    return request.SerializeToString()


def _failing() -> bytes:
    request = pb.PredictRequest(model="table")
    request.inputs["x"].int_values.append(TABLE)
    return request.SerializeToString()


def _endless() -> bytes:
    request = pb.PredictRequest(model="loop")
    request.inputs["x"].int_values.append(2**40)
    return request.SerializeToString()


def _unknown() -> bytes:
    return pb.PredictStreamRequest(requests=[pb.PredictRequest(model="nope")] * 30_000).SerializeToString()


def _widened() -> bytes:
    return pb.PredictStreamRequest(
        requests=[_request("widened", np.ones((1, 1), np.float32))]
    ).SerializeToString()


ATTACKS = {
    "64-mib": Attack("10 times", 4, "unary", lambda: _large("summed")),
    "64-mib-answers": Attack("10 times", 4, "unary", lambda: _large("doubled")),
    "1000-requests": Attack(
        "10 times", 8, "greedy", lambda: messages.gathered("tiny_mlp", 1000), STREAM
    ),
    "reflection": Attack("10 times", 50, "each", lambda: SYMBOL, REFLECTION),
    "integers": Attack("5 times", 4, "unary", _integers),
    "names": Attack("5 times", 4, "unary", _names),
    "30000-requests": Attack("5 times", 4, "once", _unknown, STREAM),
    "greedy": Attack("100 ms", 200, "greedy", lambda: messages.gathered("tiny_mlp", 1), STREAM),
    "greedy-unread": Attack(
        "100 ms", 200, "greedy, unread", lambda: messages.gathered("tiny_mlp", 1), STREAM
    ),
    "20-mb-unread": Attack("300 MB", 4, "unread", _widened, STREAM),
    "failing, log unread": Attack("5 times", 4, "unary", _failing, reads_log=False),
    "long by value": Attack("5 times", 4, "unary", _endless),
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A server to measure.

    Attributes:
        command: starts it, given the models, the answer of an echo, and Penstock's script.
        is_echo: whether it answers everything with the same bytes.
    """

    command: Callable[[Path, Path, Path], list[str | Path]]
    is_echo: bool = False

    def methods(self, attack: Attack) -> tuple[str, str]:
        """What the caller calls, and what the attackers call."""
        if not self.is_echo:
            return PREDICT, attack.method
        return ECHO, ECHO if attack.kind == "unary" else ECHO_STREAM


def _penstock(transport: str) -> Callable[[Path, Path, Path], list[str | Path]]:
    return lambda models, _, script: [
        script, "serve", models, *free_ports(script), "--transport", transport
    ]  # fmt: skip


def _echo(program: str) -> Callable[[Path, Path, Path], list[str | Path]]:
    return lambda _, answer, script: [sys.executable, PROGRAMS / program, answer, "large"]


SUBJECTS = {
    "penstock": Subject(_penstock("reactor")),
    "portable": Subject(_penstock("portable")),
    "grpc.aio": Subject(_echo("grpc_aio_echo.py"), is_echo=True),
    "bare reactor": Subject(_echo("reactor_echo.py"), is_echo=True),
}


def beside(server: Server, subject: Subject, attack: Attack, folder: Path, seconds: float, core: int) -> str:
    """Measures a caller beside attackers; returns a row of the table."""
    unary, attacked = subject.methods(attack)
    quiet = _seconds(_caller(server, unary, folder, ALONE_SECONDS, core))
    caller = _caller(server, unary, folder, seconds, core)
    assert caller.stdout is not None
    caller.stdout.readline()
    command = attack.command(server.target, attacked, folder / "message", seconds)
    most = [0.0]
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(server, most, ended))
    watch.start()
    sent = json.loads(subprocess.check_output([*machine.on_cores(core), *map(str, command)]))
    busy = _seconds(caller)
    ended.set()
    watch.join()
    time.sleep(SETTLED_SECONDS)
    alone, among = _figures(quiet), _figures(busy)
    figures = "".join(f"{value:9.2f}" for value in (*alone, *among, among[1] / alone[1]))
    return f"{figures}{len(busy):8}{sent['messages']:9}{sent['ended']:6}{most[0] / 1e6:8.0f}"


def _caller(server: Server, method: str, folder: Path, seconds: float, core: int) -> subprocess.Popen[str]:
    program = [PROGRAMS / "one_at_a_time.py", server.target, method, folder / "unary", seconds]
    command = [*machine.on_cores(core), sys.executable, *map(str, program)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _seconds(caller: subprocess.Popen[str]) -> list[float]:
    """The times of its calls, in seconds, once it has made them.

    Raises:
        SystemExit: a call failed.
    """
    answer = json.loads(caller.communicate()[0].splitlines()[-1])
    if answer["failed"]:
        raise SystemExit(f"{answer['failed']} of the caller's calls failed")
    return list(answer["seconds"])


def _figures(seconds: list[float]) -> tuple[float, float, float]:
    p50, p99, worst = np.percentile(np.array(seconds) * 1e3, (50, 99, 100))
    return float(p50), float(p99), float(worst)


def _watch(server: Server, most: list[float], ended: threading.Event) -> None:
    while not ended.wait(0.02):
        most[0] = max(most[0], server.resident_bytes())


def _make_models(folder: Path) -> Path:
    """The benchmark models, and those that the attackers call."""
    messages.make_models(folder)
    rows: Sequence[str | int] = ["N", "L"]
    _save(folder, "summed", ("ReduceSum", {"keepdims": 1}), rows, [1, 1])
    _save(folder, "doubled", ("Neg", {}), rows, rows)
    _save(folder, "wide", ("Relu", {}), ["N", WIDE], ["N", WIDE])
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, ANSWER_WIDTH])
    _save(folder, "widened", ("Expand", {}), ["N", 1], ["N", ANSWER_WIDTH], shape)
    _save_graph(folder, "table", _table())
    _save_graph(folder, "loop", _loop())
    return folder


def _table() -> GraphProto:
    """Looks up a row of a table."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [TABLE], list(range(TABLE)))
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ["N"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])
    return helper.make_graph([node], "table", [x], [y], [table])


def _loop() -> GraphProto:
    """Takes as many steps as its input says."""

    def value(name: str, kind: int, *shape: int) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    steps = [
        helper.make_node("Identity", ["on"], ["still"]),
        helper.make_node("Add", ["before", "one"], ["after"]),
    ]
    taken = [
        value("i", TensorProto.INT64),
        value("on", TensorProto.BOOL),
        value("before", TensorProto.FLOAT, 1),
    ]
    given = [value("still", TensorProto.BOOL), value("after", TensorProto.FLOAT, 1)]
    body = helper.make_graph(steps, "body", taken, given)
    nodes = [
        helper.make_node("Squeeze", ["x"], ["count"]),
        helper.make_node("Loop", ["count", "always", "zero"], ["y"], body=body),
    ]
    constants = [
        helper.make_tensor("always", TensorProto.BOOL, [], [True]),
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
    ]
    x, y = value("x", TensorProto.INT64, 1), value("y", TensorProto.FLOAT, 1)
    return helper.make_graph(nodes, "loop", [x], [y], constants)


def _save(
    folder: Path,
    name: str,
    node: tuple[str, dict[str, int]],
    taken: Sequence[str | int],
    given: Sequence[str | int],
    *constants: TensorProto,
) -> None:
    operator, attributes = node
    made = helper.make_node(operator, ["x", *(each.name for each in constants)], ["y"], **attributes)
    inputs, outputs = (
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, shape)]
        for each, shape in (("x", taken), ("y", given))
    )
    _save_graph(folder, name, helper.make_graph([made], name, inputs, outputs, initializer=constants))


def _save_graph(folder: Path, name: str, graph: GraphProto) -> None:
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--servers", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=2)
    script = ROOT / ".venv/bin/penstock"
    parser.add_argument("--script", type=Path, default=script, help="another build's `penstock`")
    arguments = parser.parse_args()
    server_core, load_core = machine.cores()
    columns = ("alone", "p99", "worst", "beside", "p99", "worst", "times")
    heads = "".join(f"{each:>9}" for each in columns)
    print(f"{'':20}{'':14}{heads}   calls messages ended      MB")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = _make_models(folder / "models")
        (folder / "unary").write_bytes(messages.request("medium_mlp").SerializeToString())
        (folder / "answer").write_bytes(messages.echo_answer())
        for number in range(arguments.rounds):
            for title in arguments.only:
                attack = ATTACKS[title]
                (folder / "message").write_bytes(attack.message())
                for name in arguments.servers:
                    progress(f"round {number + 1} of {arguments.rounds}: {title}, {name}")
                    subject = SUBJECTS[name]
                    command = subject.command(models, folder / "answer", arguments.script)
                    if not attack.reads_log:
                        command = [sys.executable, PROGRAMS / "unread_log.py", *command]
                    with started(command, (server_core,), NO_EXPERIMENTS) as server:
                        row = beside(server, subject, attack, folder, arguments.seconds, load_core)
                    print(f"{title:20}{name:14}{row}   reach: {attack.reach}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
