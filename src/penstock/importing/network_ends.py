"""Networks: what of a sample each of their inputs takes, and the ends of their graphs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from penstock.importing.errors import LacksColumns, Refused
from penstock.importing.graph_ends import BATCH
from penstock.importing.table import VECTOR, Column, Inputs, column, holds_lists, list_column

NUMBERS = (
    "bool",
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    "float32",
    "float64",
)
"""The datatypes of inputs that a column of numbers is cast to."""


class Tensor(NamedTuple):
    """An input of a network.

    Attributes:
        name: its own.
        shape: of one row; None for an axis that is open.
        datatype: of its values, as NumPy names it.
    """

    name: str
    shape: Sequence[int | None]
    datatype: str

    def __str__(self) -> str:
        axes = ", ".join("?" if each is None else str(each) for each in self.shape)
        return f"{self.name} [rows{', ' if axes else ''}{axes}]"


class Taken(NamedTuple):
    """How the inputs of a network are filled.

    Attributes:
        inputs: as requests have them.
        of: for each input of the network the input of the service: a column, or `VECTOR` for all columns.
    """

    inputs: Inputs
    of: Mapping[str, str]

    def values(self, frame: Any, tensor: Tensor) -> Any:
        """The rows of a table for an input of the network."""
        single = self.inputs._replace(vector=self.of[tensor.name] == VECTOR)
        return reshaped(single.feeds(frame)[self.of[tensor.name]], tensor)


def reshaped(values: Any, tensor: Tensor) -> Any:
    """Rows in the shape and the datatype of an input; missing values become whole numbers as in a graph."""
    with np.errstate(invalid="ignore"):
        return values.reshape(-1, *tensor.shape).astype(tensor.datatype)


def taken(title: str, tensors: Sequence[Tensor], frame: Any, vector: bool) -> Taken:
    """What of a sample each input of a network takes.

    An input takes the column with its name. A single input without one takes all columns: one of lists, or as
    many of numbers as it has numbers, in their order.

    Raises:
        Refused: the sample and the inputs do not fit.
    """
    _check(title, tensors)
    if len(tensors) == 1 and tensors[0].name not in frame.columns:
        return _by_position(title, tensors[0], frame, vector)
    missing = [each.name for each in tensors if each.name not in frame.columns]
    if missing:
        raise LacksColumns(
            f"the sample lacks columns for inputs of the model ({title}): {', '.join(missing)}; it has "
            f"{', '.join(frame.columns)}",
            missing,
        )
    columns = [_column(title, frame, each.name) for each in tensors]
    for tensor, own in zip(tensors, columns, strict=True):
        if math.prod(own.shape) != _numbers(tensor) or (own.shape and list(own.shape) != list(tensor.shape)):
            shape = list(own.shape) if own.shape else "single numbers"
            raise Refused(f'{title}: its input is {tensor}, and column "{own.name}" holds {shape}')
    if vector and any(each.shape for each in columns):
        raise Refused("--as vector takes columns of single numbers; a list of numbers is a vector already")
    return Taken(Inputs(columns, vector), {each.name: each.name for each in tensors})


def _check(title: str, tensors: Sequence[Tensor]) -> None:
    for each in tensors:
        if each.datatype not in NUMBERS:
            raise Refused(
                f"{title}: its input {each} takes {each.datatype}, expected numbers: leave the steps before "
                "the network out of it, and do them before the request is sent"
            )


def _by_position(title: str, tensor: Tensor, frame: Any, vector: bool) -> Taken:
    names = list(frame.columns)
    columns = [_column(title, frame, each) for each in names]
    if len(columns) == 1 and columns[0].shape:
        if list(columns[0].shape) != list(tensor.shape):
            shape = list(columns[0].shape)
            raise Refused(f'{title}: its input is {tensor}, and column "{names[0]}" holds {shape}')
        return Taken(Inputs(columns, by_position=True), {tensor.name: names[0]})
    if lists := [each.name for each in columns if each.shape]:
        raise Refused(
            f"{title}: its one input is {tensor}; the sample has lists in {', '.join(lists)}, and "
            f"{len(names)} columns: leave the others out with --target and --drop"
        )
    if len(columns) != _numbers(tensor):
        raise Refused(
            f"{title}: its input is {tensor}, of {_numbers(tensor)} numbers; the sample has {len(columns)} "
            f"columns: {', '.join(names)}; name the target with --target, and what else is no input with "
            "--drop"
        )
    return Taken(Inputs(columns, vector, by_position=True), {tensor.name: VECTOR})


def _numbers(tensor: Tensor) -> int:
    return math.prod(each or 0 for each in tensor.shape)


def _column(title: str, frame: Any, name: str) -> Column:
    """A column of numbers, or of lists of them.

    Raises:
        Refused: it holds texts.
    """
    made = list_column(frame, name) if holds_lists(frame[name]) else column(frame, name)
    if made.text:
        raise Refused(
            f"{title} takes numbers; these columns hold texts: {name}; number them before they are sent, as "
            "in training, or leave them out with --drop"
        )
    return made


def attach(graph: Any, own: Sequence[tuple[str, Tensor]], given: Taken) -> None:
    """Gives a graph the inputs that `graph_ends.finished` takes: columns, lists of numbers, or one vector.

    Args:
        graph: of the network, with names that no column has.
        own: its inputs, each with what it is.
        given: how they are filled.
    """
    from onnx import TensorProto, helper, numpy_helper

    shapes = {each.name: each.shape for each in given.inputs.columns}
    kinds = {each.name: each.type.tensor_type.elem_type for each in graph.input}
    nodes, ends = [], []
    for i, (name, tensor) in enumerate(own):
        outer = given.of[tensor.name]
        shape = list(shapes.get(outer) or [1])
        if outer == VECTOR:
            shape = [len(given.inputs.columns)]
        ends.append(helper.make_tensor_value_info(outer, TensorProto.FLOAT, [BATCH, *shape]))
        cast, axes = f"cast_{i}_of_inputs", f"axes_{i}_of_inputs"
        wanted = np.array([-1, *[each or 0 for each in tensor.shape]], np.int64)
        graph.initializer.append(numpy_helper.from_array(wanted, axes))
        nodes += [
            helper.make_node("Cast", [outer], [cast], to=kinds[name]),
            helper.make_node("Reshape", [cast, axes], [name]),
        ]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    del graph.input[:]
    graph.input.extend(ends)


def replace_erfc(graph: Any) -> None:
    """Writes Erfc, which tf2onnx takes over from TensorFlow and ONNX does not have, as 1 - Erf."""
    from onnx import helper, numpy_helper

    found = [(i, each) for i, each in enumerate(graph.node) if each.op_type == "Erfc"]
    for place, node in reversed(found):
        middle = f"{node.output[0]}_erf"
        graph.node.insert(place, helper.make_node("Erf", [node.input[0]], [middle]))
        node.CopyFrom(helper.make_node("Sub", ["one_of_erfc", middle], [node.output[0]]))
    if found:
        graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "one_of_erfc"))
