"""The consumer of events, with a real broker: it is killed in the middle, and no event is lost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_client import Client
from support import zoo
from support.servers import RunningServer, running_server

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".venv-examples/bin"
FOLDER = zoo.EXAMPLES / "events"
EVENTS = 1500

pytestmark = pytest.mark.skipif(
    not (BIN / "nats-server").exists(), reason="there is no broker here: make example-tools"
)


def python(*arguments: str) -> list[str]:
    return [str(BIN / "python"), str(FOLDER / arguments[0]), *arguments[1:]]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "clients/python/src")}


def run(*arguments: str) -> list[str]:
    done = subprocess.run(
        python(*arguments), env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker that keeps its streams in a folder."""
    folder = tmp_path_factory.mktemp("nats")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(BIN / "nats-server"), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 20
            while not listens(port) and process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(zoo.EXAMPLES / "models", "--no-http") as running:
        yield running


WRONG = """
import asyncio, nats, sys

async def main():
    connection = await nats.connect(sys.argv[1])
    for event in (b"no JSON", b"{\\"lead_source\\": \\"events\\"}"):
        await connection.jetstream().publish("leads", event)
    await connection.close()

asyncio.run(main())
"""


def start(*arguments: str, **options: int) -> subprocess.Popen[str]:
    return subprocess.Popen(python(*arguments), env=ENVIRONMENT, text=True, **options)


def test_no_event_is_lost_if_the_consumer_is_killed(broker: str, server: RunningServer) -> None:
    streams = ("streams.py", "--nats", broker)
    consume = ("consume.py", "--nats", broker, "--target", server.target)
    run(*streams, "--events", str(EVENTS))
    subprocess.run([BIN / "python", "-c", WRONG, broker], check=True)
    with start(*streams, "--wait", "1", stdout=subprocess.PIPE) as waiting, start(*consume) as first:
        waiting.communicate()
        first.kill()
    before = int(run(*streams)[0].split()[0])
    assert 0 < before < EVENTS
    with start(*consume) as second:
        try:
            *lines, _ = run(*streams, "--wait", str(EVENTS + 2), "--show")
        finally:
            second.kill()
    scores = [json.loads(line) for line in lines]
    # Within the window for duplicates each event has one score, although some were delivered twice.
    assert sorted(score["id"] for score in scores if "error" not in score) == list(range(EVENTS))
    errors = [score["error"] for score in scores if "error" in score]
    assert len(errors) == 2
    assert any("annual_income" in error for error in errors)
    check_one(server, scores)


def check_one(server: RunningServer, scores: list[dict[str, float]]) -> None:
    [seven] = [score["probability"] for score in scores if score.get("id") == 7]
    lead = {"lead_source": "events", "number_of_courses_viewed": 7, "annual_income": 20_259.0}
    with Client(server.target) as client:
        alone = client.predict("lead_scoring", lead)["probabilities"][0, 1]
    assert seven == pytest.approx(float(alone), abs=1e-5)
