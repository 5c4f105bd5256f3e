"""How the calls of `predict` travel: what they have in common, and which way each goes.."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from penstock_client._messages import Deadline, seconds
from penstock_client._mux import MOST_PENDING
from penstock_client._wire import Template

Transport: TypeAlias = Literal["auto", "unary", "stream"]
"""How predictions travel: a unary call each, all over one stream, or whichever is quicker."""

PREDICT = "/penstock.v1.PredictionService/Predict"
PREDICT_STREAM = "/penstock.v1.PredictionService/PredictStream"
STREAMED_BYTES = 1 << 18
"""Of "auto": what has more bytes of tensors goes by a unary call, and does not hold the others up."""

_TEMPLATES = 1024
_HEADER = re.compile(r"[a-z0-9_.-]+")


class Requests:
    """What the calls of one client have in common.

    Args:
        transport: how they travel.
        merge_rows: whether concurrent calls become one request.
        max_pending: the most requests that are pending on the stream.

    Attributes:
        by_stream: whether any call may go over the stream.
        merging: whether concurrent calls become one request.

    Raises:
        ValueError: the transport is none, or has no rows to merge; or `max_pending` is out of its range.
    """

    def __init__(self, transport: Transport, merge_rows: bool, max_pending: int) -> None:
        if not 1 <= max_pending <= MOST_PENDING:
            raise ValueError(f"max_pending is 1 to {MOST_PENDING}, not {max_pending!r}")
        if transport not in ("auto", "unary", "stream"):
            raise ValueError(f'transport is "auto", "unary" or "stream", not {transport!r}')
        if merge_rows and transport == "unary":
            raise ValueError('merge_rows needs a stream: transport is "auto" or "stream", not "unary"')
        self.by_stream = transport != "unary"
        self.merging = merge_rows
        self._auto = transport == "auto"
        self._first = self._auto and not merge_rows
        self._templates: dict[Any, Template] = {}

    def template(
        self, model: str, version: str | int, outputs: Sequence[str] | None, priority: int
    ) -> Template:
        """What requests with these fields have in common."""
        if outputs is not None:
            outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        key = (model, version, outputs, priority)
        known = self._templates.get(key)
        if known is None:
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()  # far more than models and ways to ask them: no cache would help
            known = self._templates[key] = Template(model, str(version), outputs, priority)
        return known

    def streams(self, written: list[bytes]) -> bool:
        """Whether a request with these inputs goes over the stream."""
        if not self._auto:
            return self.by_stream
        if self._first:  # a client that makes one call needs no stream
            self._first = False
            return False
        return self.by_stream and (len(written) < 2 or sum(map(len, written)) <= STREAMED_BYTES)

    def no_streams(self) -> None:
        """The server has none."""
        self.by_stream = False


def deadline_of(timeout: float | None, default: float | None) -> Deadline:
    """The deadline of a call with this timeout.

    Raises:
        ValueError: the timeout is not above 0.
    """
    return Deadline(seconds(timeout, default))


def checked(metadata: Mapping[str, str] | None, id: str) -> Mapping[str, str] | None:
    """The metadata of a call, which must fit into headers whichever way it travels; and its id is text.

    Raises:
        ValueError: a key or a value does not fit, or the id is no text that can be encoded.
        TypeError: the id is no text, or the metadata no mapping.
    """
    if not isinstance(id, str):
        raise TypeError(f"an id is a str, not {id!r}")
    id.encode()
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is a mapping of a key to a value, not {metadata!r}")
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not _HEADER.fullmatch(key) or key.endswith("-bin"):
            raise ValueError(f"a metadata key is lower-case letters, digits and -_., not {key!r}")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise ValueError(f"the metadata {key} is printable ASCII text, not {value!r}")
    return metadata
