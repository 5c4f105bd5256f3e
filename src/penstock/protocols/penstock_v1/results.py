"""Encodes the results of a stream: an answer or an error, with the tag and the id of its request."""

from __future__ import annotations

from penstock.core import wire
from penstock.core.errors import RequestError
from penstock.core.large_bytes import LARGE_BYTES, joined
from penstock.protocols import status
from penstock_proto.v1 import prediction_pb2 as pb

TAG = wire.key(pb.PredictResult.TAG_FIELD_NUMBER, wire.VARINT)
ID = wire.key(pb.PredictResult.ID_FIELD_NUMBER, wire.LENGTH_DELIMITED)
RESPONSE = wire.key(pb.PredictResult.RESPONSE_FIELD_NUMBER, wire.LENGTH_DELIMITED)
RESULTS = wire.key(pb.PredictStreamResponse.RESULTS_FIELD_NUMBER, wire.LENGTH_DELIMITED)

NO_TAG = wire.varint(0)
HEADS = tuple(
    b"".join((RESULTS, wire.varint(len(head) + size), head))
    for size, head in ((size, b"".join((TAG, NO_TAG, RESPONSE, wire.varint(size)))) for size in range(512))
)
"""What comes before an answer of few bytes without a tag and an id, by its length."""


def result_of(tag: bytes, answer: bytes | RequestError, id: str) -> bytes:
    """A PredictStreamResponse that holds one result. A large answer is copied once.

    Args:
        tag: the request's tag, encoded.
        answer: the serialized PredictResponse, or the error.
        id: the request's id; "" for none.
    """
    name = wire.field(ID, id.encode()) if id else b""
    if isinstance(answer, RequestError):
        answer = pb.PredictResult(error=status.to_message(answer)).SerializeToString()
        head = b"".join((TAG, tag))
    else:
        head = b"".join((TAG, tag, RESPONSE, wire.varint(len(answer))))
    size = wire.varint(len(head) + len(answer) + len(name))
    parts = (RESULTS, size, head, answer, name)
    return b"".join(parts) if len(answer) < LARGE_BYTES else joined(parts)
