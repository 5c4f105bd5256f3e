"""Requests that differ from an earlier one in their values only, read without parsing them.

A program sends the same request over and over: its bytes are the same but for the values of its tensors, its
id and, on a stream, its tag. A template is an earlier request that was parsed and found good, with the places
of these in its bytes. A request of the same length whose other bytes are equal is good as well and means the
same: every key and every length is among the other bytes, so a parser would cut it in the same places, and
no check looks at the values of numbers. Anything else is parsed as ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias
from weakref import ref

import numpy as np

from penstock.errors import RequestError
from penstock.messages import InferRequest
from penstock.models.model import Model
from penstock.rpc import wire
from penstock.tensors import Array, DataType
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

MOST = 256  # templates
MOST_OF_A_LENGTH = 4
LARGEST = 4096  # bytes of a request that are no values
WIDEST_TAG = 8  # bytes: of larger ones only some bits count
LEARNING_SECONDS = 0.02  # between templates: callers whose requests are all different pay for few
LAST_BYTE = 0x7F  # the largest last byte of a varint; all others are above
CHECKED = (DataType.BOOL, DataType.BYTES)  # not every value of these is good

# Keys: a parser passes over a field of another wire type, as over one that it does not know.
ID = pb.PredictRequest.ID_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
TAG = pb.PredictRequest.TAG_FIELD_NUMBER << 3 | wire.VARINT
INPUTS = pb.PredictRequest.INPUTS_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
RAW = tensor_pb2.Tensor.RAW_FIELD_NUMBER << 3 | wire.LENGTH_DELIMITED
KEY, VALUE = 1 << 3 | wire.LENGTH_DELIMITED, 2 << 3 | wire.LENGTH_DELIMITED  # of an entry of a map

Span: TypeAlias = tuple[int, int]
NOWHERE: Span = (0, 0)


class Template:
    """What is known of requests that look like one that was good.

    Args:
        data: that one's bytes.
        message: the same, parsed.
        request: what was made of it.
        model: the model it is for.
        typed: whether its answer is typed.

    Attributes:
        name: the model asked for.
        version: the version asked for.
        model: the model that this led to. Where it leads to another one now, nothing is known.
        typed: whether the answer is to be typed.
        timeout_seconds: the longest it may take; infinity for no limit.
        outputs: the outputs wanted.
        rows: how many rows each has.
        shape_key: as in `InferRequest`.
        priority: their priority.
        may_be_many: whether several may be run as one.

    Raises:
        ValueError: requests may look like this one and not be good, or mean something else.
    """

    __slots__ = (
        "_constants", "_id", "_inputs", "_tag", "_varies", "may_be_many", "model", "name", "outputs",
        "priority", "rows", "shape_key", "timeout_seconds", "typed", "version",
    )  # fmt: skip

    def __init__(
        self, data: bytes, message: pb.PredictRequest, request: InferRequest, model: Model, typed: bool
    ) -> None:
        places = _places(data)
        inputs = model.signature.inputs
        if any(inputs[name].datatype in CHECKED for name in inputs) or len(places.inputs) != len(inputs):
            raise ValueError("there are inputs whose values are checked, or that did not come as raw")
        arrays = request.inputs
        self._inputs = [
            (name, arrays[name].shape, arrays[name].dtype, *places.inputs[name]) for name in inputs
        ]
        self._id, self._tag = places.id, places.tag
        self._varies = places.id != NOWHERE or places.tag != NOWHERE
        self.may_be_many = model.batching.enabled and places.id == NOWHERE
        self._constants = _between(data, [*places.inputs.values(), places.id, places.tag])
        self.name, self.version, self.model = message.model, message.version, ref(model)
        self.outputs, self.rows, self.shape_key = request.outputs, request.rows, request.shape_key
        self.priority, self.typed = request.priority, typed
        self.timeout_seconds = message.timeout.seconds + message.timeout.nanos / 1e9 or math.inf

    def model_now(self, route: Callable[[str, str], Model]) -> Model | None:
        """The model that answers; None where the route does not lead to the template's any more."""
        try:
            model = route(self.name, self.version)
        except RequestError:
            return None
        return model if model is self.model() else None

    def is_like(self, data: bytes) -> bool:
        """Whether bytes of this length are a request of this kind."""
        for start, constant in self._constants:
            if not data.startswith(constant, start):
                return False
        if self._varies:
            try:
                self.id_of(data)
                self.tag_of(data)
            except ValueError:
                return False
        return True

    def inputs_of(self, data: bytes) -> dict[str, Array]:
        """The inputs, each in bytes of its own.

        As views of the request they would lie where they happen to, and some operators, such as sums, round
        differently by where their input begins: equal requests would get answers that are not quite equal.
        """
        return {
            name: np.ndarray(shape, dtype, data[start:end]) for name, shape, dtype, start, end in self._inputs
        }

    def count_alike(self, messages: Array) -> int:
        """How many messages, from the first on, are of this kind; it is known that the first is.

        Args:
            messages: uint8 [count, bytes of each].
        """
        count = len(messages)
        for start, constant in self._constants:
            count = equal_rows(messages[:count, start : start + len(constant)])
        tags = self.tags_of(messages[:count])
        if tags.shape[1]:
            wrong = (tags[:, -1] > LAST_BYTE) | (tags[:, :-1] <= LAST_BYTE).any(axis=1)
            count = int(wrong.argmax()) if wrong.any() else count
        return count

    def all_inputs_of(self, messages: Array) -> dict[str, Array]:
        """The inputs of several messages of this kind, uint8 [count, bytes of each], in new arrays."""
        inputs = {}
        for name, shape, dtype, start, end in self._inputs:
            values = np.ascontiguousarray(messages[:, start:end])
            inputs[name] = values.view(dtype).reshape(len(messages) * shape[0], *shape[1:])
        return inputs

    def tags_of(self, messages: Array) -> Array:
        """The encoded tags of several messages of this kind, uint8 [count, bytes of each]."""
        start, end = self._tag
        return messages[:, start:end]

    def id_of(self, data: bytes) -> str:
        """The id.

        Raises:
            ValueError: it is no text.
        """
        start, end = self._id
        return data[start:end].decode() if end else ""

    def tag_of(self, data: bytes) -> int:
        """The tag.

        Raises:
            ValueError: it is shorter or longer than the template's.
        """
        start, end = self._tag
        if not end:
            return 0
        tag, stop = wire.read_varint(data, start)
        if stop != end:
            raise ValueError("the tag is of another length")
        return tag


def equal_rows(rows: Array) -> int:
    """How many rows of a matrix, from the first on, are equal."""
    if rows.tobytes() == rows[:1].tobytes() * len(rows):
        return len(rows)
    return int((rows != rows[0]).any(axis=1).argmax())


class Templates:
    """The templates of all models, by the length of the requests."""

    def __init__(self) -> None:
        self._by_length: dict[int, list[Template]] = {}
        self._next = 0.0
        self._count = 0

    def find(self, data: bytes) -> Template | None:
        """The template that a request looks like, if there is one."""
        for template in self._by_length.get(len(data), ()):
            if template.is_like(data):
                return template
        return None

    def learn(
        self, data: bytes, message: pb.PredictRequest, request: InferRequest, model: Model, typed: bool
    ) -> None:
        """Makes a template of a good request, if it has not just made one; see `Template`."""
        if request.arrived < self._next:
            return
        self._next = request.arrived + LEARNING_SECONDS
        try:
            template = Template(data, message, request, model, typed)
        except (ValueError, KeyError):
            return
        if self._count >= MOST:
            self._by_length, self._count = {}, 0
        self._count += 1
        alike = self._by_length.get(len(data), [])
        self._by_length[len(data)] = [template, *alike[: MOST_OF_A_LENGTH - 1]]


class _Places:
    """Where the parts of a request are that differ from one to the next; NOWHERE for what it has not."""

    __slots__ = ("id", "inputs", "tag")

    def __init__(self) -> None:
        self.id = self.tag = NOWHERE
        self.inputs: dict[str, Span] = {}


def _places(data: bytes) -> _Places:
    """Finds them.

    Raises:
        ValueError: one is there more than once, or the encoding is not as expected.
    """
    places = _Places()
    for key, *span in wire.fields(data, 0, len(data)):
        start, end = span
        if key == INPUTS:
            name, raw = _input(data, start, end)
            if name in places.inputs:
                raise ValueError(f"input {name} is there twice")
            places.inputs[name] = raw
        elif key == ID:
            places.id = _once(places.id, start, end)
        elif key == TAG:
            places.tag = _once(places.tag, start, end)
            if end - start > WIDEST_TAG:
                raise ValueError("the tag is too large")
    return places


def _input(data: bytes, start: int, end: int) -> tuple[str, Span]:
    """The name of an input, and the place of its values."""
    name = value = raw = NOWHERE
    for key, first, last in wire.fields(data, start, end):
        if key == KEY:
            name = _once(name, first, last)
        elif key == VALUE:
            value = _once(value, first, last)
    for key, first, last in wire.fields(data, *value):
        if key == RAW:
            raw = _once(raw, first, last)
    if raw == NOWHERE:
        raise ValueError("an input has no raw values")
    return data[slice(*name)].decode(), raw


def _once(before: Span, start: int, end: int) -> Span:
    if before != NOWHERE or start == end:
        raise ValueError("a field is there twice, or empty")
    return start, end


def _between(data: bytes, spans: Sequence[Span]) -> Sequence[tuple[int, bytes]]:
    """What is between the spans, and where.

    Raises:
        ValueError: it is too much to be compared every time.
    """
    constants, position = [], 0
    for start, end in sorted(span for span in spans if span != NOWHERE):
        constants.append((position, data[position:start]))
        position = end
    constants.append((position, data[position:]))
    if sum(len(constant) for _, constant in constants) > LARGEST:
        raise ValueError("too much of the request is no values")
    return constants
