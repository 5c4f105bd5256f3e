"""Inputs that are made up fit the signature."""

from __future__ import annotations

import numpy as np

from penstock.models.samples import SIZES, samples
from penstock.tensors import DataType
from support.work import signature_of, spec


def test_samples_have_the_declared_shape_and_datatype() -> None:
    signature = signature_of(
        [
            spec("fixed", (2, 3)),
            spec("open", ("N", "L", 5)),
            spec("text", ("N",), DataType.BYTES),
            spec("any", None, DataType.BF16),
            spec("scalar", (), DataType.BOOL),
        ],
        [],
    )
    shapes = []
    for sample in samples(signature, 7):
        shapes.append({name: array.shape for name, array in sample.items()})
        for name, array in sample.items():
            assert array.dtype == signature.inputs[name].datatype.dtype
        assert all(type(text) is str for text in sample["text"])
    assert shapes[0] == {"fixed": (2, 3), "open": (7, 4, 5), "text": (7,), "any": (7, 4), "scalar": ()}
    assert [shape["open"][1] for shape in shapes] == [*SIZES, *SIZES]


def test_samples_without_an_open_axis_are_few() -> None:
    assert len(list(samples(signature_of([spec("x")], []), 3))) == 2
    with_integers = list(samples(signature_of([spec("x", datatype=DataType.INT8)], []), 20))
    assert [0 in each["x"] for each in with_integers] == [True, True, False]


def test_samples_are_the_same_for_the_same_seed_and_differ_by_row() -> None:
    signature = signature_of([spec("x", ("N", 4))], [])
    one, same, other = (next(samples(signature, 8, seed))["x"] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert len(np.unique(one, axis=0)) == 8
