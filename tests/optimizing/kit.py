"""A classifier to optimise, and the command that does it."""

from __future__ import annotations

import itertools
import json
import subprocess
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from support.servers import SCRIPT

WIDTH, CLASSES = 256, 5


def mlp(gain: float = 1.0) -> onnx.ModelProto:
    """A classifier with three layers, large enough that int8 saves time."""
    random = np.random.default_rng(3)
    sizes = [16, WIDTH, WIDTH, CLASSES]
    nodes, weights, last = [], [], "x"
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        weight = random.normal(0, gain / np.sqrt(before), (before, after)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"], name=f"layer{i}"))
        last = f"m{i}"
        if i < 2:
            nodes.append(helper.make_node("Relu", [last], [f"r{i}"]))
            last = f"r{i}"
    nodes.append(helper.make_node("Softmax", [last], ["p"], axis=1))
    nodes.append(helper.make_node("ArgMax", ["p"], ["label"], axis=1, keepdims=0))
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])
    p = helper.make_tensor_value_info("p", TensorProto.FLOAT, ["N", CLASSES])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])
    graph = helper.make_graph(nodes, "mlp", [x], [label, p], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def optimize(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), "optimize", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def as_json(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run.stdout)
    return {**found, "variants": {each["name"]: each for each in found["variants"]}}
