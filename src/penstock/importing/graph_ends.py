"""The ends of a converted graph: names, axes, and one input a column or one for all."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from penstock.core.tensors import MISSING_TEXT as MISSING_TEXT_KEY
from penstock.importing.encoders import MISSING_TEXT
from penstock.importing.table import VECTOR, Inputs

BATCH = "batch"
LABEL = "label"
TARGET_OPSET = {"": 19, "ai.onnx.ml": 3}
"""Taken by every release of ONNX Runtime that the server takes; 3 is the last with TreeEnsembleRegressor."""
LOCALE = "C.UTF-8"
"""The locale of StringNormalizer that every machine has; graphs without one need en_US.UTF-8."""


def finished(model: Any, inputs: Inputs, outputs: Sequence[str]) -> Any:
    """The graph as it is served.

    Args:
        model: an `onnx.ModelProto` with the inputs of `inputs`, or with one, [N, columns], for all of them.
        inputs: as requests have them.
        outputs: the names of the outputs that are kept, in the order of the graph's.
    """
    graph = model.graph
    for node in graph.node:
        if node.op_type == "StringNormalizer" and not any(each.name == "locale" for each in node.attribute):
            node.attribute.append(_helper().make_attribute("locale", LOCALE))
    _join(graph, inputs)
    if not inputs.vector:
        _take_flags(graph, {each.name for each in inputs.columns if each.flag})
    if inputs.na_texts:
        _take_as_missing(graph, inputs.na_texts)
    _name_outputs(graph, outputs)
    if any(each.type.tensor_type.elem_type == _helper().TensorProto.STRING for each in graph.input):
        own = {each.key: each.value for each in model.metadata_props}
        _helper().set_model_props(model, {**own, MISSING_TEXT_KEY: json.dumps(MISSING_TEXT)})
    for each in (*graph.input, *graph.output):
        axes = each.type.tensor_type.shape.dim
        if axes:
            axes[0].dim_param = BATCH
    return model


def _flatten(graph: Any, output: Any) -> None:
    """Makes an output [N]: the labels of some converters lie in one row, [1, N]."""
    from onnx import numpy_helper

    rows, axes = f"{output.name}_as_it_came", f"axes_of_{output.name}"
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name == output.name:
                node.output[place] = rows
    _rename(graph, output.name, rows)
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), axes))
    graph.node.append(_helper().make_node("Reshape", [rows, axes], [output.name]))
    del output.type.tensor_type.shape.dim[:]
    output.type.tensor_type.shape.dim.add()


def _name_outputs(graph: Any, names: Sequence[str]) -> None:
    """Keeps as many outputs as there are names, and gives them these."""
    del graph.output[len(names) :]
    for old, name in zip(list(graph.output), names, strict=True):
        if old.name != name:
            graph.node.append(_helper().make_node("Identity", [old.name], [name]))
            old.name = name
    for each in graph.output:
        if each.name == LABEL and len(each.type.tensor_type.shape.dim) != 1:
            _flatten(graph, each)


def call_inputs(model: Any, names: Sequence[str]) -> None:
    """Gives the inputs of a graph these names, in their order.

    A converter may have changed them: skl2onnx writes an underscore for what is no letter and no digit.

    Args:
        model: an `onnx.ModelProto`, with as many inputs; else it is left as it is.
        names: the names, each once.
    """
    inputs = model.graph.input
    if len(inputs) != len(names):
        return
    renamed = {each.name: name for each, name in zip(inputs, names, strict=True) if each.name != name}
    for each in inputs:
        each.name = renamed.get(each.name, each.name)
    for node in model.graph.node:
        for place, taken in enumerate(node.input):
            node.input[place] = renamed.get(taken, taken)


def _helper() -> Any:
    from onnx import helper

    return helper


def _join(graph: Any, inputs: Inputs) -> None:
    """Puts the columns together, or takes one vector apart, where the graph has it the other way round."""
    from onnx import TensorProto

    names = [each.name for each in inputs.columns]
    own = [each.name for each in graph.input]
    helper = _helper()
    if inputs.vector and own != [VECTOR]:
        pieces = [f"column_{i}_of_{VECTOR}" for i in range(len(names))]
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name in names:
                    node.input[place] = pieces[names.index(name)]
        graph.node.insert(0, helper.make_node("Split", [VECTOR], pieces, axis=1, num_outputs=len(pieces)))
        if len(pieces) == 1:
            graph.node[0].CopyFrom(helper.make_node("Identity", [VECTOR], pieces))
        del graph.input[:]
        graph.input.append(helper.make_tensor_value_info(VECTOR, TensorProto.FLOAT, [BATCH, len(names)]))
    elif not inputs.vector and own == [VECTOR] and names != own:
        kind = graph.input[0].type.tensor_type.elem_type
        graph.node.insert(0, helper.make_node("Concat", names, [VECTOR], axis=1))
        del graph.input[:]
        graph.input.extend(helper.make_tensor_value_info(name, kind, [BATCH, 1]) for name in names)


def _take_flags(graph: Any, flags: Collection[str]) -> None:
    """Makes inputs BOOL, of which the graph takes 0 and 1."""
    from onnx import TensorProto

    for i, each in enumerate([each for each in graph.input if each.name in flags]):
        number, kind = f"number_{i}_of_flag", each.type.tensor_type
        _rename(graph, each.name, number)
        graph.node.insert(0, _helper().make_node("Cast", [each.name], [number], to=kind.elem_type))
        kind.elem_type = TensorProto.BOOL


def _take_as_missing(graph: Any, texts: Sequence[str]) -> None:
    """Makes the empty text, which is a missing one, of each of these texts at the inputs."""
    from onnx import TensorProto, numpy_helper

    helper = _helper()
    named = [each for each in graph.input if each.type.tensor_type.elem_type == TensorProto.STRING]
    nodes = []
    for i, each in enumerate(named):
        own = [f"{kind}_{i}_of_na" for kind in ("equal", "hits", "hit", "is", "known")]
        equal, hits, hit, is_missing, known = own
        _rename(graph, each.name, known)
        nodes += [
            helper.make_node("Equal", [each.name, "texts_of_na"], [equal]),
            helper.make_node("Cast", [equal], [hits], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", [hits, "axis_of_na"], [hit], keepdims=1),
            helper.make_node("Cast", [hit], [is_missing], to=TensorProto.BOOL),
            helper.make_node("Where", [is_missing, "empty_of_na", each.name], [known]),
        ]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    for name, values in (
        ("texts_of_na", np.array([texts], object)),
        ("empty_of_na", np.array([[MISSING_TEXT]], object)),
        ("axis_of_na", np.array([1], np.int64)),
    ):
        graph.initializer.append(numpy_helper.from_array(values, name))


def _rename(graph: Any, old: str, new: str) -> None:
    """Has all nodes take another tensor, also those of graphs within nodes."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
        for each in node.attribute:
            if each.HasField("g"):
                _rename(each.g, old, new)
