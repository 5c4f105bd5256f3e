"""What can be made of a model: each variant is one function that writes another file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import onnxruntime as ort

from penstock.core.errors import ModelLoadError
from penstock.core.tensors import Array

Requests = Sequence[Mapping[str, Array]]
ONLY_FATAL = 4
PREPARED = "prepared.onnx"
SUFFIXES = ("QuantizeLinear", "Integer", "QLinearMatMul", "QLinearConv", "DynamicQuantizeLSTM")
"""How the names of operators end that work on quantized tensors."""


class CannotMakeError(ModelLoadError):
    """A variant cannot be made of this model; the text says why."""


class Variant(NamedTuple):
    """One kind of variant.

    Attributes:
        name: as the command line has it.
        what: what is done to the model, in a few words.
        make: writes it: takes the original's file, the new file, and real rows.
    """

    name: str
    what: str
    make: Callable[[Path, Path, Requests], None]


def make(variant: Variant, source: Path, target: Path, requests: Requests) -> None:
    """Writes a variant of a model.

    Args:
        variant: which one.
        source: the model's file; external data is looked for beside it.
        target: the new file, which holds its weights.
        requests: real rows, on which the ranges of values are learned for `int8-static`.

    Raises:
        CannotMakeError: it cannot be made.
    """
    try:
        with _quiet():
            variant.make(source, target, requests)
    except CannotMakeError:
        raise
    except Exception as error:  # the tools raise whatever comes up
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CannotMakeError(f"it cannot be made: {lines[0]}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The tools' advice is for those who call them by hand."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _graph(source: Path, target: Path, _: Requests) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = ONLY_FATAL
    # The highest level writes for the processor of this machine.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _fp16(source: Path, target: Path, _: Requests) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(source), keep_io_types=True)
    if not any(each.data_type == onnx.TensorProto.FLOAT16 for each in model.graph.initializer):
        raise CannotMakeError("it has no weights of 32 bits that can be halved")
    onnx.save(model, target)


def _int8_dynamic(source: Path, target: Path, _: Requests) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(_prepared(source, target), target, per_channel=True, weight_type=QuantType.QInt8)
    _check_quantized(target)


def _int8_static(source: Path, target: Path, requests: Requests) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Rows(CalibrationDataReader):  # type: ignore[misc]  # its library has no types
        """Gives the real rows, one at a time."""

        def __init__(self) -> None:
            self._rest = iter(requests)

        def get_next(self) -> dict[str, Any] | None:
            """The next row; None after the last one."""
            row = next(self._rest, None)
            return None if row is None else dict(row)

    quantize_static(_prepared(source, target), target, Rows(), per_channel=True)
    _check_quantized(target)


def _prepared(source: Path, target: Path) -> Path:
    """The model with the shapes of its tensors, as both kinds of quantization want it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_name(PREPARED)
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    return prepared


def _check_quantized(target: Path) -> None:
    graph = onnx.load(target, load_external_data=False).graph
    if not any(node.op_type.endswith(SUFFIXES) for node in graph.node):
        kinds = sorted({node.op_type for node in graph.node})
        raise CannotMakeError(f"none of its operators can be quantized: {', '.join(kinds)}")


VARIANTS = {
    each.name: each
    for each in (
        Variant("graph", "optimised by ONNX Runtime beforehand", _graph),
        Variant("fp16", "weights and most operators in float16", _fp16),
        Variant("int8-dynamic", "weights in int8, values quantized in each run", _int8_dynamic),
        Variant("int8-static", "weights and values in int8, ranges learned from the sample", _int8_static),
    )
}
"""The variants by name, in the order in which they are tried."""
