"""Logs: one line for each event, for machines or for people, and never a tensor's values."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from penstock.config import LogConfig
from penstock.observability.logs import configure, flush, logger


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("penstock")
    before = root.handlers.copy(), root.level, ours.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def configured(stream: io.StringIO, **settings: Any) -> None:
    configure(LogConfig(**settings), stream)


def written(stream: io.StringIO) -> str:
    flush()
    return stream.getvalue()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written(stream).splitlines()]


def test_an_event_is_one_line_of_json() -> None:
    stream = io.StringIO()
    configured(stream)
    logger("penstock.models").info("model ready", model="ä\n", version=3, seconds=0.5)
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "logger", "event", "model", "version", "seconds"]
    assert line["level"] == "info"
    assert line["logger"] == "penstock.models"
    assert (line["event"], line["model"], line["version"], line["seconds"]) == ("model ready", "ä\n", 3, 0.5)
    assert line["timestamp"].endswith("Z")
    age = datetime.now(UTC) - datetime.fromisoformat(line["timestamp"])
    assert timedelta(0) <= age < timedelta(seconds=30)


def test_auto_is_readable_and_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    configured(stream)
    logger("penstock").info("model ready", model="m")
    assert "\x1b[" in written(stream)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", written(stream))
    assert re.search(r"Z \[info +\] model ready +\[penstock\] model=m\n$", plain)


def test_no_color_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configured(stream)
    logger("penstock").info("model ready")
    assert "model ready" in written(stream)
    assert "\x1b[" not in written(stream)


def test_the_format_can_be_forced() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    configured(terminal, format="json")
    logger("penstock").info("one")
    configured(pipe, format="console")
    logger("penstock").info("two")
    assert lines(terminal)[0]["event"] == "one"
    assert "two" not in written(terminal)  # the second call replaced the first
    assert "] two" in written(pipe)
    assert "\x1b[" not in written(pipe)


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(level: str, shown: list[str]) -> None:
    stream = io.StringIO()
    configured(stream, level=level)
    log = logger("penstock.x")
    for write in (log.debug, log.info, log.warning, log.error):
        write("event")
    assert [line["level"] for line in lines(stream)] == shown


@pytest.mark.parametrize("form", ["json", "console"])
def test_exceptions_are_shown_without_local_variables(form: str) -> None:
    stream = io.StringIO()
    configured(stream, format=form)
    secret = "only for " + "me"
    try:
        raise ValueError(f"bad of length {len(secret)}")
    except ValueError:
        logger("penstock").exception("load failed", model="m")
    assert "ValueError: bad of length 11" in written(stream)
    assert "Traceback" in written(stream)
    assert secret not in written(stream)


@pytest.mark.parametrize("form", ["json", "console"])
def test_tensor_values_are_never_shown(form: str) -> None:
    stream = io.StringIO()
    configured(stream, format=form)
    logger("penstock").info("odd", tensor=np.full((2, 3), 79276.0), scalar=np.float32(79276))
    assert "79276" not in written(stream)
    assert "float64[2, 3]" in written(stream)


def test_what_json_lacks_is_shown_as_python_does() -> None:
    stream = io.StringIO()
    configured(stream)
    logger("penstock").info("odd", value={1, 2}, kind=LogConfig)
    assert lines(stream)[0]["value"] == "{1, 2}"


def test_other_packages_write_the_same_lines() -> None:
    stream = io.StringIO()
    configured(stream, level="debug")
    logging.getLogger("grpc").info("not shown")
    logging.getLogger("grpc").warning("%d calls", 3)
    logging.getLogger("penstock.operations").debug("shown")
    assert [(line["logger"], line["event"]) for line in lines(stream)] == [
        ("grpc", "3 calls"),
        ("penstock.operations", "shown"),
    ]


def test_handlers_of_others_stay() -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    configured(io.StringIO())
    configured(io.StringIO())
    assert other in logging.getLogger().handlers
    assert sum(type(each).__module__ == configure.__module__ for each in logging.getLogger().handlers) == 1


WRITE = (
    "from penstock.config import LogConfig\nfrom penstock.observability.logs import configure, logger\n"
    "configure(LogConfig())\nlogger('penstock').info('ready', port=1)"
)


def test_standard_error_in_a_pipe_gets_json() -> None:
    done = subprocess.run([sys.executable, "-c", WRITE], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert json.loads(done.stderr)["event"] == "ready"


def test_standard_error_on_a_terminal_is_for_people() -> None:
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", WRITE], stderr=theirs, check=True)
    os.close(theirs)
    text = os.read(ours, 4096).decode()
    os.close(ours)
    assert "ready" in text
    assert not text.startswith("{")


def test_nothing_is_imported_for_a_logger_that_says_nothing() -> None:
    code = (
        "import sys\nfrom penstock.observability.logs import logger\nlogger('penstock.x').info('not shown')\n"
        "sys.exit(bool({'structlog', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
