"""Known rejections: a request is rejected unparsed if it is wrong in the same way as an earlier one.

A caller with a wrong name, version, input or shape sends such requests again and again, as fast as it is
answered. They are recognised as known requests are (`known_requests.py`): all bytes but the spans are
compared. What the error says depends on the models that exist, so it holds until these change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from penstock.core.errors import RequestError
from penstock.core.tensors import DataType
from penstock.models.model import Model
from penstock.protocols.fast_path.known_lists import KnownLists
from penstock.protocols.fast_path.pattern import Pattern
from penstock.protocols.fast_path.reading import LISTS
from penstock.protocols.fast_path.spans import Kind, Span

LEARNING_SECONDS = 0.02  # least time between new known rejections: limits the cost if all requests differ

TEXTS = frozenset({Kind.ID, Kind.TEXT})
VARIED = TEXTS | {Kind.RAW, Kind.FLOATS, Kind.DOUBLES}
"""The spans that may differ: whatever is in them, a parser accepts it, except texts that are not UTF-8."""

S = TypeVar("S")


def _varies(span: Span, model: Model | None) -> bool:
    """Whether a span may differ between requests that get the same error.

    Args:
        span: the span.
        model: the model whose signature the request does not fit; None if no model answers it.
    """
    if span.kind not in VARIED:
        return False
    spec = None if model is None else model.signature.inputs.get(span.name)
    if spec is None or span.kind in TEXTS:
        return True  # it is not read
    if span.kind is Kind.RAW:
        return spec.datatype not in (DataType.BOOL, DataType.BYTES)  # of these, values may be wrong as well
    return (span.kind, spec.datatype) in LISTS


class KnownRejection(Generic[S]):
    """A request that was rejected, as a pattern that matches requests which differ in their spans only.

    Args:
        data: its bytes.
        spans: the spans in these bytes.
        error: the error.
        status: what the error is answered with.
        models: the models that exist.
        model: the model whose signature the request does not fit; None if no model answers it.

    Attributes:
        error: an error like the one that was given.
        status, models, model: as given.
        uses: how often a request matched.

    Raises:
        ValueError: its spans cannot vary, or there is too much to compare.
    """

    __slots__ = ("_pattern", "_texts", "error", "model", "models", "status", "uses")

    def __init__(  # noqa: PLR0913 - what makes up a known rejection
        self,
        data: bytes,
        spans: Sequence[Span],
        error: RequestError,
        status: S,
        models: object,
        model: Model | None = None,
    ) -> None:
        varied = [each for each in spans if _varies(each, model)]
        varied.sort(key=lambda each: each.start)
        self._pattern = Pattern(data, varied, [each.kind not in TEXTS for each in varied])
        self._texts = [number for number, each in enumerate(varied) if each.kind in TEXTS]
        # A new one: an error that was raised keeps the frames that it went through, and with them the call.
        self.error = type(error)(str(error))
        self.status, self.models, self.model = status, models, model
        self.uses = 0

    @property
    def size(self) -> int | None:
        """The length of every matching request; None if it may differ."""
        return self._pattern.size

    @property
    def first(self) -> bytes:
        """What every matching request begins with."""
        return self._pattern.first

    def matches(self, data: bytes) -> KnownRejection[S] | None:
        """This rejection, if the bytes match it; else None."""
        pattern = self._pattern
        if pattern.size is not None:
            fits = len(data) == pattern.size
            for place, constant in pattern.constants:
                fits = fits and data.startswith(constant, place)
            return self if fits else None
        try:
            places = pattern.places_in(data)
        except (IndexError, ValueError):
            return None
        if places is None:
            return None
        for number in self._texts:
            start, end = places[number]
            if not data[start:end].isascii():
                return None
        return self


class KnownRejections(Generic[S]):
    """The known rejections of one protocol.

    Args:
        spans_of: finds the spans of a request; raises ValueError if it cannot.
        status_of: what an error is answered with.

    Attributes:
        last_matched: whether the last request that was looked for matched: the next one is looked for first.
    """

    def __init__(
        self, spans_of: Callable[[bytes], Sequence[Span]], status_of: Callable[[RequestError], S]
    ) -> None:
        self._spans_of = spans_of
        self._status_of = status_of
        self._lists: KnownLists[KnownRejection[S]] = KnownLists()
        self._models: object = None  # for which these hold; None if there are none
        self.last_matched = False
        self._next = 0.0

    def __len__(self) -> int:
        return len(self._lists.all)

    def find(self, data: bytes, models: Mapping[tuple[str, str], object]) -> KnownRejection[S] | None:
        """The known rejection that a request matches; None without a match.

        Args:
            data: the request.
            models: the models that exist, by name and version: the mapping that was given to `learn`.
        """
        if models is not self._models:
            if self._models is not None:
                self._forget()
            return None
        lists, size = self._lists, len(data)
        # As `lists.of_length`, but without a call, as most rejections that are known are found here.
        place = size, data[: 2 + data[1]] if size > 1 else data
        for known in lists.of_length(data) if lists.any_differs else lists.by_length.get(place, ()):
            if known.models is models and known.matches(data) is not None:
                known.uses += 1
                self.last_matched = True
                return known
        for known in lists.beginning_as(data) if lists.any_varies else ():
            if known.models is models and known.matches(data) is not None:
                known.uses += 1
                lists.note_length(known, data)
                self.last_matched = True
                return known
        self.last_matched = False
        return None

    def learn(
        self,
        data: bytes,
        error: RequestError,
        models: Mapping[tuple[str, str], object],
        now: float,
        model: Model | None = None,
    ) -> None:
        """Notes that a request which came at `now` was rejected, as all are that differ in its spans only.

        Args:
            data: the request.
            error: why: there is no such model, or it does not fit `model`, whatever its values.
            models: the models that exist, by name and version.
            now: the time, by `time.monotonic()`.
            model: the model; None if there is none.
        """
        if now < self._next:
            return
        self._next = now + LEARNING_SECONDS
        if models is not self._models:
            self._forget()
        try:
            known = KnownRejection(data, self._spans_of(data), error, self._status_of(error), models, model)
        except (ValueError, KeyError):
            return
        self._models = models
        self._lists.add(known, data)

    def _forget(self) -> None:
        """Forgets all: they hold for other models, and would keep these in memory."""
        self._models, self._lists, self.last_matched = None, KnownLists(), False
