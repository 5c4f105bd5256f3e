"""REST beside other servers of Python: `python -m benchmarks.rest`, after `make bench-peers`.

The servers have one core, h2load another. The servers are started together and take turns, so that a busy
machine slows all of them. Besides requests a second, it gives the CPU that each took for a request, which
depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import machine, messages
from benchmarks.load import MICROSECONDS
from benchmarks.peers import python
from benchmarks.servers import ROOT, launched
from benchmarks.subjects import PROGRAMS, SCRIPT

START_SECONDS = 90.0
LIMIT_SECONDS = 120
BUNDLED = ROOT / "examples/models"
RECORD = {"lead_source": "paid_ads", "number_of_courses_viewed": 2, "annual_income": 79276}
JSON = {"content-type": "application/json"}
ADDRESS = re.compile(r"^(?:HTTP|REST) +(?:http://)?(\S+?)/?\s", re.MULTILINE)
FINISHED = re.compile(r"finished in ([\d.]+)(us|ms|s)")
MEAN = re.compile(r"^time for request: +\S+ +\S+ +([\d.]+)(us|ms|s)", re.MULTILINE)


@dataclass(frozen=True)
class Asked:
    """What a server is asked, over and over.

    Attributes:
        title: its name in the table.
        command: what starts the server.
        path: what is called.
        body: the request.
        headers: of the request.
    """

    title: str
    command: Sequence[str | Path]
    path: str
    body: bytes
    headers: Mapping[str, str]


def binary() -> tuple[bytes, dict[str, str]]:
    """An inference request with one row as binary data, and its headers."""
    row = messages.row("tiny_mlp").astype(np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": list(row.shape)}
    head = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": row.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    return head + row.tobytes(), headers


def serving(models: Path) -> list[str | Path]:
    """What starts Penstock."""
    return [SCRIPT, "serve", models, "--port", "0", "--ops-port", "0", "--http-port", "0", "--http"]


def subjects(folder: Path) -> list[list[Asked]]:
    """What is compared: in each list, Penstock first."""
    record, models = json.dumps(RECORD).encode(), messages.make_models(folder / "models")
    mlp, (body, headers) = models / "tiny_mlp/1/model.onnx", binary()
    row = messages.row("tiny_mlp")
    tensor = {"name": "x", "datatype": "FP32", "shape": list(row.shape), "data": row.ravel().tolist()}
    as_json = json.dumps({"inputs": [tensor]}).encode()  # MLServer's REST knows no binary data
    lead = BUNDLED / "lead_scoring/1/model.onnx"
    infer = "/v2/models/tiny_mlp/infer"
    guides = [python("kserve"), PROGRAMS / "guides_server.py", lead]
    return [
        [
            Asked("Penstock, POST /predict", serving(BUNDLED), "/predict/lead_scoring", record, JSON),
            Asked("FastAPI, uvicorn, ONNX Runtime", guides, "/predict", record, JSON),
        ],
        [
            Asked("Penstock, /v2 binary", serving(models), infer, body, headers),
            Asked(
                "MLServer, /v2 JSON",
                [python("mlserver"), PROGRAMS / "mlserver_peer.py", mlp, "0"],
                infer,
                as_json,
                JSON,
            ),
            Asked(
                "KServe, /v2 binary",
                [python("kserve"), PROGRAMS / "kserve_peer.py", mlp, "rest"],
                infer,
                body,
                headers,
            ),
        ],
    ]


class Running:
    """A server that is asked.

    Args:
        stack: ends it.
        asked: what it is asked.
        core: its core.
        folder: for its output.
    """

    def __init__(self, stack: ExitStack, asked: Asked, core: int, folder: Path) -> None:
        self.asked = asked
        output = folder / f"{abs(hash(asked.title))}.log"
        self.process = stack.enter_context(launched(asked.command, [core], {}, output))
        self.address = self._address(output)
        self.body = folder / f"{abs(hash(asked.title))}.body"
        self.body.write_bytes(asked.body)
        self._wait_until_right()

    def _address(self, output: Path) -> str:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if found := ADDRESS.search(output.read_text(errors="replace")):
                return found[1]
            time.sleep(0.05)
        raise SystemExit(f"{self.asked.title} did not start:\n{output.read_text(errors='replace')[-2000:]}")

    def _wait_until_right(self) -> None:
        """Waits until it answers with success, as its model may still be loading."""
        end = time.monotonic() + START_SECONDS
        status, data = 0, b""
        while time.monotonic() < end and status != http.HTTPStatus.OK:
            try:
                connection = http.client.HTTPConnection(self.address, timeout=10)
                connection.request("POST", self.asked.path, self.asked.body, dict(self.asked.headers))
                answer = connection.getresponse()
                status, data = answer.status, answer.read()
                connection.close()
            except OSError:
                pass
            time.sleep(0.1)
        if status != http.HTTPStatus.OK:
            raise SystemExit(f"{self.asked.title} answers {status}: {data[:500]!r}")

    def load(self, count: int, connections: int, core: int) -> tuple[float, float]:
        """Sends requests; returns the seconds of each, as the load sees it, and the CPU of each."""
        before = machine.cpu_seconds(self.process.pid)
        words = ["h2load", "--h1", "-n", str(count), "-c", str(connections), "-d", str(self.body)]
        words += [word for key, value in self.asked.headers.items() for word in ("-H", f"{key}: {value}")]
        command = [*machine.on_cores(core), *words, f"http://{self.address}{self.asked.path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_SECONDS)
        finished = FINISHED.search(done.stdout)
        if finished is None or f" {count} 2xx" not in done.stdout:
            raise SystemExit(f"{self.asked.title} did not answer all:\n{done.stdout}")
        seconds = float(finished[1]) * MICROSECONDS[finished[2]] / 1e6
        return seconds / count, (machine.cpu_seconds(self.process.pid) - before) / count


def compare(group: Sequence[Asked], folder: Path, rounds: int, count: int) -> None:
    """Prints the figures of some servers, which take turns."""
    core, load_core = machine.cores()
    with ExitStack() as stack:
        running = [Running(stack, each, core, folder) for each in group]
        for connections, requests in ((32, count), (1, count // 4)):
            found: list[list[tuple[float, float]]] = [[] for _ in running]
            for each in running:
                each.load(max(requests // 10, connections), connections, load_core)
            for _ in range(rounds):
                for taken, each in zip(found, running, strict=True):
                    taken.append(each.load(requests, connections, load_core))
            first = [statistics.median(column) for column in zip(*found[0], strict=True)]
            for each, taken in zip(running, found, strict=True):
                title = each.asked.title
                seconds, cpu = (statistics.median(column) for column in zip(*taken, strict=True))
                print(
                    f"{title:32} {connections:3} in flight {1 / seconds:7.0f} requests/s"
                    f" {cpu * 1e6:6.0f} µs CPU ({seconds / first[0]:.1f}, {cpu / first[1]:.1f} x Penstock's)",
                    flush=True,
                )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rest", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=4000, help="requests of a round")
    parser.add_argument("--only", default="", metavar="TEXT", help="groups with a title that has TEXT")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        groups = [each for each in subjects(Path(name)) if any(arguments.only in one.title for one in each)]
        for group in groups:
            compare(group, Path(name), arguments.rounds, arguments.count)


if __name__ == "__main__":
    main()
