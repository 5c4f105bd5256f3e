"""What the tests of the page share."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import onnx

BOUND = 20.0
"""No call of a test may take longer: seconds."""

ODD = """<img src=x onerror="document.title='taken over'"> it's"""
"""The name of an input that would be code, if it were not text."""

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
"""The Accept header of a browser."""


class Answer(NamedTuple):
    """An answer of the operations port; the names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    text: str


def ask(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    """Asks for a page; in the names of headers "_" stands for "-"."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=BOUND)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    try:
        connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read().decode())
    finally:
        connection.close()


def call(ops: str, query: str, record: Any, **headers: str) -> Answer:
    """Calls a model as the page does."""
    sent = {"Content_Type": "application/json", "Sec_Fetch_Site": "same-origin", **headers}
    return ask(f"{ops}/call?{query}", "POST", json.dumps(record).encode(), **sent)


@contextmanager
def events(ops: str) -> Iterator[Iterator[tuple[str, Any]]]:
    """The events of the page as they come: name and data."""
    end = time.monotonic() + BOUND
    connection = http.client.HTTPConnection(urlsplit(ops).netloc, timeout=BOUND)
    try:
        while True:
            connection.request("GET", "/events")
            response = connection.getresponse()
            if response.status == 200 or time.monotonic() > end:
                break
            response.read()  # watchers of earlier tests have not left yet
        assert response.status == 200, response.read()
        assert response.getheader("Content-Type") == "text/event-stream"
        with response:
            yield _read(response)
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in response:
        key, _, value = line.decode().rstrip("\n").partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)


def first(found: Iterator[tuple[str, Any]], wanted: str) -> Any:
    """The data of the next event with a name."""
    return next(data for name, data in found if name == wanted)


def renamed(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with another name for its only input."""
    old = model.graph.input[0].name
    model.graph.input[0].name = name
    for node in model.graph.node:
        node.input[:] = [name if each == old else each for each in node.input]
    return model
