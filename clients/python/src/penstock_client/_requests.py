"""Decides how each call of `predict` is sent: as a unary call or over the shared stream."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from penstock_client._arguments import check_fields, check_whole, no_names
from penstock_client._deadline import Deadline, seconds
from penstock_client._errors import no_utf8
from penstock_client._messages import Signature
from penstock_client._mux import MOST_PENDING
from penstock_client._wire import KnownRequest

Transport: TypeAlias = Literal["auto", "unary", "stream"]
"""How predictions are sent: one unary call each, all over one stream, or the faster of both."""
Metadata: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Metadata of a request: a mapping, or pairs of a key and a value."""

PREDICT = "/penstock.v1.PredictionService/Predict"
PREDICT_STREAM = "/penstock.v1.PredictionService/PredictStream"
STREAMED_BYTES = 1 << 18
"""With "auto", requests with more bytes of tensors are unary calls, so they do not delay others."""

_MOST_KNOWN = 1024
_HEADER = re.compile(r"[a-z0-9_.-]+")


class Requests:
    """The options and the known requests that the calls of one client share.

    Args:
        transport: how they are sent.
        merge_rows: whether concurrent calls become one request.
        max_pending: most pending requests on the stream.

    Attributes:
        by_stream: whether calls may use the stream.
        merging: whether concurrent calls become one request.
        encode: encodes the inputs of a call.

    Raises:
        TypeError: `max_pending` is no integer.
        ValueError: the transport is unknown or cannot merge rows, or `max_pending` is out of range.
    """

    def __init__(self, transport: Transport, merge_rows: bool, max_pending: int) -> None:
        check_whole("max_pending", max_pending, 1, MOST_PENDING)
        if transport not in ("auto", "unary", "stream"):
            raise ValueError(f'transport is "auto", "unary" or "stream", not {transport!r}')
        if merge_rows and transport == "unary":
            raise ValueError('merge_rows needs a stream: transport is "auto" or "stream", not "unary"')
        self.by_stream = transport != "unary"
        self.merging = merge_rows
        self.encode = Signature.write_apart if merge_rows else Signature.write
        self._auto = transport == "auto"
        self._first = self._auto and not merge_rows
        self._known: dict[Any, KnownRequest] = {}

    def known(
        self, model: str, version: str | int, outputs: Sequence[str] | None, priority: int
    ) -> KnownRequest:
        """The known part of requests with these fields.

        Raises:
            InvalidInput: one cannot be written as UTF-8.
            TypeError: one has a wrong type.
            ValueError: the priority has more than 32 bits.
        """
        if outputs is not None:
            try:
                outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
            except TypeError:
                raise TypeError(no_names(outputs)) from None
        key = (model, version, outputs, priority)
        try:
            known = self._known.get(key)
        except TypeError:  # something in it has no hash, so it is of a wrong type
            known = None
        if known is None:
            check_fields(*key)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()  # far more combinations than usual: a cache would not help
            try:
                known = self._known[key] = KnownRequest(model, str(version), outputs, priority)
            except UnicodeEncodeError as error:
                raise no_utf8("model, version or output", error) from None
        return known

    def streams(self, written: list[bytes]) -> bool:
        """Whether a request with these inputs goes over the stream."""
        if not self._auto:
            return self.by_stream
        if self._first:  # a client with a single call needs no stream
            self._first = False
            return False
        return self.by_stream and (len(written) < 2 or sum(map(len, written)) <= STREAMED_BYTES)

    def no_streams(self) -> None:
        """The server does not support streams."""
        self.by_stream = False


def deadline_of(timeout: float, model: str) -> Deadline:
    """The deadline of a call for a model with this timeout.

    Raises:
        TypeError: the timeout is not a number.
        ValueError: the timeout is not above 0.
    """
    return Deadline(seconds(timeout, None), model)


def pairs_of(metadata: Any) -> tuple[tuple[Any, Any], ...]:
    """The pairs in metadata, which is a mapping or has pairs already.

    Raises:
        TypeError: it is neither.
    """
    pairs = metadata.items() if isinstance(metadata, Mapping) else metadata
    if not isinstance(pairs, Iterable) or isinstance(pairs, (str, bytes)):
        raise TypeError(f"metadata is a mapping of a key to a value, or pairs of both, not {metadata!r}")
    found = tuple(pairs)
    for pair in found:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"metadata is a mapping of a key to a value, or pairs of both; got {pair!r}")
    return found


def checked(metadata: Metadata | None, id: str) -> Mapping[str, str] | None:
    """Checks the metadata of a call, which must be valid headers also on a stream, and its id.

    Raises:
        ValueError: a key or a value does not fit, a key comes twice, or the id is no text that can be
            encoded.
        TypeError: the id is not a text, or the metadata neither a mapping nor pairs.
    """
    if not isinstance(id, str):
        raise TypeError(f"an id is a str, not {id!r}")
    try:
        id.encode()
    except UnicodeEncodeError as error:
        raise ValueError(no_utf8("id", error).message) from None
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        pairs = pairs_of(metadata)
        metadata = dict(pairs)
        if len(metadata) < len(pairs):
            raise ValueError(f"a metadata key comes once in a request, not as in {pairs!r}")
    for key, value in metadata.items():
        if not isinstance(key, str) or not _HEADER.fullmatch(key) or key.endswith("-bin"):
            raise ValueError(f"a metadata key is lower-case letters, digits and -_., not {key!r}")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise ValueError(f"the metadata {key} is printable ASCII text, not {value!r}")
    return metadata
