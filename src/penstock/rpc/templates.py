"""Requests that differ from an earlier one in their values only, read without parsing them.

A program sends the same request over and over: its bytes are the same but for the values of its tensors, its
id and, on a stream, its tag. A template is an earlier request that was parsed and found good, with the places
of these in its bytes. A request of the same length whose other bytes are equal is good as well and means the
same: every key and every length is among the other bytes, so a parser would cut it in the same places, and
no check looks at the values of numbers. Anything else is parsed as ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from penstock.errors import RequestError
from penstock.messages import InferRequest
from penstock.models.model import Model
from penstock.rpc import wire
from penstock.rpc.places import NOWHERE, Places, Span
from penstock.tensors import Array, DataType

MOST = 256  # templates
MOST_OF_A_LENGTH = 4
LARGEST = 4096  # bytes of a request that are no values
LEARNING_SECONDS = 0.02  # between templates: callers whose requests are all different pay for few
LAST_BYTE = 0x7F  # the largest last byte of a varint; all others are above
CHECKED = (DataType.BOOL, DataType.BYTES)  # not every value of these is good


class Asked(NamedTuple):
    """What a request asks for besides its inputs and outputs.

    Attributes:
        name: the model asked for.
        version: the version asked for.
        timeout_seconds: the longest it may take; infinity for no limit.
        form: how its door writes the answer.
    """

    name: str
    version: str
    timeout_seconds: float
    form: Any


class Template:
    """What is known of requests that look like one that was good.

    Args:
        data: that one's bytes.
        places: where the parts are in them that differ from one to the next.
        asked: what it asks for.
        request: what was made of it.
        model: the model it is for.

    Attributes:
        asked: what it asks for.
        model: the model that this led to. Where it leads to another one now, nothing is known.
        outputs: the outputs wanted.
        rows: how many rows each has.
        shape_key: as in `InferRequest`.
        priority: their priority.
        may_be_many: whether several may be run as one.

    Raises:
        ValueError: requests may look like this one and not be good, or mean something else.
    """

    __slots__ = (
        "_constants", "_id", "_inputs", "_scalars", "_tag", "_varies", "asked", "may_be_many", "model",
        "outputs", "priority", "rows", "shape_key",
    )  # fmt: skip

    def __init__(
        self, data: bytes, places: Places, asked: Asked, request: InferRequest, model: Model
    ) -> None:
        inputs, arrays = model.signature.inputs, request.inputs
        if any(inputs[name].datatype in CHECKED for name in arrays) or len(places.inputs) != len(arrays):
            raise ValueError("there are inputs whose values are checked, or that did not come as raw")
        # Of these a batch has one value: it is compared like all that does not vary.
        self._scalars = {name: arrays[name].copy() for name in model.scalars}
        varied = [name for name in arrays if name not in self._scalars]
        self._inputs = [
            (name, arrays[name].shape, arrays[name].dtype, *places.inputs[name]) for name in varied
        ]
        self._id, self._tag = places.id, places.tag
        self._varies = places.id != NOWHERE or places.tag != NOWHERE
        self.may_be_many = model.batching.enabled and places.id == NOWHERE and model.kept is None
        spans = [places.inputs[name] for name in varied]
        self._constants = _between(data, [*spans, places.id, places.tag])
        self.asked, self.model = asked, ref(model)
        self.outputs, self.rows, self.shape_key = request.outputs, request.rows, request.shape_key
        self.priority = request.priority

    def model_now(self, route: Callable[[str, str], Model]) -> Model | None:
        """The model that answers; None where the route does not lead to the template's any more."""
        try:
            model = route(self.asked.name, self.asked.version)
        except RequestError:
            return None
        return model if model is self.model() else None

    def fill(self, request: InferRequest, data: bytes, deadline: float) -> None:
        """Makes of a request what the one that was parsed has become.

        Args:
            request: the request, of which nothing is set but its RPC.
            data: its bytes, which are of this kind.
            deadline: the call's.
        """
        # As InferRequest.__init__ does, without another call: every request pays for this.
        request.arrived = arrived = time.monotonic()
        request.deadline = min(deadline, arrived + self.asked.timeout_seconds)
        request.inputs = self.inputs_of(data)
        request.outputs, request.rows, request.shape_key = self.outputs, self.rows, self.shape_key
        request.priority, request.cancelled = self.priority, False

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
        inputs: dict[str, Array] = {
            name: np.ndarray(shape, dtype, data[start:end]) for name, shape, dtype, start, end in self._inputs
        }
        if self._scalars:
            inputs.update(self._scalars)
        return inputs

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
        inputs: dict[str, Array] = {}
        for name, shape, dtype, start, end in self._inputs:
            values = np.ascontiguousarray(messages[:, start:end])
            inputs[name] = values.view(dtype).reshape(len(messages) * shape[0], *shape[1:])
        inputs.update(self._scalars)
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
    """The templates of all models, by the length of the requests.

    Args:
        places_of: finds the parts of a request that differ from one to the next, see `Places`; raises
            ValueError where they cannot be told.
    """

    def __init__(self, places_of: Callable[[bytes], Places]) -> None:
        self._places_of = places_of
        self._by_length: dict[int, list[Template]] = {}
        self._next = 0.0
        self._count = 0

    def find(self, data: bytes) -> Template | None:
        """The template that a request looks like, if there is one."""
        for template in self._by_length.get(len(data), ()):
            if template.is_like(data):
                return template
        return None

    def is_time(self, request: InferRequest) -> bool:
        """Whether to learn from a good request: not, where that has just been done."""
        return request.arrived >= self._next

    def learn(self, data: bytes, asked: Asked, request: InferRequest, model: Model) -> None:
        """Makes a template of a good request; see `Template`."""
        self._next = request.arrived + LEARNING_SECONDS
        try:
            template = Template(data, self._places_of(data), asked, request, model)
        except (ValueError, KeyError):
            return
        if self._count >= MOST:
            self._by_length, self._count = {}, 0
        self._count += 1
        alike = self._by_length.get(len(data), [])
        self._by_length[len(data)] = [template, *alike[: MOST_OF_A_LENGTH - 1]]


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
