"""The unit for systemd: systemd reads it, and its command stops in time, answering what it has accepted."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal

import pytest

from deploy.kit import MARGIN_SECONDS, ROOT, UNIT, Unit, waits
from penstock_client import Client, PenstockError
from support.servers import SCRIPT, RunningServer

LEAD = {"lead_source": "referral", "number_of_courses_viewed": 4, "annual_income": 51000.0}
EXPOSED = 20
"""The largest exposure in the words of systemd-analyze: tenths, from 0 (safe) to 100."""


@pytest.fixture(scope="module")
def unit() -> Unit:
    return Unit(UNIT)


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here (Debian: systemd)")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def here(unit: Unit, folder: Path, change: tuple[str, str] = ("", "")) -> Path:
    """The unit with the program of this environment in place of the one in /opt."""
    program = shlex.split(unit.one("ExecStart"))[0]
    assert program == "/opt/penstock/bin/penstock"
    path = folder / UNIT.name
    path.write_text(UNIT.read_text().replace(program, str(SCRIPT)).replace(*change))
    return path


def test_systemd_reads_it(unit: Unit, tmp_path: Path) -> None:
    run = systemd_analyze("verify", "--man=no", str(here(unit, tmp_path)))
    assert (run.returncode, run.stdout + run.stderr) == (0, "")


def test_systemd_would_say_what_is_wrong(unit: Unit, tmp_path: Path) -> None:
    run = systemd_analyze("verify", "--man=no", str(here(unit, tmp_path, ("KillMode", "KilMode"))))
    assert "Unknown key" in run.stderr


def test_it_may_do_little(unit: Unit, tmp_path: Path) -> None:
    options = ["security", "--no-pager", "--offline=true", f"--threshold={EXPOSED}"]
    run = systemd_analyze(*options, str(here(unit, tmp_path)))
    assert run.returncode == 0, run.stdout.splitlines()[-1:] + run.stderr.splitlines()


def test_it_is_killed_late_enough(unit: Unit) -> None:
    assert float(unit.one("TimeoutStopSec")) >= waits(unit.environment) + MARGIN_SECONDS


def test_one_signal_goes_to_the_server_and_none_to_its_children(unit: Unit) -> None:
    """With --processes, a worker that gets the supervisor's signal and one of its own ends at once."""
    assert unit.one("KillMode") == "mixed"


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_its_command_serves_and_stops_without_losing_a_call(unit: Unit, tmp_path: Path) -> None:
    arguments = shlex.split(unit.one("ExecStart"))[1:]
    assert arguments == ["serve", "/srv/penstock/models"]
    folders = {"%C": str(tmp_path)}
    environment = {
        key: folders.get(value[:2], value[:2]) + value[2:] for key, value in unit.environment.items()
    }
    # As penstock.env would: ports that are free here, on this machine alone.
    environment |= {"PENSTOCK_SERVER__HOST": "127.0.0.1", "PENSTOCK_SERVER__HTTP_PORT": "0"}
    server = RunningServer(ROOT / "examples/models", env=environment)
    try:
        server.wait_until_ready()
        assert status_of(f"{server.ops}/readyz") == 200
        assert list((tmp_path / "penstock").iterdir())  # what was learned
        failed, seconds = stopped_under_load(server)
        assert failed == []
        assert seconds < float(unit.one("TimeoutStopSec")) - MARGIN_SECONDS
        assert seconds >= float(environment["PENSTOCK_SERVER__LINGER_SECONDS"])
        log = [json.loads(line) for line in server.stderr]
        assert [line for line in log if line["level"] not in ("info", "debug")] == []
    finally:
        server.close()


def stopped_under_load(server: RunningServer) -> tuple[list[str], float]:
    """What went wrong for callers that call on until a balancer has noticed, and how long the stop took.

    One caller has its stream since before; the other comes new, as a balancer sends callers until it notices.
    """
    failed: list[str] = []
    noticed = threading.Event()
    began = {"auto": threading.Semaphore(0), "unary": threading.Semaphore(0)}

    def call(transport: Literal["auto", "unary"]) -> None:
        while not noticed.is_set():
            with Client(server.target, transport=transport) as client:
                while not noticed.is_set():
                    try:
                        client.predict("lead_scoring", LEAD, timeout=20)
                    except PenstockError as error:
                        failed.append(f"{transport}: {error}")
                    began[transport].release()
                    time.sleep(0.01)
                    if transport == "unary":
                        break

    callers = [threading.Thread(target=call, args=(each,)) for each in ("auto", "unary")]
    for caller in callers:
        caller.start()
    # The first call of a client is one of its own; the stream follows.
    assert all(each.acquire(timeout=20) for each in began.values() for _ in range(3))
    begin = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    while status_of(f"{server.ops}/readyz") == 200 and time.monotonic() < begin + 20:
        time.sleep(0.05)
    assert status_of(f"{server.ops}/readyz") == 503
    time.sleep(1.0)
    noticed.set()
    for caller in callers:
        caller.join()
    assert server.wait() == 0
    return failed, time.monotonic() - begin
