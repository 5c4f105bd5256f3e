"""A caller beside greedy streams: whether anyone waits because others send as fast as they can.

    python -m benchmarks.turns [--streams 200] [--connections 8] [--seconds 5] [--rounds 2] [--requests 1]
                               [--script PENSTOCK]

The server has one core, the load the other: streams that keep their send windows full, reading the answers or
never reading them, and a caller of another model, one call at a time. The same load on a bare grpc.aio
server, which answers every message with the same bytes, is the yardstick. Printed are, in milliseconds, the
caller's median, 99th percentile and longest time alone and beside the streams; how many messages the streams
sent; and the server's largest memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks import machine, messages
from benchmarks.servers import ROOT, Server, started
from benchmarks.subjects import NO_EXPERIMENTS

PROGRAMS = ROOT / "benchmarks/programs"
ECHO, ECHO_STREAM = "/bench/Echo", "/bench/EchoStream"
ALONE_SECONDS = 2.0
SETTLED_SECONDS = 1.0


def beside(
    server: Server,
    unary: str,
    stream: str,
    folder: Path,
    reads: bool,
    arguments: argparse.Namespace,
    core: int,
) -> str:
    """Measures a caller beside streams; returns a row of the table."""
    alone = _caller(server, unary, folder, ALONE_SECONDS, core)
    quiet = _seconds(alone)
    caller = _caller(server, unary, folder, arguments.seconds, core)
    assert caller.stdout is not None
    caller.stdout.readline()
    command = [sys.executable, PROGRAMS / "greedy_streams.py", server.target, stream, folder / "stream"]
    command += [arguments.streams, arguments.connections, arguments.seconds, "yes" if reads else "no"]
    most = [0.0]
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(server, most, ended))
    watch.start()
    sent = json.loads(subprocess.check_output([*machine.on_cores(core), *map(str, command)]))
    busy = _seconds(caller)
    ended.set()
    watch.join()
    time.sleep(SETTLED_SECONDS)
    figures = "".join(f"{value:9.2f}" for value in (*_figures(quiet), *_figures(busy)))
    return f"{figures}{len(busy):8}{sent['messages']:9}{sent['ended']:6}{most[0] / 1e6:8.0f}"


def _caller(server: Server, method: str, folder: Path, seconds: float, core: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        PROGRAMS / "one_at_a_time.py",
        server.target,
        method,
        folder / "unary",
        seconds,
    ]
    return subprocess.Popen([*machine.on_cores(core), *map(str, command)], stdout=subprocess.PIPE, text=True)


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


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.turns", description=__doc__.split("\n")[0])
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--requests", type=int, default=1, help="in each message of a stream")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--transport", default="auto")
    parser.add_argument("--only", choices=("penstock", "grpc.aio"), default="")
    script = ROOT / ".venv/bin/penstock"
    parser.add_argument("--script", type=Path, default=script, help="another build's `penstock`")
    arguments = parser.parse_args()
    server_core, load_core = machine.cores()
    columns = ("alone", "p99", "worst", "beside", "p99", "worst")
    print(f"{'':28}{''.join(f'{each:>9}' for each in columns)}   calls messages ended      MB")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = messages.make_models(folder / "models")
        (folder / "unary").write_bytes(messages.request("medium_mlp").SerializeToString())
        (folder / "stream").write_bytes(messages.gathered("tiny_mlp", arguments.requests))
        (folder / "answer").write_bytes(messages.echo_answer())
        penstock = [arguments.script, "serve", models, "--port", "0", "--ops-port", "0"]
        penstock += ["--transport", arguments.transport]
        aio = [sys.executable, PROGRAMS / "grpc_aio_echo.py", folder / "answer"]
        prediction = (messages.SERVICE + "Predict", messages.SERVICE + "PredictStream")
        subjects = {"penstock": (penstock, prediction), "grpc.aio": (aio, (ECHO, ECHO_STREAM))}
        for _ in range(arguments.rounds):
            for name, (command, methods) in subjects.items():
                if arguments.only not in ("", name):
                    continue
                for reads in (True, False):
                    with started(command, (server_core,), NO_EXPERIMENTS) as server:
                        row = beside(server, *methods, folder, reads, arguments, load_core)
                    label = f"{name}, {'reading' if reads else 'never reading'}"
                    print(f"{label:28}{row}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
