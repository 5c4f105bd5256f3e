"""The interface of a protocol's codec: decodes requests, encodes answers, and finds values in the bytes.

A codec is four functions and an estimate of their work. `protocols/request.py` does the rest, the same for
every protocol.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from penstock.core.errors import InvalidRequest, RequestError
from penstock.core.names import many
from penstock.core.request import Response
from penstock.core.tensors import Array
from penstock.models.model import Model
from penstock.protocols.fast_path.spans import Span
from penstock.protocols.work import Work
from penstock.transport.grpc.call import Status

NO_METADATA: Mapping[str, str] = {}


class SequenceStep(NamedTuple):
    """The sequence fields of a request, for a step of a sequence.

    Attributes:
        id: the sequence's id; "" for the stream's own sequence.
        start: whether this is the first step; it drops an earlier state.
        end: whether this is the last step.
    """

    id: str = ""
    start: bool = False
    end: bool = False


class Contents(NamedTuple):
    """The content of a request, checked against the model's signature.

    Attributes:
        inputs: every input that was sent, by name, in the signature's order.
        outputs: the outputs wanted, in the signature's order.
        form: the format of the answer; only the protocol's own encoder reads it.
        timeout_seconds: infinity for no limit.
        priority: above 0 runs before normal requests, below 0 after them.
        sequence: the sequence fields; None if the message has none.
    """

    inputs: dict[str, Array]
    outputs: Sequence[str]
    form: Any
    timeout_seconds: float = math.inf
    priority: int = 0
    sequence: SequenceStep | None = None


class Decoded(ABC):
    """A message that has been parsed but not yet checked against a model.

    Args:
        model: the name of the model asked for.
        version: a version number, a label, or "" for the default.
        id: the id that the caller gave the request; "" for none.
        tag: the number that matches an answer on a stream with its request; 0 for none.
        size: the size of the message in bytes.

    Attributes:
        learns_steps: whether a step that names its sequence may become a known request.
    """

    __slots__ = ("id", "model", "size", "tag", "version")
    learns_steps = False

    def __init__(self, model: str, version: str, id: str, tag: int, size: int) -> None:
        self.model = model
        self.version = version
        self.id = id
        self.tag = tag
        self.size = size

    @abstractmethod
    def contents(self, model: Model) -> Contents:
        """Checks the request against a model and returns its content.

        Raises:
            InvalidRequest: it does not fit the model; the text says what was received and what was expected.
        """

    @property
    def names_sequence(self) -> bool:
        """Whether it names its sequence by an id."""
        return False

    def metadata(self) -> Mapping[str, str]:
        """The metadata of a request on a stream, which has no headers of its own."""
        return NO_METADATA


class Asked(NamedTuple):
    """The content of a request besides its inputs, id and tag.

    All but the timeout and the metadata is equal for all requests that match a known request.

    Attributes:
        route: the model's name, and a version, a label or "".
        outputs: the outputs wanted, in the signature's order.
        rows: how many rows the request has, if the model is batched; else 1.
        shape_key: equal for requests that may share a batch.
        timeout_seconds: infinity for no limit.
        priority: above 0 runs before normal requests, below 0 after them.
        form: the format of the answer.
        metadata: the metadata in the message, if the server is configured to read it.
    """

    route: tuple[str, str]
    outputs: Sequence[str]
    rows: int
    shape_key: object
    timeout_seconds: float = math.inf
    priority: int = 0
    form: Any = None
    metadata: Mapping[str, str] = NO_METADATA


class AnswerTo(Protocol):
    """A request, as the encoder of its answer sees it."""

    @property
    def model(self) -> Model:
        """The model that answers."""

    @property
    def id(self) -> str:
        """The request's id; "" for none."""

    @property
    def tag(self) -> int:
        """The request's tag; 0 for none."""

    @property
    def form(self) -> Any:
        """The format of the answer."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A protocol's codec: reads requests and writes answers.

    Attributes:
        decode: parses a message; raises InvalidRequest if it cannot be parsed.
        encode: writes the answer to a request; returns an error if the protocol cannot carry it.
        error: the status of a call that ends with an error.
        spans: finds the parts of a message that differ between similar requests; raises ValueError if it
            cannot. See `fast_path/known_requests.py`.
        work: how much work it is to decode a message.
    """

    decode: Callable[[bytes], Decoded]
    encode: Callable[[Response, AnswerTo], bytes | RequestError]
    error: Callable[[RequestError], Status]
    spans: Callable[[bytes], Sequence[Span]]
    work: Work


M = TypeVar("M", bound=Message)
T = TypeVar("T")


def parsed(kind: type[M], data: bytes) -> M:
    """The protobuf message in `data`.

    Raises:
        InvalidRequest: the bytes are not such a message.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidRequest(
            f"the request ({many(len(data), 'byte')}) cannot be parsed as {kind.__name__}"
        ) from None


def attached(model: Model, kind: type[T]) -> T:
    """The object of this class that belongs to the model; made at its first use."""
    found: T | None = model.attachments.get(kind)
    if found is None:
        found = model.attachments[kind] = kind(model)  # type: ignore[call-arg]
    return found
