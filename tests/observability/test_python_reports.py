"""What Python itself reports, such as warnings, is written by the log's thread too, as lines of the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from support.servers import full_pipe

REPORTS = """
import logging, sys, threading, warnings
from penstock.config import LogConfig
from penstock.observability import logs

class Broken:
    def __del__(self):
        raise KeyError("while it is deleted")

def fails():
    raise ValueError("on a thread")

class Unwritable:
    def __str__(self):
        raise TypeError("no text")

def reports():
    warnings.warn("of a library", RuntimeWarning)
    thread = threading.Thread(target=fails, name="unlucky")
    thread.start()
    thread.join()
    Broken()
    logging.getLogger("a.library").warning("%s", Unwritable())
    threading.Thread(target=sys.exit).start()  # that is no failure

logs.configure(LogConfig())
logs.report_what_python_reports()
serving = threading.Thread(target=reports)
serving.start()
serving.join(20)
print("held up" if serving.is_alive() else "went on", logs.dropped(), flush=True)
logs.flush()
"""


def test_a_thread_is_not_held_up_by_what_python_reports() -> None:
    read, write = full_pipe()
    try:
        command = [sys.executable, "-c", REPORTS]
        ran = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=write, text=True, timeout=60, check=False
        )
        assert (ran.returncode, ran.stdout) == (0, "went on 0\n")
    finally:
        os.close(read)
        os.close(write)


@pytest.fixture(scope="module")
def reported() -> list[dict[str, str]]:
    ran = subprocess.run(
        [sys.executable, "-c", REPORTS], capture_output=True, text=True, timeout=60, check=True
    )
    return [json.loads(line) for line in ran.stderr.splitlines()]


def test_each_is_a_line_of_the_log(reported: list[dict[str, str]]) -> None:
    assert [(line["event"], line["level"]) for line in reported] == [
        ("of a library", "warning"),
        ("a thread has failed", "error"),
        ("unexpected failure", "error"),
        ("a line of the log could not be made", "error"),
    ]


def test_it_says_where(reported: list[dict[str, str]]) -> None:
    warning, thread, deleted, unwritten = reported
    assert (warning["category"], warning["where"]) == ("RuntimeWarning", "<string>:18")
    assert thread["thread"] == "unlucky"
    assert thread["exception"].endswith("ValueError: on a thread")
    assert "Broken.__del__" in deleted["where"]
    assert "KeyError" in deleted["exception"]
    assert (unwritten["of"], unwritten["error"]) == ("a.library", "TypeError('no text')")
