"""Which sequence a request is a step of, for models whose state the server keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from penstock.errors import InvalidRequest
from penstock.messages import Step
from penstock.models.model import Model
from penstock.tensors import Array

BY_ID = (
    "{model} keeps a state, and the request does not say of which sequence it is a step: set the sequence's "
    "id (and start with its first step){stream}"
)

SEQUENCES_KEY, SHARED = "penstock-sequences", "by-id"
"""Metadata of a stream that several callers share: a step that does not say of which sequence is refused."""

LONGEST_ID = 256
"""Characters of a sequence's id: it is kept as long as the state."""


class StepStream(Protocol):
    """A stream that steps come on.

    Attributes:
        has_sequence: whether steps without an id are of a sequence of the stream's own.
    """

    has_sequence: bool


def has_own_sequence(metadata: Mapping[str, str | bytes]) -> bool:
    """Whether steps without an id that come on a stream of this metadata are of a sequence of its own."""
    return metadata.get(SEQUENCES_KEY) != SHARED


def own_step(stream: StepStream | None) -> Step | None:
    """The step that a request without a word on sequences is; None where it has to say."""
    return Step(stream, owner=stream) if stream is not None and stream.has_sequence else None


def step_of(model: Model, stream: StepStream | None, id: str, start: bool, end: bool) -> Step:
    """The step that a request says it is.

    Args:
        model: what it is for, which keeps a state.
        stream: the stream that it came on; None for a unary call.
        id: the sequence's, unique among all callers of the model; "" for the stream's own sequence.
        start: whether it begins afresh.
        end: whether it is the last one.

    Raises:
        InvalidRequest: it does not say which sequence, and there is none that is meant without.
    """
    if len(id) > LONGEST_ID:
        raise InvalidRequest(f"the sequence's id has {len(id)} characters, {LONGEST_ID} is the most")
    if id:
        return Step(id, start, end, stream)
    if stream is None or not stream.has_sequence:
        advice = ", or send all its steps on a stream of their own" if stream is None else ""
        raise InvalidRequest(BY_ID.format(model=model, stream=advice))
    return Step(stream, start, end, stream)


def check_one_row(model: Model, rows: int, arrays: Mapping[str, Array]) -> None:
    """Makes sure that a step is one row, since there is one state.

    Args:
        model: what it is for, which keeps a state.
        rows: the step's, where the model is batched; else 1.
        arrays: its inputs.

    Raises:
        InvalidRequest: it has more or none.
    """
    if rows == 1 and model.kept is not None and model.kept.rows_of and not model.batching.enabled:
        lengths = [arrays[name].shape[0] for name in model.kept.rows_of]
        rows = next((length for length in lengths if length != 1), 1)
    if rows != 1:
        raise InvalidRequest(f"a step of a sequence is one row, and {rows} came; {model} keeps a state")
