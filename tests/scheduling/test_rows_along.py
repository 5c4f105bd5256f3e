"""Batches along any axis are put together and taken apart without a row changing hands."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import ModelFailed
from penstock.core.request import Run
from penstock.core.tensors import Array
from penstock.scheduling.packing.rows import RowsAlong
from support.work import request


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2), st.integers(0, 2), st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_every_request_gets_its_slice(taken: int, given: int, rows: list[int]) -> None:
    numbers = np.arange(2 * 3 * sum(rows)).reshape(sum(rows), 2, 3)
    ends = np.cumsum(rows)[:-1]
    shares = np.split(np.moveaxis(numbers, 0, taken), ends, taken)
    batch = [
        request({"x": share, "rate": np.array(2)}, rows=count, outputs=("y", "plain"))
        for share, count in zip(shares, rows, strict=True)
    ]
    packing = RowsAlong({name: axis for name, axis in (("x", taken), ("y", given)) if axis}, ["rate"])
    inputs = packing.assemble(batch)
    assert np.array_equal(inputs["x"], np.moveaxis(numbers, 0, taken))
    assert inputs["rate"] == 2
    run = Run(1.0, 1.0, 2.0, sum(rows), {"y": np.moveaxis(numbers, 0, given), "plain": numbers[:, 0, 0]})
    expected = np.split(run.outputs["y"], ends, given)
    for response, share, each in zip(packing.split(batch, run), expected, batch, strict=True):
        assert np.array_equal(response.outputs["y"], share)
        assert len(response.outputs["plain"]) == each.rows
        assert response.run.rows == run.rows


def test_a_lone_request_is_used_as_it_is() -> None:
    alone = request([1, 2])
    packing = RowsAlong({"x": 1})
    assert packing.packs_single
    assert packing.assemble([alone]) is alone.inputs


def test_each_response_has_only_what_its_request_asks_for() -> None:
    batch = [request(outputs=("a",)), request(outputs=("b",)), request(outputs=("a", "b"))]
    run = Run(1.0, 1.0, 2.0, 3, {"a": np.arange(6).reshape(2, 3), "b": np.arange(3)})
    found = [each.outputs for each in RowsAlong({"a": 1}).split(batch, run)]
    assert [sorted(each) for each in found] == [["a"], ["b"], ["a", "b"]]
    assert found[2]["a"].tolist() == [[2], [5]]


@pytest.mark.parametrize("outputs", [{"y": np.zeros((2, 3))}, {"y": np.zeros(2)}, {"w": np.zeros((3, 2))}])
@pytest.mark.parametrize("count", [1, 2])
def test_an_output_of_another_number_of_rows_is_the_models_failure(
    outputs: Mapping[str, Array], count: int
) -> None:
    batch = [request(rows=2 // count, outputs=tuple(outputs)) for _ in range(count)]
    with pytest.raises(ModelFailed, match=r"output \w has shape \[.*\] for 2 rows"):
        RowsAlong({"y": 1}).split(batch, Run(1.0, 1.0, 2.0, 2, outputs))
