"""Known requests: reads a request without parsing it, if it differs from an earlier one in its spans only.

A program usually sends the same request again and again: only the values of its tensors, its id, its timeout,
its metadata and, on a stream, its tag differ. A known request is an earlier valid request with the spans of
these parts. A request that fits its pattern is valid, too, and has the same meaning but for its spans: see
`pattern.py`, and `reading.py` for what is checked of the spans themselves. Every other request is parsed.

The meaning of a request also depends on the model: on its signature, and on how its requests are batched. A
known request applies to every version for which these are equal; see `Reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from threading import Lock
from typing import TypeAlias
from weakref import WeakValueDictionary

import numpy as np

from penstock.core.errors import InvalidRequest
from penstock.core.large_bytes import LARGE_BYTES, part_of
from penstock.core.tensors import Array, TensorSpec
from penstock.core.wire import LAST_BYTE
from penstock.models.model import Model
from penstock.protocols.codec import Asked
from penstock.protocols.fast_path import reading
from penstock.protocols.fast_path.known_lists import KnownLists
from penstock.protocols.fast_path.pattern import Pattern, Places
from penstock.protocols.fast_path.reading import LONGEST_VARINT
from penstock.protocols.fast_path.spans import INPUTS, Kind, Span

LEARNING_SECONDS = 0.02  # least time between new known requests: limits the cost if all requests differ

MOST_BYTES = 10  # of an integer

TIMEOUTS: Mapping[Kind, Callable[[bytes, int, int], float]] = {
    Kind.DURATION: reading.seconds,
    Kind.MICROS: reading.seconds_of_micros,
}


class Reading:
    """What the meaning of a request depends on in a model; models that are equal in this share an object."""

    __slots__ = ("__weakref__",)


_readings: WeakValueDictionary[Hashable, Reading] = WeakValueDictionary()
_readings_lock = Lock()


def reading_of(model: Model) -> Reading:
    """The model's reading, stored with it; models that read requests the same way share it."""
    found: Reading | None = model.attachments.get(Reading)
    if found is None:
        signature, state = model.signature, model.sequence_state
        key = (
            tuple(signature.inputs.items()),
            tuple(signature.outputs.items()),
            model.defaults,
            (model.by_rows, model.batching.enabled),
            repr(model.padding),
            None if state is None else (tuple(state.rows_of), repr(state.step_inputs)),
        )
        with _readings_lock:
            found = _readings.setdefault(key, Reading())
        model.attachments[Reading] = found
    return found


class KnownRequest:
    """An earlier valid request, and its pattern, which matches requests that differ in their spans only.

    Args:
        data: the bytes of the request.
        spans: the parts of these bytes that may differ.
        asked: the request's content besides its inputs.
        inputs: its inputs.
        model: the model it is for.
        names_sequence: whether it is a step of a sequence that it names.

    Attributes:
        asked: the request's content besides its inputs. The timeout and the metadata may differ.
        reading: how the model read it. The known request applies only to models with the same reading.
        pattern: what matching requests look like.
        is_own_step: whether it is a step of a sequence, and does not name it.
        may_be_many: whether several matching requests may run as one micro-batch.
        id, tag, timeout, sequence: the numbers of their spans, counted from 0; None if the request has none.
        texts: the numbers of the spans that hold the metadata, by key.
        plain_texts: the numbers of these and of the id.
        uses: how often a request matched, for the choice which known request is given up.
    """

    __slots__ = (
        "_inputs", "_integers", "_plain", "_scalars", "_seconds_of", "_texts", "asked", "id", "is_own_step",
        "may_be_many", "pattern", "plain_texts", "reading", "sequence", "tag", "texts", "timeout", "uses",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - what makes up a known request
        self,
        data: bytes,
        spans: Sequence[Span],
        asked: Asked,
        inputs: Mapping[str, Array],
        model: Model,
        names_sequence: bool = False,
    ) -> None:
        # long: all that is found out once, so that it is not for each request
        if model.by_rows and not inputs.keys().isdisjoint(model.defaults):
            raise ValueError("it runs alone, and so would each request that matches it")
        if sum(span.kind in INPUTS for span in spans) != len(inputs):
            raise ValueError("some inputs are not read from a span")
        # A batch has one value of each scalar: so it is compared, like all bytes that must be equal.
        self._scalars = {name: inputs[name].copy() for name in model.scalars}
        specs = model.signature.inputs
        varied = sorted(
            [each for each in spans if _varies(each, self._scalars, specs)], key=lambda each: each.start
        )
        fixed = [each.kind in INPUTS and reading.has_fixed_size(each, specs[each.name]) for each in varied]
        self.pattern = Pattern(data, varied, fixed)
        self._inputs = _inputs(data, varied, specs, inputs)
        self._plain = all(read is None for _, _, _, _, read in self._inputs)
        numbers = {(each.kind, each.name): number for number, each in enumerate(varied)}
        self.id, self.tag = numbers.get((Kind.ID, "")), numbers.get((Kind.TAG, ""))
        self.sequence = numbers.get((Kind.SEQUENCE, ""))
        if (names_sequence and model.sequence_state is not None) is (self.sequence is None):
            raise ValueError("the id of its sequence is not read from a span")
        self.timeout, self._seconds_of = None, None
        for (kind, _), number in numbers.items():
            if kind in TIMEOUTS:
                self.timeout, self._seconds_of = number, TIMEOUTS[kind]
        self.texts = {name: number for (kind, name), number in numbers.items() if kind is Kind.TEXT}
        self.plain_texts = (*self.texts.values(), *([] if self.id is None else [self.id]))
        texts = (Kind.TEXT, Kind.STRING, Kind.SEQUENCE)
        self._texts = [number for (kind, _), number in numbers.items() if kind in texts]
        self._integers = [
            (number, inputs[name].size * MOST_BYTES)
            for (kind, name), number in numbers.items()
            if kind is Kind.INTEGERS
        ]
        self.is_own_step = model.sequence_state is not None and self.sequence is None
        self.may_be_many = (
            self._plain
            and model.batching.enabled
            and model.sequence_state is None
            and not model.row_axes  # a micro-batch has its rows along the first axis of every tensor
        )
        self.uses = 0
        self.asked, self.reading = asked, reading_of(model)

    @property
    def size(self) -> int | None:
        """The length of every matching request; None if it may differ."""
        return self.pattern.size

    @property
    def first(self) -> bytes:
        """What every matching request begins with."""
        return self.pattern.first

    def model_now(self, targets: Mapping[tuple[str, str], Model]) -> Model | None:
        """The model that answers; None if the route leads to no model with the same reading.

        Args:
            targets: the models by name and version; see `Router`.
        """
        model = targets.get(self.asked.route)
        if model is None:
            return None
        if model.attachments.get(Reading) is self.reading:
            return model
        return model if reading_of(model) is self.reading else None

    def matches(self, data: bytes) -> Found | None:
        """What is found if the bytes match this known request; else None."""
        pattern = self.pattern
        if pattern.size is not None:
            if len(data) != pattern.size:
                return None
            for place, constant in pattern.constants:
                if not data.startswith(constant, place):
                    return None
            return self, "", 0, self.asked.timeout_seconds, pattern.places
        return self._varying(data)

    def _varying(self, data: bytes) -> Found | None:
        try:
            places = self.pattern.places_in(data)
            if places is None:
                return None
            id, tag, seconds = "", 0, self.asked.timeout_seconds
            if self.id is not None:
                start, end = places[self.id]
                id = data[start:end].decode()
            if self.tag is not None:
                tag = reading.tag(data, *places[self.tag])
            if self._seconds_of is not None:
                assert self.timeout is not None
                seconds = self._seconds_of(data, *places[self.timeout])
            # A parser rejects the whole message, if a text or a list of integers is encoded wrongly.
            for number, most in self._integers:
                start, end = places[number]
                if data[end - 1] > LAST_BYTE or end - start > LONGEST_VARINT:
                    reading.check_integers(data, start, end, most)
            for number in self._texts:
                start, end = places[number]
                text = data[start:end]
                if not text.isascii():
                    text.decode()
        except (IndexError, ValueError):
            return None
        return self, id, tag, seconds, places

    def inputs_of(self, data: bytes, places: Places) -> dict[str, Array] | None:
        """The inputs, each copied into its own memory; None if one is not valid.

        Views of the request would have any alignment. Some operators, such as sums, round differently by the
        alignment of their input, so equal requests would get slightly different answers.

        Args:
            data: a matching request.
            places: the places of its spans.
        """
        inputs: dict[str, Array] = {}
        for name, shape, dtype, number, read in self._inputs:
            start, end = places[number]
            if read is None:
                values = data[start:end] if end - start < LARGE_BYTES else part_of(data, start, end)
                inputs[name] = np.ndarray(shape, dtype, values)
                continue
            try:
                inputs[name] = read(data[start:end])
            except (ValueError, InvalidRequest):
                return None
        if self._scalars:
            inputs.update(self._scalars)
        return inputs

    def sequence_of(self, data: bytes, places: Places) -> str | None:
        """The id of the sequence that a matching request names; None if it names none.

        Raises:
            UnicodeDecodeError: it is not text.
        """
        if self.sequence is None:
            return None
        start, end = places[self.sequence]
        return data[start:end].decode()

    def metadata_of(self, data: bytes, places: Places) -> Mapping[str, str]:
        """The metadata of a matching request, as far as the server is set up to read it."""
        found = dict(self.asked.metadata)
        for name in found.keys() & self.texts.keys():
            start, end = places[self.texts[name]]
            found[name] = data[start:end].decode()
        return found

    def all_inputs_of(self, messages: Array, places: Places) -> dict[str, Array]:
        """The inputs of several matching messages, uint8 [count, bytes of each], in new arrays."""
        inputs: dict[str, Array] = {}
        for name, shape, dtype, number, _ in self._inputs:
            start, end = places[number]
            values = np.ascontiguousarray(messages[:, start:end])
            inputs[name] = values.view(dtype).reshape(len(messages) * shape[0], *shape[1:])
        inputs.update(self._scalars)
        return inputs


Found: TypeAlias = tuple[KnownRequest, str, int, float, Places]
"""The known request that a request matches; its own id, tag and timeout; and the places of its spans."""

_Input: TypeAlias = tuple[str, tuple[int, ...], "np.dtype[np.generic]", int, reading.Read | None]


def _varies(span: Span, scalars: Mapping[str, Array], specs: Mapping[str, object]) -> bool:
    """Whether a span may differ; the others are compared."""
    if span.kind not in INPUTS:
        return span.kind is Kind.TAG or span.may_vary_in_length()
    if span.name not in specs:
        raise ValueError("an input is not the model's")
    return span.name not in scalars


def _inputs(
    data: bytes, spans: Sequence[Span], specs: Mapping[str, TensorSpec], inputs: Mapping[str, Array]
) -> Sequence[_Input]:
    """How to read the inputs, in the order of the signature."""
    numbers = {span.name: (number, span) for number, span in enumerate(spans) if span.kind in INPUTS}
    found = []
    for name, array in inputs.items():
        if name in numbers:
            number, span = numbers[name]
            read = reading.reader(span, specs[name], array)
            if read is not None and not _are_equal(read(data[span.start : span.end]), array):
                raise ValueError("the span does not hold all values")
            found.append((name, array.shape, array.dtype, number, read))
    return found


def _are_equal(one: Array, other: Array) -> bool:
    if one.dtype.hasobject:
        return one.shape == other.shape and one.tolist() == other.tolist()
    return one.shape == other.shape and one.tobytes() == other.tobytes()


class KnownRequests:
    """The known requests of all models of one protocol.

    Args:
        spans_of: finds the parts of a request that differ between similar requests, see `Spans`; raises
            ValueError if it cannot.
    """

    def __init__(self, spans_of: Callable[[bytes], Sequence[Span]]) -> None:
        self._spans_of = spans_of
        self._lists: KnownLists[KnownRequest] = KnownLists()
        self._next = 0.0

    def __len__(self) -> int:
        return len(self._lists.all)

    def find(self, data: bytes) -> Found | None:
        """The known request that a request matches, and what is found in it; None without a match."""
        lists = self._lists
        # As `lists.of_length`, but without a call, as most requests are found here.
        size = len(data)
        place = size, data[: 2 + data[1]] if size > 1 else data
        for known in lists.of_length(data) if lists.any_differs else lists.by_length.get(place, ()):
            found = known.matches(data)
            if found is not None:
                known.uses += 1
                return found
        for known in lists.beginning_as(data) if lists.any_varies else ():
            found = known.matches(data)
            if found is not None:
                known.uses += 1
                lists.note_length(known, data)
                return found
        return None

    def is_time(self, now: float) -> bool:
        """Whether a valid request that came at `now` may become known: not right after another one."""
        return now >= self._next

    def learn(  # noqa: PLR0913 - a request, and when it came
        self,
        data: bytes,
        asked: Asked,
        inputs: Mapping[str, Array],
        model: Model,
        now: float,
        names_sequence: bool = False,
    ) -> None:
        """Makes a valid request that came at `now` a known request; see `KnownRequest`."""
        self._next = now + LEARNING_SECONDS
        try:
            known = KnownRequest(data, self._spans_of(data), asked, inputs, model, names_sequence)
        except (ValueError, KeyError):
            return
        self._lists.add(known, data)
