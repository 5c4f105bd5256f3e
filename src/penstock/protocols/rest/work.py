"""How much work messages of JSON are."""

from __future__ import annotations

from typing import Any

from penstock.core.request import Response
from penstock.core.wire import Names
from penstock.protocols.work import Work, elements_of

ELEMENT_SECONDS = 100e-9
"""For each value of an answer that is written as JSON."""


def _answer_seconds(response: Response, form: Any) -> float:
    return ELEMENT_SECONDS * sum([elements_of(response, name) for name in response.names])


NAMES: Names = {}
WORK = Work(lambda _: 0.0, NAMES, _answer_seconds, lambda _: ("", 0))
"""Requests are decoded by the thread that serves HTTP, or by workers if they are large."""
