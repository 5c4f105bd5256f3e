"""The ends of a graph that are not tensors: told before the model is loaded, and ZipMap cut off.

Exporters of classifiers put the operator ZipMap behind the probabilities: it turns a tensor [rows, classes]
into one map from class to probability for each row. Some have no option against it. Such an output is served
as the tensor that ZipMap was given, under the same name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from penstock.backends.onnx_file import (
    GRAPH_INPUT,
    GRAPH_OUTPUT,
    MODEL_GRAPH,
    MODEL_OPSET_IMPORT,
    MODEL_PRODUCER,
    OPSET_DOMAIN,
    OPSET_VERSION,
    STANDARD_DOMAIN,
    TENSOR_SHAPE,
    TYPE_TENSOR,
    VALUE_NAME,
    VALUE_TYPE,
    FileFacts,
    Message,
    opened,
    opsets,
    tensors_of_any_rank,
)
from penstock.core.tensors import DataType
from penstock.core.wire import LENGTH_DELIMITED, VARINT, field, fields, key, read_varint, varint

# The numbers of fields that onnx_file does not need.
GRAPH_NODE = 1
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 3, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INTS, ATTRIBUTE_STRINGS = 1, 8, 9
TYPE_SEQUENCE, TYPE_MAP, TYPE_OPAQUE, TYPE_SPARSE, TYPE_OPTIONAL = 4, 5, 7, 8, 9
ELEMENT_TYPE = 1  # of a tensor and of a map's keys a number, of a sequence and an optional a type
MAP_VALUE = 2
SHAPE_AXIS, AXIS_LENGTH = 1, 1

TYPES = (TYPE_TENSOR, TYPE_SEQUENCE, TYPE_MAP, TYPE_OPAQUE, TYPE_SPARSE, TYPE_OPTIONAL)
HOLDS = {TYPE_SEQUENCE: ELEMENT_TYPE, TYPE_OPTIONAL: ELEMENT_TYPE, TYPE_MAP: MAP_VALUE}
ZIPMAP, ZIPMAP_DOMAIN = "ZipMap", "ai.onnx.ml"
IDENTITY = "Identity"
ANY_OPSET = 13  # of the standard operators, for a model that imports none of them
DEEPEST = 8  # of types within types that are written out
LISTED = 8
SIGN_BIT, RANGE = 1 << 63, 1 << 64
ONNX_NAMES: Mapping[int, str] = {each.onnx_type: each.onnx_name for each in DataType}

ADVICE: Mapping[str, str] = {
    "skl2onnx": "skl2onnx writes tensors with options={id(model): {'zipmap': False}}",
    "OnnxMLTools": "onnxmltools writes tensors with zipmap=False",
    "pytorch": "let forward return tensors, such as torch.stack(list)",
    "tf2onnx": "let the function return tensors",
}
"""What to do about ends that are not tensors, by the producer that the file names."""
OTHERWISE = "export the model with tensors as inputs and outputs"


class End(NamedTuple):
    """An input or output that is not a tensor.

    Attributes:
        role: "input" or "output".
        name: its name.
        type: its type as ONNX Runtime writes it, such as "seq(tensor(float))".
    """

    role: str
    name: str
    type: str


class Ends(NamedTuple):
    """The ends of a graph that are not tensors.

    Attributes:
        producer: what wrote the file, as the file says.
        zipmaps: for each output of a ZipMap, the classes that its columns are, in their order.
        others: the rest.
        repaired: the model without ZipMap at its end; None if it has none.
    """

    producer: str
    zipmaps: Mapping[str, Sequence[str]]
    others: Sequence[End]
    repaired: bytes | None = None

    @property
    def refusal(self) -> str:
        """Why such a model cannot be served, with what to do about it; "" if it can."""
        if not self.others:
            return ""
        listed = ", ".join(f"{end.role} {end.name} is {end.type}" for end in self.others)
        return f"{listed}: only tensors can be served; {ADVICE.get(self.producer, OTHERWISE)}"

    @property
    def changes(self) -> Sequence[str]:
        """What is said about each ZipMap that is cut off."""
        return tuple(
            f"ZipMap was cut off: the columns of {name} are the classes {_listed(classes)}"
            for name, classes in self.zipmaps.items()
        )


def read_ends(path: Path) -> Ends | None:
    """The ends of a file's graph; None if it is no model: ONNX Runtime says in which way."""
    try:
        with opened(path) as model:
            others = list(_others(model))
            outputs = {end.name for end in others if end.role == "output" and "map(" in end.type}
            zipmaps = {name: _classes(node) for name, node in _zipmaps(model) if name in outputs}
            rest = [end for end in others if end.name not in zipmaps]
            repaired = _without_zipmaps(model, zipmaps) if zipmaps and not rest else None
            return Ends(model.text(MODEL_PRODUCER), zipmaps, rest, repaired)
    except (OSError, ValueError):
        return None


def file_facts(path: Path) -> FileFacts | None:
    """What is kept of a file for later starts; None if it is no model."""
    ends = read_ends(path)
    if ends is None:
        return None
    return FileFacts(
        opsets(path), tuple(sorted(tensors_of_any_rank(path))), not ends.zipmaps and not ends.others
    )


def _others(model: Message) -> Iterator[End]:
    for graph in model.messages(MODEL_GRAPH):
        for number, value in graph.numbered((GRAPH_INPUT, GRAPH_OUTPUT)):
            kinds = [_type_name(each) for each in value.messages(VALUE_TYPE)]
            if kinds and kinds[-1] and not kinds[-1].startswith("tensor("):
                yield End("input" if number == GRAPH_INPUT else "output", value.text(VALUE_NAME), kinds[-1])


def _type_name(message: Message, depth: int = 0) -> str:
    """A type as ONNX Runtime writes it; "" if the file leaves it open."""
    if depth == DEEPEST:
        return "..."
    name = ""
    for number, inner in message.numbered(TYPES):
        element = ONNX_NAMES.get(inner.number(ELEMENT_TYPE), "?")
        types = inner.messages(HOLDS[number]) if number in HOLDS else ()
        within = "".join([_type_name(each, depth + 1) for each in types])
        name = {
            TYPE_TENSOR: f"tensor({element})",
            TYPE_SEQUENCE: f"seq({within})",
            TYPE_MAP: f"map({element},{within})",
            TYPE_OPAQUE: "opaque",
            TYPE_SPARSE: f"sparse_tensor({element})",
            TYPE_OPTIONAL: f"optional({within})",
        }[number]
    return name


def _zipmaps(model: Message) -> Iterator[tuple[str, Message]]:
    """The ZipMap nodes of the graph, each with the name of its output."""
    if model.data.find(ZIPMAP.encode()) < 0:
        return
    for graph in model.messages(MODEL_GRAPH):
        for node in graph.messages(GRAPH_NODE):
            if _is_zipmap(node):
                yield node.text(NODE_OUTPUT), node


def _is_zipmap(node: Message) -> bool:
    return node.text(NODE_OPERATOR) == ZIPMAP and node.text(NODE_DOMAIN) == ZIPMAP_DOMAIN


def _classes(node: Message) -> Sequence[str]:
    """The keys of a ZipMap's maps, in the order of the columns."""
    found = []
    for attribute in node.messages(NODE_ATTRIBUTE):
        name = attribute.text(ATTRIBUTE_NAME)
        if name == "classlabels_strings":
            texts = attribute.messages(ATTRIBUTE_STRINGS)
            found += [text.data[text.start : text.end].decode() for text in texts]
        elif name == "classlabels_int64s":
            found += [str(number) for number in _integers(attribute)]
    return found


def _integers(attribute: Message) -> Iterator[int]:
    """The whole numbers of an attribute, written one by one or packed."""
    for head, position, stop in fields(attribute.data, attribute.start, attribute.end):
        at = position if head >> 3 == ATTRIBUTE_INTS and head & 7 in (VARINT, LENGTH_DELIMITED) else stop
        while at < stop:
            number, at = read_varint(attribute.data, at)
            yield number - RANGE if number >= SIGN_BIT else number


def _listed(classes: Sequence[str]) -> str:
    rest = len(classes) - LISTED
    return ", ".join(classes[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


# The change. All other bytes are copied.


def _without_zipmaps(model: Message, zipmaps: Mapping[str, Sequence[str]]) -> bytes:
    axis = _first_axis(model)
    parts, has_operators, position = [], False, model.start
    for head, start, stop in fields(model.data, model.start, model.end):
        part = Message(model.data, start, stop)
        if head == MODEL_GRAPH << 3 | LENGTH_DELIMITED:
            parts.append(field(key(MODEL_GRAPH, LENGTH_DELIMITED), _graph(part, zipmaps, axis)))
        else:
            parts.append(model.data[position:stop])
            if head >> 3 == MODEL_OPSET_IMPORT:
                has_operators |= part.text(OPSET_DOMAIN) in ("", STANDARD_DOMAIN)
        position = stop
    if not has_operators:
        parts.append(_message(MODEL_OPSET_IMPORT, _number(OPSET_VERSION, ANY_OPSET)))
    return b"".join(parts)


def _graph(graph: Message, zipmaps: Mapping[str, Sequence[str]], axis: bytes) -> bytes:
    parts, position = [], graph.start
    for head, start, stop in fields(graph.data, graph.start, graph.end):
        part, number = Message(graph.data, start, stop), head >> 3
        if number == GRAPH_NODE and _is_zipmap(part) and part.text(NODE_OUTPUT) in zipmaps:
            parts.append(_message(GRAPH_NODE, _identity(part)))
        elif number == GRAPH_OUTPUT and (name := part.text(VALUE_NAME)) in zipmaps:
            parts.append(_message(GRAPH_OUTPUT, _scores(name, axis, len(zipmaps[name]))))
        else:
            parts.append(graph.data[position:stop])
        position = stop
    return b"".join(parts)


def _identity(node: Message) -> bytes:
    """A node that gives what this one is given, under the same names."""
    kept = ((number, node.text(number)) for number in (NODE_INPUT, NODE_OUTPUT, NODE_NAME))
    return b"".join(_message(number, text.encode()) for number, text in (*kept, (NODE_OPERATOR, IDENTITY)))


def _scores(name: str, axis: bytes, classes: int) -> bytes:
    """An output FP32 [rows, classes]."""
    shape = _message(SHAPE_AXIS, axis) + _message(SHAPE_AXIS, _number(AXIS_LENGTH, classes))
    tensor = _number(ELEMENT_TYPE, DataType.FP32.onnx_type) + _message(TENSOR_SHAPE, shape)
    return _message(VALUE_NAME, name.encode()) + _message(VALUE_TYPE, _message(TYPE_TENSOR, tensor))


def _first_axis(model: Message) -> bytes:
    """The first axis of the first input, encoded; empty, as an axis of any length, if there is none."""
    for graph in model.messages(MODEL_GRAPH):
        for value in graph.messages(GRAPH_INPUT):
            for kind in value.messages(VALUE_TYPE):
                for tensor in kind.messages(TYPE_TENSOR):
                    for shape in tensor.messages(TENSOR_SHAPE):
                        for axis in shape.messages(SHAPE_AXIS):
                            return axis.data[axis.start : axis.end]
    return b""


def _message(number: int, data: bytes) -> bytes:
    return field(key(number, LENGTH_DELIMITED), data)


def _number(number: int, value: int) -> bytes:
    return key(number, VARINT) + varint(value)
