"""Finds the sequence of a request and its caller, for models with a state that the server keeps."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Protocol

from penstock.core.caller import Caller
from penstock.core.errors import InvalidRequest
from penstock.core.request import Step
from penstock.core.tensors import Array
from penstock.models.model import Model
from penstock.transport.grpc.call import Metadata, ServerCall
from penstock.transport.grpc.connections import CONNECTIONS, host_of

BY_ID = (
    "{model} has a state, so the request must name its sequence: set the sequence's id (and start with its "
    "first step){stream}"
)

UNARY_ADVICE = (
    "; over HTTP by the headers Penstock-Sequence-Id and Penstock-Sequence-Start; or send all steps of the "
    "sequence on one stream"
)

SEQUENCES_KEY, BY_ID_ONLY, SHARED = "penstock-sequences", "by-id", "shared"
"""Metadata of a call. "by-id": several callers use this stream, so every step must name its sequence.
"shared": this caller shares the sequences that it begins with all others that send this."""

CALLER_KEY = "penstock-caller"
"""Metadata of a call: the name of its caller. So a caller is the same on all of its connections."""

LONGEST_NAME = 64
"""Most characters of a caller's name that are kept; of a longer one its digest is."""

LONGEST_ID = 256
"""Most characters in a sequence's id, which is kept as long as the state."""


class StepOrigin(Protocol):
    """A unary call or a stream that steps come on."""

    @property
    def step_caller(self) -> Caller:
        """Who sends them."""

    @property
    def stream(self) -> StepStream | None:
        """The stream; None for a unary call."""


class StepStream(StepOrigin, Protocol):
    """A stream that steps come on.

    Attributes:
        has_sequence: whether steps without an id belong to the stream's own sequence.
        plain_step: such a step, which neither begins nor ends the sequence.
    """

    has_sequence: bool

    @property
    def plain_step(self) -> Step:
        """As above; the same object for all steps."""


def caller_of(call: ServerCall, identity: str | None = None) -> Caller:
    """The caller of a call, for the steps of sequences.

    Args:
        call: the call.
        identity: who sent it, as the connection or the call proves; None if this is not known.

    Raises:
        InvalidRequest: the metadata `penstock-sequences` has a word that means nothing.
    """
    name: str | None = None
    shares = False
    for key, value in call.metadata:
        if key == CALLER_KEY:
            name = str(value)
        elif key == SEQUENCES_KEY:
            check_words(value)
            shares = shares or SHARED in _words(value)
    if name is not None and len(name) > LONGEST_NAME:
        name = sha256(name.encode()).hexdigest()
    peer = call.peer()
    known_as = None if name is None is identity else (identity, name)
    return Caller(peer, known_as, shares, host_of(peer), CONNECTIONS.is_open)


def has_own_sequence(metadata: Metadata) -> bool:
    """Whether steps without an id on a stream with this metadata belong to the stream's own sequence."""
    return all(key != SEQUENCES_KEY or BY_ID_ONLY not in _words(value) for key, value in metadata)


def check_metadata(metadata: Metadata) -> None:
    """Checks what the metadata of a stream says about sequences.

    Raises:
        InvalidRequest: `penstock-sequences` has a word that means nothing.
    """
    for key, value in metadata:
        if key == SEQUENCES_KEY:
            check_words(value)


def check_words(value: str | bytes) -> None:
    """Checks the value of `penstock-sequences`.

    Raises:
        InvalidRequest: it has a word that means nothing.
    """
    if not isinstance(value, str) or any(each not in (BY_ID_ONLY, SHARED) for each in _words(value)):
        raise InvalidRequest(
            f"{SEQUENCES_KEY} is {value[:100]!r}, expected {BY_ID_ONLY}, {SHARED}, or both with a comma"
        )


def _words(value: str | bytes) -> list[str]:
    return [each.strip() for each in value.split(",")] if isinstance(value, str) else []


def own_step(stream: StepStream | None) -> Step | None:
    """The step for a request without sequence fields; None if it must name its sequence."""
    if stream is None or not stream.has_sequence:
        return None
    return stream.plain_step


def known_step(model: Model, origin: StepOrigin, id: str | None) -> Step | None:
    """The step of a request that matches a known request; None if it must be decoded.

    Args:
        model: the model, which has a state.
        origin: the unary call or the stream that it came on.
        id: the sequence's id; None if the request has no sequence fields.
    """
    if id is None:
        return own_step(origin.stream)
    return step_of(model, origin, id, start=False, end=False) if len(id) <= LONGEST_ID else None


def step_of(model: Model, origin: StepOrigin, id: str, start: bool, end: bool) -> Step:
    """The step for a request with sequence fields.

    Args:
        model: the model, which has a state.
        origin: the unary call or the stream that it came on.
        id: the sequence's id, which is its owner's while it lives; "" for the stream's own sequence.
        start: whether it is the first step.
        end: whether it is the last step.

    Raises:
        InvalidRequest: it has no id, and the stream has no sequence of its own; or the id is too long.
    """
    if len(id) > LONGEST_ID:
        raise InvalidRequest(f"the sequence's id has {len(id)} characters; the limit is {LONGEST_ID}")
    stream, caller = origin.stream, origin.step_caller
    if id:
        # A stream that several callers use is a way to send calls. What a named caller began there is still
        # its own on the next stream; what an unnamed one began would be left behind.
        outlives = stream is not None and not stream.has_sequence and caller.name is not None
        return Step(id, start, end, None if outlives else stream, None, caller)
    if stream is None or not stream.has_sequence:
        advice = UNARY_ADVICE if stream is None else ""
        raise InvalidRequest(BY_ID.format(model=model, stream=advice))
    return Step(stream, start, end, stream, None, caller)


def check_one_row(model: Model, rows: int, arrays: Mapping[str, Array]) -> None:
    """Checks that a step has one row, because a sequence has one state.

    Args:
        model: the model, which has a state.
        rows: the rows of the step if the model is batched, else 1.
        arrays: its inputs.

    Raises:
        InvalidRequest: it has more rows, or none.
    """
    if rows == 1 and model.sequence_state is not None and model.sequence_state.rows_of and not model.by_rows:
        inputs = model.signature.inputs
        lengths = [
            arrays[name].shape[inputs[name].row_axis]
            for name in model.sequence_state.rows_of
            if name in arrays
        ]
        rows = next((length for length in lengths if length != 1), 1)
    if rows != 1:
        raise InvalidRequest(f"a step of a sequence has one row, got {rows}; {model} has a state")
    if model.kept_inputs:
        _check_one_row_of_kept(model, arrays)


def _check_one_row_of_kept(model: Model, arrays: Mapping[str, Array]) -> None:
    assert model.sequence_state is not None, "other models have no kept inputs"
    inputs = model.sequence_state.step_inputs
    for name, axis in inputs.axes.items() if inputs is not None else ():
        length = 1 if axis is None or name not in arrays else arrays[name].shape[axis]
        if length != 1:
            raise InvalidRequest(
                f"a step of a sequence has one row, but axis {axis} of input {name} is {length} long; "
                f"{model} has a state"
            )
