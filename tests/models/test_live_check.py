"""What counts as a difference between answers of live requests that ran together and alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.backends.onnx import OnnxBackend
from penstock.config import Config
from penstock.core.tensors import DataType
from penstock.models.checks.live import LiveCheck, verified, why_not_verified
from penstock.models.model import Batching
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.scheduling.verification import Mismatch, Verifier
from support import zoo
from support.work import Tally, request, run_all, spec

ROUNDS = Batching(True, "for a test", 1e-7)
AGREES = Batching(True, "for a test", 0.0)
EXACT = Batching(True, "for a test", 1e-7, exact=True)


def compared(
    together: list[Any],
    alone: list[Any],
    datatype: DataType = DataType.FP32,
    batching: Batching = ROUNDS,
    tolerance: float = 0.0,
) -> Mismatch | None:
    """Compares one output of several requests."""
    check = LiveCheck({"y": spec("y", ("N", "L"), datatype)}, batching, tolerance)
    return check(*([{"y": np.array(each, datatype.dtype)} for each in some] for some in (together, alone)))


@pytest.mark.parametrize(
    ("together", "alone"),
    [
        ([[[1.0]], [[2.0]]], [[[1.0]], [[2.0]]]),
        ([[[1.0]], [[2.0]]], [[[1.00001]], [[2.0]]]),
        (
            [[[1e-6]], [[2.0]]],
            [[[2e-6]], [[2.0]]],
        ),  # small beside the other value
        ([[[np.nan, 1.0]]], [[[np.nan, 1.0]]]),
        ([[[np.inf, 1.0]]], [[[np.inf, 1.0]]]),
        ([[[1.0], [2.0]], [[3.0]]], [[[1.0], [2.0]], [[3.0]]]),
        ([[[1.0, 2.0]], [[3.0]]], [[[1.0, 2.0]], [[3.0]]]),  # of other lengths
        ([[[0.0]]], [[[-0.0]]]),
        ([np.zeros((1, 0))], [np.zeros((1, 0))]),
    ],
)
def test_these_agree(together: list[Any], alone: list[Any]) -> None:
    assert compared(together, alone) is None


@pytest.mark.parametrize(
    ("together", "alone", "words", "place"),
    [
        ([[[1.0]], [[2.0]]], [[[1.0]], [[2.1]]], "(it differs by 5.0e-02)", 1),
        ([[[1.0]], [[2.0]]], [[[1.5]], [[2.1]]], "(it differs by 2.5e-01)", 0),
        ([[[1.0, 1.0]]], [[[1.0]]], "(it has shape [1, 2], and [1, 1] alone)", 0),
        ([[[np.nan]]], [[[1.0]]], "depends on the other rows of a batch", 0),
        ([[[np.inf]]], [[[-np.inf]]], "depends on the other rows of a batch", 0),
    ],
)
def test_these_do_not(together: list[Any], alone: list[Any], words: str, place: int) -> None:
    found = compared(together, alone)
    assert found is not None
    assert (found.output, found.place) == ("y", place)
    assert found.reason.endswith(words)


@pytest.mark.parametrize(("axis", "agrees"), [(1, False), (0, True)])
def test_values_are_compared_at_the_place_of_a_row(axis: int, agrees: bool) -> None:
    """A value is small beside those at the same place of other rows, not beside those of its own row."""
    y = np.array([[1e-3, 1e-3], [1.0, 1.0]], np.float32)  # two rows, along the second axis
    other = y + np.array([[1e-5], [0.0]], np.float32)
    check = LiveCheck({"y": spec("y", (2, "N"))}, ROUNDS, row_axes={"y": axis})
    assert (check([{"y": y}], [{"y": other}]) is None) is agrees


def test_the_tolerance_of_padding_counts_for_padded_models() -> None:
    assert compared([[[1.0]]], [[[1.01]]]) is not None
    assert compared([[[1.0]]], [[[1.01]]], tolerance=0.1) is None


def test_exact_models_must_be_equal() -> None:
    assert compared([[[1.0]]], [[[1.000001]]], batching=EXACT) is not None
    assert compared([[[1.0]]], [[[1.000001]]], batching=EXACT, tolerance=0.1) is not None
    assert compared([[[np.nan, 1.0]]], [[[np.nan, 1.0]]], batching=EXACT) is None


@pytest.mark.parametrize(
    ("datatype", "one", "nearly_one", "two"),
    [
        (DataType.FP16, 0x3C00, 0x3C01, 0x4000),
        (DataType.BF16, 0x3F80, 0x3F81, 0x4000),
        (DataType.FP64, 0x3FF0_0000_0000_0000, 0x3FF0_0000_0000_0001, 0x4000_0000_0000_0000),
        (DataType.FP8E4M3FN, 0x38, 0x38, 0x40),
    ],
)
def test_numbers_of_all_kinds(datatype: DataType, one: int, nearly_one: int, two: int) -> None:
    """The numbers are given by their bits."""
    values = [
        np.array([[bits]], f"u{datatype.dtype.itemsize}").view(datatype.dtype)
        for bits in (one, nearly_one, two)
    ]
    assert compared([values[0]], [values[1]], datatype) is None
    assert compared([values[0]], [values[2]], datatype) is not None


@pytest.mark.parametrize(
    ("datatype", "first", "second"), [(DataType.INT64, 1, 2), (DataType.BYTES, "a", "b")]
)
def test_rounding_may_decide_about_few_classes(datatype: DataType, first: Any, second: Any) -> None:
    """Of a model that is known to round differently in a batch; if not, every difference counts."""
    rows = lambda value: [{"y": np.array([[value]], datatype.dtype)}] * 8  # noqa: E731
    other = [*rows(first)[1:], *rows(second)[:1]]
    for batching in (AGREES, EXACT):
        assert LiveCheck({"y": spec("y", ("N", 1), datatype)}, batching)(rows(first), other) is not None
    check = LiveCheck({"y": spec("y", ("N", 1), datatype)}, ROUNDS)
    assert check(rows(first), other) is None
    assert check(rows(first), rows(first)) is None
    found = check(rows(first), other)
    assert found == Mismatch("y", "output y depends on the other rows of a batch", None, 7)
    often = LiveCheck({"y": spec("y", ("N", 1), datatype)}, ROUNDS)
    for number in range(300):
        assert often(rows(first), other if number in (0, 250) else rows(first)) is None


def test_models_that_draw_random_numbers_are_not_verified() -> None:
    assert why_not_verified("", False, 0.001) == ""
    assert why_not_verified("node 3 RandomNormal", False, 1.0) == "node 3 RandomNormal draws random numbers"
    assert why_not_verified("", True, 1.0) == "an output has a length that the model gives itself"
    assert why_not_verified("", False, 0.0) == "batching.verify is 0"


def test_what_is_verified_is_said() -> None:
    assert verified(1.0, False) == "every batch is verified on live requests, in idle time"
    assert verified(0.001, True).startswith("one batch in 1000, or about ten a second, is verified on live")


@pytest.mark.parametrize(
    ("settings", "kept"), [("", 1), ("[batching]\nverify = 0\n", 0), ("[batching]\nenabled = false\n", 0)]
)
def test_a_registry_has_batched_models_verified(tmp_path: Path, settings: str, kept: int) -> None:
    path = zoo.repository(tmp_path, {"m": zoo.identity()})
    (path / "m" / "model.toml").write_text(settings)
    verifier = Verifier()
    registry = ModelRegistry(
        Config(),
        OnnxBackend,
        lambda _: Tally(),
        verifier=verifier,  # type: ignore[arg-type]
    )
    registry.load_all(scan(path), lambda _: None)
    (model,) = registry.all()
    inputs = {"x": np.ones((1, 3), np.float32)}
    run_all(model.batcher, *(request(inputs, rows=1) for _ in range(3)))
    assert len(verifier._kept) == kept
    registry.close()
