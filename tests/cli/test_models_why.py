"""`penstock models`: what batching rests on, what runs cost, and signatures of many tensors."""

from __future__ import annotations

import pytest

from penstock.cli.models import _cost, _lines
from penstock.core.names import on_lines
from penstock_client import BatchingInfo, ModelInfo, RunCost, TensorInfo


def info(inputs: int = 1, **batching: object) -> ModelInfo:
    tensors = [TensorInfo(f"a_name_that_is_long_{place}", "FP32", ("N", 3)) for place in range(inputs)]
    known = {"enabled": True, "reason": "rows agree", "max_rows": 32, "max_delay_seconds": 0.0, **batching}
    return ModelInfo(
        name="m",
        version="1",
        state="READY",
        state_reason="",
        is_default=True,
        labels=[],
        inputs=tensors,
        outputs=tensors[:1],
        batching=BatchingInfo(**known),  # type: ignore[arg-type]
        metadata={},
        opsets={},
        sha256="",
        size_bytes=0,
        providers=[],
        loaded_at=None,
    )


def test_why_is_shown_where_it_is_asked_for() -> None:
    model = info(why=("by the graph, rows are apart", "compared in batches of 2 rows"))
    assert list(_lines(model, True))[3:] == [
        "  batched    up to 32 rows: rows agree",
        "  why        by the graph, rows are apart",
        "  why        compared in batches of 2 rows",
    ]
    assert not any("why" in line for line in _lines(model))


@pytest.mark.parametrize(
    ("base", "row", "words"),
    [
        (1e-5, 2e-6, "10 µs a run and 2 µs a row"),
        (0.0, 0.061, "61 ms a row, no fixed cost"),
        (1e-9, 0.061, "61 ms a row, no fixed cost"),
        (1e-5, 0.0, "10 µs a run, however many rows"),
        (0.0, 0.0, "less than can be measured"),
    ],
)
def test_costs_are_told_as_what_they_are(base: float, row: float, words: str) -> None:
    assert _cost(RunCost(0, base, row, 1.0, 0)) == f"{words} (as measured when it was tried, no runs yet)"


def test_a_model_that_runs_alone_has_the_cost_of_a_run() -> None:
    words = "10 µs a run (as measured when it was tried, no runs yet)"
    assert _cost(RunCost(0, 1e-5, 0.0, 1.0, 0), batched=False) == words


def test_many_tensors_are_listed_one_a_line() -> None:
    lines = "\n".join(_lines(info(inputs=8))).splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("  inputs"))
    assert lines[place] == "  inputs     a_name_that_is_long_0 FP32[N,3]"
    assert lines[place + 1] == "             a_name_that_is_long_1 FP32[N,3]"
    assert on_lines("inputs ", ["x", "y"]) == "inputs x, y"
    assert on_lines("inputs ", []) == "inputs none"
