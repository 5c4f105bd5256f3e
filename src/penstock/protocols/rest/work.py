"""How much work messages of JSON are."""

from __future__ import annotations

from typing import Any

from penstock.core.request import Response
from penstock.core.wire import Names
from penstock.protocols.work import Work, elements_of

ELEMENT_SECONDS = 100e-9
"""For each value of an answer that is written as JSON."""


FEW_VALUES = 256
"""The values of an answer that are not worth counting exactly."""


def _answer_seconds(response: Response, form: Any) -> float:
    run = response.run
    shared = run.shared
    if shared is None:
        shared = run.shared = {}
    values = shared.get(_answer_seconds)
    if values is None:  # of a row, with all outputs
        values = shared[_answer_seconds] = sum([array.size for array in run.outputs.values()]) / (
            run.rows or 1
        )
    assert isinstance(values, float), "nothing else is put there"
    stop = response.stop
    if stop is not None and values * (stop - response.start) <= FEW_VALUES:
        return ELEMENT_SECONDS * FEW_VALUES
    return ELEMENT_SECONDS * sum([elements_of(response, name) for name in response.names])


NAMES: Names = {}
WORK = Work(lambda _: 0.0, NAMES, _answer_seconds, lambda _: ("", 0))
"""Requests are decoded by the thread that serves HTTP, or by workers if they are large."""
