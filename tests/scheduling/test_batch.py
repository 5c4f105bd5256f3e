"""Batches are put together and taken apart without a row changing hands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.scheduling.batch import assemble, split, wanted_outputs
from penstock.tensors import Array
from support.work import request


def with_inputs(**inputs: Any) -> Any:
    return request({name: np.array(value) for name, value in inputs.items()})


def test_a_lone_request_is_used_as_it_is() -> None:
    alone = request([1, 2])
    assert assemble([alone]) is alone.inputs


def test_rows_follow_one_another_in_order() -> None:
    batch = [with_inputs(a=[[1], [2]], b=["p", "q"]), with_inputs(a=[[3]], b=["r"])]
    together = assemble(batch)
    assert together["a"].tolist() == [[1], [2], [3]]
    assert together["b"].tolist() == ["p", "q", "r"]


@pytest.mark.parametrize("dtype", ["?", "u1", "<i8", "<f2", "<f8", "O"])
def test_the_datatype_stays(dtype: str) -> None:
    parts = [request({"x": np.ones((2, 3), dtype)}) for _ in range(2)]
    assert assemble(parts)["x"].dtype == np.dtype(dtype)


def test_requests_of_no_rows_add_none() -> None:
    batch = [request([]), request([1.0]), request([])]
    assert assemble(batch)["x"].tolist() == [[1.0]]
    parts = list(split(batch, ["y"], [np.array([[7.0]])]))
    assert [part["y"].shape for part in parts] == [(0, 1), (1, 1), (0, 1)]


def test_the_wanted_outputs_are_those_that_somebody_wants() -> None:
    assert wanted_outputs([request(outputs=("a", "b")), request(outputs=("a", "b"))]) == ("a", "b")
    mixed = [request(outputs=("a", "b")), request(outputs=("c",)), request(outputs=("c", "a"))]
    assert wanted_outputs(mixed) == ["a", "b", "c"]


def test_everybody_gets_the_outputs_that_he_wants() -> None:
    batch = [request([1], outputs=("a",)), request([2], outputs=("b", "a"))]
    outputs = [np.array([[1], [2]]), np.array([[10], [20]])]
    first, second = split(batch, ["a", "b"], outputs)
    assert {name: part.tolist() for name, part in first.items()} == {"a": [[1]]}
    assert {name: part.tolist() for name, part in second.items()} == {"a": [[2]], "b": [[20]]}


def test_parts_are_views() -> None:
    output = np.arange(4.0).reshape(4, 1)
    for part in split([request([0, 1]), request([2, 3])], ["y"], [output]):
        assert np.shares_memory(part["y"], output)


def test_an_output_too_few_is_noticed() -> None:
    for batch in ([request()], [request(), request()]):
        with pytest.raises(ValueError, match="zip"):
            list(split(batch, ["a", "b"], [np.zeros((len(batch), 1))]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_apart_is_what_was_put_together(lengths: list[int]) -> None:
    chance = np.random.default_rng(0)
    inputs: list[Mapping[str, Array]] = [
        {"x": chance.random((rows, 2)), "w": chance.integers(9, size=rows).astype(object)} for rows in lengths
    ]
    batch = [request(each, outputs=("x", "w")) for each in inputs]
    together = assemble(batch)
    for given_in, part in zip(inputs, split(batch, ("x", "w"), [together["x"], together["w"]]), strict=True):
        np.testing.assert_array_equal(part["x"], given_in["x"])
        np.testing.assert_array_equal(part["w"], given_in["w"])
