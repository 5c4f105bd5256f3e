"""Axes whose names are sums are computed when inputs are generated, so that decoders with a past run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from penstock.core.tensors import DataType
from penstock.models.axis_names import computed
from penstock.models.checks.trying import try_in_turn
from penstock.models.samples import Sample, manners, samples
from support.work import opened, signature_of, spec

LENGTHS = {"batch": 2, "past": 4, "seq": 3}


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("past + seq", 7),
        ("seq + past", 7),
        ("past + 1", 5),
        ("past+seq", 7),
        ("2*seq", 6),
        ("batch * (past - 1)", 6),
        ("seq // 2", 1),
        ("unknown + 1", 17),
        ("total_length", 16),
        ("seq", 16),
        ("?", 16),
        ("DynamicDimension.0", 16),
        ("seq / 2", 16),
        ("seq // 0", 16),
        ("seq - past", 16),
        ("9 ** 9 ** 9", 16),
        ("9999 * past", 16),
        ("max(seq, past)", 16),
        ("past +", 16),
        ("(" * 90 + "past" + ")" * 90, 4),
        ("-" * 150 + "past", 16),
        ("past + " * 100 + "1", 16),
    ],
)
def test_what_a_name_computes(name: str, length: int) -> None:
    assert computed(name, LENGTHS, 16) == length


def test_generated_inputs_fit_each_other() -> None:
    signature = signature_of(
        [
            spec("input_ids", ("batch", "sequence_length"), DataType.INT64),
            spec("attention_mask", ("batch", "past_sequence_length + sequence_length"), DataType.INT64),
            spec("past.0.key", ("batch", 2, "past_sequence_length", 8)),
        ],
        [spec("y")],
    )
    made = next(samples(signature, 3))
    assert [array.shape for array in made.values()] == [(3, 4), (3, 8), (3, 2, 4, 8)]
    known = Sample({"past.0.key": (1, 2, 6, 8)}, {}, {})
    made = next(samples(signature, 3, sample=known))
    assert made["attention_mask"].shape == (3, 10)


def test_a_decoder_with_a_past_runs(tmp_path: Path) -> None:
    """Its mask is as long as the past and the new tokens together, and it fails on any other."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (
            ("new", ["batch", "seq"]),
            ("past", ["batch", "past"]),
            ("mask", ["batch", "past + seq"]),
            ("y", ["batch", "past + seq"]),
        )
    ]
    nodes = [
        helper.make_node("Concat", ["past", "new"], ["all"], axis=1),
        helper.make_node("Mul", ["all", "mask"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", values[:3], values[3:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert isinstance(model, onnx.ModelProto)
    backend = opened(model, tmp_path)
    _, inputs, outputs, _ = try_in_turn(backend, 2, 2, manners(backend.signature))
    assert inputs["mask"].shape == np.shape(outputs[0]) == (2, 8)
