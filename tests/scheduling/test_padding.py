"""Requests of different lengths are padded into one batch, and their answers are cut back to their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import InvalidRequest, ModelFailed
from penstock.core.request import Request, Response, Run
from penstock.core.tensors import Array
from penstock.scheduling.packing.padding import PaddedRows, PaddingPlan
from support.work import request

INT, FLOAT = np.dtype("<i8"), np.dtype("<f4")


def plan(**changes: Any) -> PaddingPlan:
    """Pads `x` along its axis 1 to 4 and 8, and cuts `y` back."""
    fields: dict[str, Any] = {
        "dtypes": {"x": FLOAT},
        "axes": {"x": 1},
        "fills": {"x": 0},
        "outputs": {"y": (1,)},
        "buckets": (4, 8),
    }
    return PaddingPlan(**{**fields, **changes})


TEXT = plan(
    dtypes={"ids": INT, "mask": FLOAT, "n": INT},
    axes={"ids": 1, "mask": 1},
    fills={"ids": -1, "mask": 0},
    mask="mask",
    lengths="n",
)


def batch_of(*inputs: Mapping[str, Any], outputs: Sequence[str] = ("y",)) -> list[Request]:
    arrays = [{name: np.array(value) for name, value in each.items()} for each in inputs]
    return [request(each, outputs=outputs) for each in arrays]


def answers(
    packing: PaddedRows, batch: Sequence[Request], outputs: Mapping[str, Array]
) -> tuple[list[Response], Run]:
    run = Run(1.0, 1.5, 2.0, sum(each.rows for each in batch), outputs)
    return packing.split(batch, run), run


@pytest.mark.parametrize(("length", "padded"), [(0, 0), (1, 4), (4, 4), (5, 8), (8, 8), (9, 9), (70, 70)])
def test_a_length_becomes_the_next_bucket_or_stays_beyond_them(length: int, padded: int) -> None:
    assert plan().padded(length) == padded


def test_what_requests_of_a_bucket_have_in_common() -> None:
    keys = [plan().key({"x": np.zeros((rows, length), FLOAT)}) for rows, length in [(1, 1), (3, 4), (1, 5)]]
    assert keys[0] == keys[1] != keys[2]


def test_other_open_axes_must_be_equal() -> None:
    deep = plan(axes={"x": 2})
    shapes = [(1, 3, 1, 2), (1, 3, 4, 2), (1, 9, 4, 2), (1, 3, 4, 5)]
    keys = [deep.key({"x": np.zeros(shape, FLOAT)}) for shape in shapes]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_what_is_left_out_keeps_nobody_from_a_batch() -> None:
    ids = np.zeros((1, 3), INT)
    assert TEXT.key({"ids": ids}) == TEXT.key({"ids": ids, "mask": np.ones((1, 3), FLOAT)})


def test_inputs_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="the same length: ids has 3, mask has 2"):
        TEXT.key({"ids": np.zeros((1, 3), INT), "mask": np.ones((1, 2), FLOAT)})


def test_many_short_rows_may_not_become_too_much() -> None:
    small = plan(max_bytes=4 * 4 * 10)
    small.key({"x": np.zeros((10, 1), FLOAT)})
    small.key({"x": np.zeros((10, 4), FLOAT)})
    small.key({"x": np.zeros((1000, 9), FLOAT)})  # at its own length
    with pytest.raises(InvalidRequest, match=r"11 rows of length 1, padded to 4, take 176 bytes, limit 160"):
        small.key({"x": np.zeros((11, 1), FLOAT)})


def test_rows_of_a_length_lie_side_by_side() -> None:
    batch = batch_of({"x": [[1.0, 2.0]]}, {"x": [[3.0]]}, {"x": [[4.0, 5.0], [6.0, 7.0]]})
    assert PaddedRows(plan()).assemble(batch)["x"].tolist() == [
        [1, 2, 0, 0],
        [4, 5, 0, 0],
        [6, 7, 0, 0],
        [3, 0, 0, 0],
    ]


def test_masks_and_lengths_are_made_up_where_they_were_left_out() -> None:
    made = PaddedRows(TEXT).assemble(batch_of({"ids": [[7, 7, 7]]}, {"ids": [[7]]}))
    assert made["ids"].tolist() == [[7, 7, 7, -1], [7, -1, -1, -1]]
    assert made["mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert made["n"].tolist() == [3, 1]
    assert {name: array.dtype for name, array in made.items()} == TEXT.dtypes


def test_masks_and_lengths_that_were_sent_say_the_truth() -> None:
    ids = [[7, 7], [7, 7]]
    batch = batch_of({"ids": ids, "mask": [[1, 0], [1, 1]]}, {"ids": ids, "n": [2, 1]}, {"ids": ids})
    made = PaddedRows(TEXT).assemble(batch)
    assert made["mask"][:, :2].tolist() == [[1, 0], [1, 1], [1, 1], [1, 0], [1, 1], [1, 1]]
    assert not made["mask"][:, 2:].any()
    assert made["n"].tolist() == [1, 2, 2, 1, 2, 2]


def test_inputs_without_the_axis_are_put_together_as_ever() -> None:
    both = plan(dtypes={"x": FLOAT, "w": INT})
    batch = batch_of({"x": [[1.0, 2.0]], "w": [[1, 2]]}, {"x": [[3.0]], "w": [[3, 4]]})
    assert PaddedRows(both).assemble(batch)["w"].tolist() == [[1, 2], [3, 4]]


def test_texts_are_padded_as_well() -> None:
    words = plan(dtypes={"x": np.dtype("O")}, fills={"x": ""})
    made = PaddedRows(words).assemble([request({"x": np.array([["a", "b"]], object)})])
    assert made["x"].tolist() == [["a", "b", "", ""]]


def test_requests_of_a_length_share_a_run_of_their_own() -> None:
    batch = batch_of({"x": [[1.0, 2.0]]}, {"x": [[3.0]]}, {"x": [[4.0, 5.0]]})
    (first, second, third), run = answers(PaddedRows(plan()), batch, {"y": np.zeros((3, 4), FLOAT)})
    assert first.run is third.run is not second.run
    assert {each.run.rows for each in (first, second, third)} == {3}, "the rows of the whole batch"
    assert (second.run.started, second.run.assembled, second.run.finished) == (1.0, 1.5, 2.0)
    assert run.padding == (5, 7)


def test_where_nothing_is_cut_all_share_the_run() -> None:
    batch = batch_of({"x": [[1.0, 2.0]]}, {"x": [[3.0]]}, {"x": [[4.0, 5.0]]})
    output = np.array([[1.0], [4.0], [3.0]])
    found, run = answers(PaddedRows(plan(outputs={})), batch, {"y": output})
    assert all(each.run is run for each in found)
    assert [each.outputs["y"].item() for each in found] == [1.0, 3.0, 4.0]


def test_an_output_without_one_entry_a_row_cannot_be_taken_apart() -> None:
    with pytest.raises(ModelFailed, match="for 1 row"):
        answers(PaddedRows(plan()), batch_of({"x": [[1.0]]}), {"y": np.zeros((2, 4))})


SHAPES = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8)), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.sampled_from([1, 2]))
def test_cutting_undoes_padding(shapes: list[tuple[int, int]], axis: int) -> None:
    """Of a model that gives what it takes, everybody gets back what he sent, however requests lie."""
    chance = np.random.default_rng(0)
    one_bucket = plan(axes={"x": axis}, outputs={"y": (axis,)}, buckets=(8,))
    arrays = [chance.random((rows, length, 3), FLOAT) for rows, length in shapes]
    if axis == 2:
        arrays = [chance.random((rows, 2, length), FLOAT) for rows, length in shapes]
    batch = [request({"x": each}) for each in arrays]
    packing = PaddedRows(one_bucket)
    together = packing.assemble(batch)["x"]
    assert together.shape[axis] == 8
    found, run = answers(packing, batch, {"y": together})
    for sent, response in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(response.outputs["y"], sent)
    real = sum(rows * length for rows, length in shapes)
    assert run.padding == (real, 8 * run.rows - real)
