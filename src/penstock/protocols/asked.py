"""What a parsed request asks of its model."""

from __future__ import annotations

from penstock.core.request import Step
from penstock.core.tensors import Array
from penstock.models.model import Model
from penstock.protocols.codec import NO_METADATA, Asked, Decoded, SequenceStep
from penstock.protocols.sequence_ids import StepOrigin, StepStream, check_one_row, step_of
from penstock.protocols.tensors import layout


def note_missed(model: Model, stream: StepStream | None) -> None:
    """A request on a stream is rejected that may be the first step of the stream's own sequence."""
    if model.sequences is not None and stream is not None and stream.has_sequence:
        model.sequences.missed(stream)


def asked_of(
    decoded: Decoded, model: Model, origin: StepOrigin, reads: bool
) -> tuple[Asked, dict[str, Array], Step | None, bool]:
    """A request's content, inputs and step of a sequence, and whether it may become a known request.

    Args:
        decoded: the request.
        model: the model that answers.
        origin: the unary call or the stream that it came on.
        reads: whether to read its metadata.

    Raises:
        InvalidRequest: it does not fit.
    """
    inputs, outputs, form, seconds, priority, said = decoded.contents(model)
    rows, shape_key = layout(model, inputs)
    sequence = None
    if model.sequence_state is not None:
        sequence = step_of(model, origin, *(said or SequenceStep()))
        check_one_row(model, rows, inputs)
    metadata = dict(decoded.metadata()) if reads else NO_METADATA
    route = (decoded.model, decoded.version)
    asked = Asked(route, outputs, rows, shape_key, seconds, priority, form, metadata)
    learnable = said is None or (decoded.learns_steps and said.id != "" and not said.start and not said.end)
    return asked, inputs, sequence, learnable
