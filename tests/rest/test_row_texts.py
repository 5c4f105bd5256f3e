"""The JSON that the answers of a run share is the JSON that each would have by itself."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock.core.errors import ModelFailed
from penstock.core.request import Response, Run
from penstock.core.tensors import DataType, TensorSpec
from penstock.protocols.rest.encoder import Outputs, encode
from penstock.protocols.rest.forms import RECORD
from penstock.protocols.rest.row_texts import MOST_VALUES

ROWS = 7
NUMBERS = [each for each in DataType if each.dtype.kind in "iufb" and each.label not in ("BF16",)]


def model_of(**specs: TensorSpec) -> Any:
    return SimpleNamespace(signature=SimpleNamespace(outputs=specs), attachments={})


def answers(model: Any, arrays: dict[str, Any], names: list[str] | None = None) -> list[object]:
    """The answer to a request for each row."""
    run = Run(0.0, 0.0, 0.0, len(next(iter(arrays.values()))), arrays)
    asked = SimpleNamespace(model=model, form=RECORD, id="", tag=0)
    wanted = names or list(arrays)
    return [encode(Response(run, wanted, 0.0, row, row + 1), asked) for row in range(run.rows)]


def alone(model: Any, arrays: dict[str, Any], names: list[str] | None = None) -> list[object]:
    """The same, each row from a run of its own that shares nothing."""
    found = []
    for row in range(len(next(iter(arrays.values())))):
        run = Run(0.0, 0.0, 0.0, 1, {name: array[row : row + 1] for name, array in arrays.items()})
        response = Response(run, names or list(arrays), 0.0)
        asked = SimpleNamespace(model=model, form=RECORD, id="", tag=0)
        found.append(encode(response, asked))
    return found


def values(datatype: DataType, shape: tuple[int, ...]) -> Any:
    random = np.random.default_rng(sum(shape))
    if datatype.dtype.kind == "b":
        return random.random(shape) < 0.5
    if datatype.dtype.kind in "iu":
        bounds = np.iinfo(datatype.dtype)
        return random.integers(bounds.min, bounds.max, shape, datatype.dtype, endpoint=True)
    scale = 10.0 ** random.integers(-4, 4, shape)
    return (random.standard_normal(shape) * scale).astype(datatype.dtype)


@pytest.mark.parametrize("datatype", NUMBERS, ids=str)
@pytest.mark.parametrize("inner", [(), (1,), (2,), (5,)])
def test_numbers(datatype: DataType, inner: tuple[int, ...]) -> None:
    arrays = {"y": values(datatype, (ROWS, *inner))}
    model = model_of(y=TensorSpec("y", datatype, ("N", *inner)))
    assert answers(model, arrays) == alone(model, arrays)


@pytest.mark.parametrize("inner", [(0,), (2, 3), (MOST_VALUES,)])
def test_shapes_that_cannot_be_cut(inner: tuple[int, ...]) -> None:
    arrays = {"y": values(DataType.FP32, (ROWS, *inner))}
    model = model_of(y=TensorSpec("y", DataType.FP32, ("N", *inner)))
    assert answers(model, arrays) == alone(model, arrays)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e-45, -0.0, 3.4e38])
@pytest.mark.parametrize("inner", [(), (1,), (3,)])
def test_odd_numbers(odd: float, inner: tuple[int, ...]) -> None:
    array = values(DataType.FP32, (ROWS, *inner))
    array.reshape(-1)[1] = odd
    model = model_of(y=TensorSpec("y", DataType.FP32, ("N", *inner)))
    assert answers(model, {"y": array}) == alone(model, {"y": array})


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("inner", [(), (1,)])
@pytest.mark.parametrize("odd", [0.5, np.nan])
@pytest.mark.parametrize("names", [None, ["label"], ["probabilities"], ["other", "label", "probabilities"]])
def test_classifiers(texts: bool, inner: tuple[int, ...], odd: float, names: list[str] | None) -> None:
    labels = np.array([f'a"{n}],[ü' for n in range(ROWS)], object) if texts else np.arange(ROWS) - 3
    rows = values(DataType.FP32, (ROWS, 4))
    rows[2, 3] = rows[2, 1] = odd
    rows[4] = 0.25
    kind = DataType.BYTES if texts else DataType.INT64
    model = model_of(
        label=TensorSpec("label", kind, ("N", *inner)),
        probabilities=TensorSpec("probabilities", DataType.FP32, ("N", 4)),
        other=TensorSpec("other", DataType.INT8, ("N", 2)),
    )
    arrays = {
        "label": labels.reshape(ROWS, *inner),
        "probabilities": rows,
        "other": values(DataType.INT8, (ROWS, 2)),
    }
    assert answers(model, arrays, names) == alone(model, arrays, names)


@pytest.mark.parametrize("name", ["prediction", "probability"])
@pytest.mark.parametrize("wanted", [True, False])
def test_outputs_with_the_names_of_what_a_classifier_says(name: str, wanted: bool) -> None:
    specs = {
        "label": TensorSpec("label", DataType.INT64, ("N",)),
        "probabilities": TensorSpec("probabilities", DataType.FP32, ("N", 2)),
        name: TensorSpec(name, DataType.FP64, ("N", 3)),
    }
    arrays = {
        each: values(spec.datatype, (ROWS, *spec.shape[1:])) for each, spec in specs.items() if spec.shape
    }
    names = list(arrays) if wanted else ["label", "probabilities"]
    model = model_of(**specs)
    assert answers(model, arrays, names) == alone(model, arrays, names)


def test_a_text_that_cannot_be_encoded_fails_its_own_request() -> None:
    arrays = {"y": np.array(["a", "\ud800", "b"], object)}
    found = answers(model_of(y=TensorSpec("y", DataType.BYTES, ("N",))), arrays)
    assert [found[0], found[2]] == [b'{"y":"a"}', b'{"y":"b"}']
    assert isinstance(found[1], ModelFailed)


def test_an_output_with_more_than_the_signature_says_is_not_cut_wrongly() -> None:
    model = model_of(y=TensorSpec("y", DataType.INT64, ("N", 1)))
    arrays = {"y": values(DataType.INT64, (ROWS, 2))}
    assert answers(model, arrays) == alone(model, arrays)


def test_some_of_the_outputs_in_any_order() -> None:
    specs = {name: TensorSpec(name, DataType.INT32, ("N", 2)) for name in "abc"}
    arrays = {name: values(DataType.INT32, (ROWS, 2)) for name in "abc"}
    model = model_of(**specs)
    for count in (1, 2, 3):
        for names in itertools.combinations("abc", count):
            assert answers(model, arrays, list(names)) == alone(model, arrays, list(names))


def test_columns_are_made_once() -> None:
    model = model_of(y=TensorSpec("y", DataType.INT32, ("N", 2)))
    writer = Outputs(model)
    run = Run(0.0, 0.0, 0.0, ROWS, {"y": values(DataType.INT32, (ROWS, 2))})
    assert writer.texts.record(Response(run, ["y"], 0.0, 0, 1))
    assert run.shared is not None
    [kept] = run.shared.values()
    assert writer.texts.record(Response(run, ["y"], 0.0, 1, 2))
    assert list(run.shared.values()) == [kept]
