"""Make the two multilayer perceptrons that the benchmarks serve.

    python examples/mlp/make.py REPOSITORY

writes `REPOSITORY/tiny_mlp/1/model.onnx` (64 → 256 → 256 → 8) and `REPOSITORY/medium_mlp/1/model.onnx`
(256 → 1024 → 1024 → 1024 → 16). Both take `x`, float32 [N, first width], and give `y`, float32
[N, last width], with a ReLU after every layer but the last. The weights are random and come from a
fixed seed: the files are for measuring and testing, not for predicting anything, and every run makes
the same ones. Needs onnx and numpy.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
SEED = 20240229

TINY_WIDTHS = (64, 256, 256, 8)
MEDIUM_WIDTHS = (256, 1024, 1024, 1024, 16)


def mlp(name: str, widths: Sequence[int]) -> onnx.ModelProto:
    """A perceptron with ReLU between its layers.

    Args:
        name: the graph's name.
        widths: the number of inputs, then of the outputs of each layer; at least two numbers.

    Returns:
        A model from `x`, float32 [N, widths[0]], to `y`, float32 [N, widths[-1]].
    """
    generator = np.random.default_rng(SEED)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    value, last = "x", len(widths) - 2
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
        weights += _layer_weights(generator, layer, fan_in, fan_out)
        result = "y" if layer == last else f"sum{layer}"
        nodes.append(helper.make_node("Gemm", [value, f"weight{layer}", f"bias{layer}"], [result]))
        if layer != last:
            value = f"active{layer}"
            nodes.append(helper.make_node("Relu", [result], [value]))
    return _model(name, nodes, weights, widths)


def tiny() -> onnx.ModelProto:
    """The tiny perceptron: `x` float32 [N, 64] to `y` float32 [N, 8], 84,000 weights."""
    return mlp("tiny_mlp", TINY_WIDTHS)


def medium() -> onnx.ModelProto:
    """The medium perceptron: `x` float32 [N, 256] to `y` float32 [N, 16], 2.4 million weights."""
    return mlp("medium_mlp", MEDIUM_WIDTHS)


def write(repository: Path) -> list[Path]:
    """Write both models as version 1 of `tiny_mlp` and `medium_mlp`.

    Args:
        repository: the folder to write to; it is made where it does not exist.

    Returns:
        The files written.
    """
    return [_save(repository, model) for model in (tiny(), medium())]


def _layer_weights(
    generator: np.random.Generator, layer: int, fan_in: int, fan_out: int
) -> list[onnx.TensorProto]:
    # Scaled so that the size of the activations stays the same from layer to layer.
    weight = generator.standard_normal((fan_in, fan_out)) * np.sqrt(2 / fan_in)
    bias = generator.standard_normal(fan_out) * 0.1
    return [
        numpy_helper.from_array(weight.astype(np.float32), f"weight{layer}"),
        numpy_helper.from_array(bias.astype(np.float32), f"bias{layer}"),
    ]


def _model(
    name: str, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], widths: Sequence[int]
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", widths[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", widths[-1]])
    return helper.make_model(
        helper.make_graph(nodes, name, [x], [y], weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="Penstock",
    )


def _save(repository: Path, model: onnx.ModelProto) -> Path:
    path = repository / model.graph.name / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def main() -> None:
    """Write both models into the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Make the perceptrons that the benchmarks serve.")
    parser.add_argument("repository", type=Path, help="the model repository to write to")
    for path in write(parser.parse_args().repository):
        print(f"{path} ({path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
