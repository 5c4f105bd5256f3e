"""Batches are put together and taken apart without a row changing hands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.request import Request, Run
from penstock.core.tensors import Array
from penstock.scheduling.packing.rows import Rows
from support.work import request

ROWS = Rows(batched=True)


def parts(batch: Sequence[Request], outputs: dict[str, Array]) -> list[dict[str, Array]]:
    run = Run(1.0, 1.0, 2.0, sum(each.rows for each in batch), outputs)
    return [response.outputs for response in ROWS.split(batch, run)]


def with_inputs(**inputs: Any) -> Any:
    return request({name: np.array(value) for name, value in inputs.items()})


def test_a_lone_request_is_used_as_it_is() -> None:
    alone = request([1, 2])
    assert ROWS.assemble([alone]) is alone.inputs


def test_rows_follow_one_another_in_order() -> None:
    batch = [with_inputs(a=[[1], [2]], b=["p", "q"]), with_inputs(a=[[3]], b=["r"])]
    together = ROWS.assemble(batch)
    assert together["a"].tolist() == [[1], [2], [3]]
    assert together["b"].tolist() == ["p", "q", "r"]


@pytest.mark.parametrize("dtype", ["?", "u1", "<i8", "<f2", "<f8", "O"])
def test_the_datatype_stays(dtype: str) -> None:
    batch = [request({"x": np.ones((2, 3), dtype)}) for _ in range(2)]
    assert ROWS.assemble(batch)["x"].dtype == np.dtype(dtype)


def test_requests_of_no_rows_add_none() -> None:
    batch = [request([]), request([1.0]), request([])]
    assert ROWS.assemble(batch)["x"].tolist() == [[1.0]]
    shares = parts(batch, {"y": np.array([[7.0]])})
    assert [share["y"].shape for share in shares] == [(0, 1), (1, 1), (0, 1)]


def test_the_wanted_outputs_are_those_that_somebody_wants() -> None:
    assert ROWS.wanted([request(outputs=("a", "b")), request(outputs=("a", "b"))]) == ("a", "b")
    mixed = [request(outputs=("a", "b")), request(outputs=("c",)), request(outputs=("c", "a"))]
    assert ROWS.wanted(mixed) == ["a", "b", "c"]


def test_everybody_gets_the_outputs_that_he_wants() -> None:
    batch = [request([1], outputs=("a",)), request([2], outputs=("b", "a"))]
    first, second = parts(batch, {"a": np.array([[1], [2]]), "b": np.array([[10], [20]])})
    assert {name: part.tolist() for name, part in first.items()} == {"a": [[1]]}
    assert {name: part.tolist() for name, part in second.items()} == {"a": [[2]], "b": [[20]]}


def test_parts_are_views() -> None:
    output = np.arange(4.0).reshape(4, 1)
    for part in parts([request([0, 1]), request([2, 3])], {"y": output}):
        assert np.shares_memory(part["y"], output)


def test_a_model_without_batches_gives_all_it_has_to_the_one_request() -> None:
    run = Run(1.0, 1.0, 2.0, 1, {"y": np.arange(3.0), "z": np.array(1.0)})
    (response,) = Rows(batched=False).split([request([1], outputs=("y", "z"))], run)
    assert {name: share.tolist() for name, share in response.outputs.items()} == {"y": [0, 1, 2], "z": 1}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_apart_is_what_was_put_together(lengths: list[int]) -> None:
    chance = np.random.default_rng(0)
    inputs: list[Mapping[str, Array]] = [
        {"x": chance.random((rows, 2)), "w": chance.integers(9, size=rows).astype(object)} for rows in lengths
    ]
    batch = [request(each, outputs=("x", "w")) for each in inputs]
    together = ROWS.assemble(batch)
    for given_in, part in zip(inputs, parts(batch, {**together}), strict=True):
        np.testing.assert_array_equal(part["x"], given_in["x"])
        np.testing.assert_array_equal(part["w"], given_in["w"])
