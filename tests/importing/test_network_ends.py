"""What the inputs of a network take of a sample, without the frameworks that networks come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper

from importing.networks import lists, numbers
from penstock.importing.errors import LacksColumns, Refused
from penstock.importing.graph_ends import finished
from penstock.importing.hard_rows import hard_rows
from penstock.importing.network_ends import Tensor, attach, taken
from penstock.importing.recurrent import keep_missing
from penstock.importing.table import list_column

STEPS = Tensor("steps", (2, 2), "int32")


def network() -> Any:
    """Sums of whole numbers over the first axis after that of rows: INT32 [N, 2, 2] to [N, 2]."""
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.INT32, shape)]
        for name, shape in (("own", ["n", 2, 2]), ("sum", ["n", 2]))
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    node = helper.make_node("ReduceSum", ["own", "axes"], ["sum"], keepdims=0)
    graph = helper.make_graph([node], "sums", *ends, initializer=[axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("rows", [numbers(9, 1), lists(9, 1, 2, 2)])
def test_a_graph_takes_what_the_sample_has(rows: Any, vector: bool) -> None:
    if vector and len(rows.columns) == 1:
        given = taken("a network", [STEPS], rows, False)
        assert [str(each.shape) for each in given.inputs.columns] == ["(2, 2)"]
    given = taken("a network", [STEPS], rows, vector and len(rows.columns) > 1)
    model = network()
    attach(model.graph, [("own", STEPS)], given)
    made = finished(model, given.inputs, ["prediction"])
    session = ort.InferenceSession(made.SerializeToString())
    got = session.run(["prediction"], given.inputs.feeds(rows))[0]
    wanted = given.values(rows, STEPS)
    assert wanted.shape == (9, 2, 2)
    assert got.tolist() == wanted.sum(1).tolist()


@pytest.mark.parametrize(
    ("tensor", "rows", "said"),
    [
        (STEPS, lists(3, 1, 4), r'steps \[rows, 2, 2\], and column "values" holds \[4\]'),
        (STEPS, numbers(3, 1, 5), "of 4 numbers; the sample has 5 columns"),
        (STEPS, numbers(3, 1).assign(city="Oslo"), "these columns hold texts: city"),
        (STEPS, lists(3, 1, 2, 2).assign(a=1.0), "the sample has lists in values, and 2 columns"),
        (Tensor("words", (), "string"), numbers(3, 1), r"words \[rows\] takes string, expected numbers"),
        (Tensor("a", (2,), "float32"), numbers(3, 1), 'column "a" holds single numbers'),
    ],
)
def test_what_does_not_fit(tensor: Tensor, rows: Any, said: str) -> None:
    with pytest.raises(Refused, match=said):
        taken("a network", [tensor], rows, False)


def test_inputs_by_name() -> None:
    named = [Tensor("c", (1,), "float32"), Tensor("a", (), "float32")]
    given = taken("a network", named, numbers(3, 1), False)
    assert [each.name for each in given.inputs.columns] == ["c", "a"]
    assert given.values(numbers(3, 1), named[1]).shape == (3,)
    with pytest.raises(LacksColumns, match=r"lacks columns for inputs of the model .*: other"):
        taken("a network", [*named, Tensor("other", (1,), "float32")], numbers(3, 1), False)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[1.0], None], "1 are missing"),
        ([[1.0], [1.0, 2.0]], r"lists of different shapes: \[1\], \[2\]"),
        ([[], []], "empty lists"),
        ([["a"], ["b"]], "lists that are not all numbers"),
        ([[[1.0], [1.0, 2.0]]], "lists that are not all numbers"),
    ],
)
def test_lists_that_are_no_tensors(values: Any, said: str) -> None:
    with pytest.raises(Refused, match=said):
        list_column(pd.DataFrame({"values": pd.Series(values, dtype=object)}), "values")


def test_arrays_of_arrays_are_lists() -> None:
    """As Parquet has them."""
    inner = np.empty(2, object)
    inner[:] = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
    frame = pd.DataFrame({"values": pd.Series([inner], dtype=object)})
    assert tuple(list_column(frame, "values").shape) == (2, 2)


def test_hard_rows_of_lists() -> None:
    frame = lists(9, 1, 2, 2)
    made = list(hard_rows(frame, [list_column(frame, "values")]))
    assert {what for what, _ in made} == {"missing in values", "extremes in values"}
    for what, rows in made:
        values = np.stack(list(rows["values"]))
        assert values.shape[1:] == (2, 2)
        assert np.isnan(values).sum() == (3 if what.startswith("missing") else 0)


@pytest.mark.parametrize(("direction", "ways"), [("forward", 1), ("reverse", 1), ("bidirectional", 2)])
@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_a_recurrent_layer_keeps_missing_values(operator: str, gates: int, direction: str, ways: int) -> None:
    """A row of which step 2 of 5 has a missing value, and one without."""
    random = np.random.default_rng(0)
    shapes = {"W": (ways, gates * 3, 2), "R": (ways, gates * 3, 3), "B": (ways, gates * 6)}
    weights = [
        numpy_helper.from_array(random.normal(0, 0.5, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in ("x", "steps", "last", "cell")
    ][: 3 if operator == "GRU" else 4]
    outputs = [each.name for each in ends[1:]]
    node = helper.make_node(operator, ["x", *shapes], outputs, hidden_size=3, direction=direction)
    graph = helper.make_graph([node], "layer", ends[:1], ends[1:], initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    values = random.normal(0, 1, (5, 2, 2)).astype(np.float32)
    plain = ort.InferenceSession(model.SerializeToString()).run(None, {"x": values})
    keep_missing(model.graph)
    session = ort.InferenceSession(model.SerializeToString())
    for got, wanted in zip(session.run(None, {"x": values}), plain, strict=True):
        assert np.array_equal(got, wanted)
    values[2, 0, 1] = np.nan
    steps, *states = session.run(None, {"x": values})
    assert np.array_equal(steps[:, :, 1], plain[0][:, :, 1])
    forward = [False, False, True, True, True]
    wanted = {"forward": [forward], "reverse": [forward[::-1]], "bidirectional": [forward, forward[::-1]]}
    for way, missing in enumerate(wanted[direction]):
        assert np.isnan(steps[:, way, 0]).all(-1).tolist() == missing
    for each in states:
        assert np.isnan(each[:, 0]).all()
