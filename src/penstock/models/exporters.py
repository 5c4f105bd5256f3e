"""What to tell an exporter, so that it writes a model whose requests can share a batch."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.core.tensors import Signature

WAYS: Mapping[str, str] = {
    "pytorch": (
        "PyTorch leaves it open with dynamic_shapes=({{0: 'batch'}},), an entry an argument of forward, "
        "or with dynamo=False and dynamic_axes={{'{input}': {{0: 'batch'}}}}"
    ),
    "tf2onnx": (
        "tf2onnx leaves it open with None as its length in the input_signature, and Keras if Input has no "
        "batch_size"
    ),
    "skl2onnx": (
        "skl2onnx leaves it open with None in initial_types, such as FloatTensorType([None, {inner}])"
    ),
    "OnnxMLTools": (
        "onnxmltools leaves it open with None in initial_types, such as FloatTensorType([None, {inner}])"
    ),
    "onnx.quantize": "quantization keeps it as it is: export the model with an open first axis before",
}
"""How exporters leave the first axis open, by the producer that the file names."""


def way_to_batches(signature: Signature, producer: str) -> str:
    """How the exporter leaves the first axis of the inputs open, if it is fixed; else "".

    Args:
        signature: the model's.
        producer: what wrote the file, as the file says.
    """
    way = WAYS.get(producer)
    if way is None:
        return ""
    for spec in signature.inputs.values():
        if spec.shape and isinstance(spec.shape[0], int):
            return way.format(input=spec.name, inner=", ".join(map(str, spec.shape[1:])))
    return ""
