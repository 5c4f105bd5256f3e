"""Results that look alike are read together, and mean what protobuf reads."""

from random import Random

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from penstock_client import PenstockError, Prediction
from penstock_client._mux import Multiplexer
from penstock_client._types import seconds_of
from penstock_client._wire import KnownRequest, opened
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

PENDING = 100
RESULTS = pb.PredictStreamResponse.RESULTS_FIELD_NUMBER
RESPONSE = pb.PredictResult.RESPONSE_FIELD_NUMBER
KINDS = [("y",), ("y", "z"), ("y",), ("y",), (), ("y",), ("y",), ("y", "z")]
UNTAGGED, NAMED, SCALAR = 2, (3, 6, 7), 5
OUTER_ONLY, ANY_TEXT = 6, 7
"""Results with an id that their answer does not repeat, and with ids that need not be ASCII."""
LATE = 3_000_000


def piece(**fields: object) -> bytes:
    return pb.PredictResponse(**fields).SerializeToString()


def result(tag: int, response: bytes, id: str = "") -> bytes:
    field = pb.PredictResult(tag=tag).SerializeToString() + opened(RESPONSE, len(response)) + response
    field += pb.PredictResult(id=id).SerializeToString()
    return opened(RESULTS, len(field)) + field


def timing(random: Random, kind: int, odd: float) -> pb.Timing:
    """Results with an id have timings of their own, a share of them of other lengths."""
    made = pb.Timing(batch_rows=kind * 7)
    if kind in NAMED:
        made.queue.nanos = random.randrange(20_000, 2**21)
        made.compute.nanos = 70_000
        if random.random() < odd:
            made.queue.nanos = LATE
            made.compute.seconds = random.randrange(3)
    return made


def answer(tag: int, random: Random, kind: int, width: int, odd: float = 0.03) -> bytes:
    """A result as a server writes it; those of one kind and width look alike."""
    parts, id = [piece(model="m", version="1"), piece(timing=timing(random, kind, odd))], ""
    if kind in NAMED:
        id = f"request-{random.randrange(10**4):04}"
        if kind == ANY_TEXT and random.random() < odd:
            id = id.replace("q", random.choice("é€?"))
        if kind != OUTER_ONLY:
            parts.append(piece(id=id))
    if kind != UNTAGGED:
        parts.append(piece(tag=tag))
    width, shape = (1, ()) if kind == SCALAR else (width, (1, width))
    for name in KINDS[kind]:
        tensor = tensor_pb2.Tensor(datatype=tensor_pb2.FP32, shape=shape, raw=random.randbytes(4 * width))
        parts.append(piece(outputs={name: tensor}))
    return result(tag, b"".join(parts), id)


def message(random: Random, tags: list[int]) -> bytes:
    """Answers to all tags, some of them alike."""
    written = []
    while tags:
        kind, width = random.randrange(len(KINDS)), random.choice([1, 8, 40])
        taken = [tags.pop() for _ in range(min(len(tags), random.choice([1, 7, 8, 30])))]
        written += [answer(tag, random, kind, width) for tag in taken]
    return b"".join(written)


def asked() -> tuple[Multiplexer, list[int]]:
    """Requests that wait for an answer, each by its own tag, and the tags."""
    mux = Multiplexer(PENDING, False)
    tags = []
    for _ in range(PENDING):
        tags.append(mux._free[-1])
        mux.add(tags[-1], [])  # type: ignore[arg-type]  # a waiter that is only handed back
    return mux, tags


def received(mux: Multiplexer, data: bytes) -> list[tuple[int, object]]:
    settled: list[tuple[int, object]] = []
    mux.receive(data, settled)
    return settled


def by_protobuf(data: bytes) -> dict[int, object]:
    return {
        each.tag: (
            {name: (tuple(tensor.shape), tensor.raw) for name, tensor in each.response.outputs.items()},
            each.response.timing.batch_rows,
            seconds_of(each.response.timing.queue),
            seconds_of(each.response.timing.compute),
        )
        for each in pb.PredictStreamResponse.FromString(data).results
    }


def by_client(outcomes: list[tuple[int, object]]) -> dict[int, object]:
    found: dict[int, object] = {}
    for waiter, outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        read = (
            outcome
            if isinstance(outcome, Prediction)
            else KnownRequest("m", "", None, 0).read(outcome, b"", "")
        )
        assert all(isinstance(each, np.ndarray) and not each.flags.writeable for each in read.values())
        arrays = {name: (each.shape, each.tobytes()) for name, each in read.items()}
        said = read.timing
        found[waiter] = (arrays, said.batch_rows, said.queue_seconds, said.compute_seconds)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_what_is_read_is_what_protobuf_reads(seed: int) -> None:
    random = Random(seed)
    mux, tags = asked()
    for _ in range(3):  # of the second message the layouts are known
        data = message(random, random.sample(tags, PENDING))
        assert by_client(received(mux, data)) == by_protobuf(data)
        for _ in range(PENDING):
            mux.add(mux._free[-1], [])  # type: ignore[arg-type]


def test_results_that_look_alike_are_read_together() -> None:
    random = Random(0)
    for kind in (0, 1, UNTAGGED):
        mux, tags = asked()
        data = b"".join(answer(tag, random, kind, 8) for tag in tags)
        settled = received(mux, data)
        assert all(isinstance(outcome, Prediction) for _, outcome in settled)
        assert by_client(settled) == by_protobuf(data)


@pytest.mark.parametrize("kind", NAMED)
def test_results_with_ids_and_timings_of_their_own_are_read_together(kind: int) -> None:
    random = Random(1)
    mux, tags = asked()
    data = b"".join(answer(tag, random, kind, 8, odd=0.0) for tag in tags)
    settled = received(mux, data)
    assert all(isinstance(outcome, Prediction) for _, outcome in settled)
    assert by_client(settled) == by_protobuf(data)


def test_a_single_result_with_an_id_is_not_parsed() -> None:
    random = Random(0)
    mux, tags = asked()
    wire = answer(tags[0], random, NAMED[0], 8)
    [(_, outcome)] = received(mux, wire)
    assert isinstance(outcome, bytes)
    assert outcome in wire, "a part of the message: serialized again, its fields would have another order"
    assert by_client([(tags[0], outcome)]) == by_protobuf(wire)


def test_a_run_ends_where_the_timing_differs() -> None:
    random = Random(0)
    mux, tags = asked()
    data = b"".join(answer(tag, random, 0 if i < PENDING // 2 else UNTAGGED, 8) for i, tag in enumerate(tags))
    assert by_client(received(mux, data)) == by_protobuf(data)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_message_is_an_error_or_what_protobuf_reads(seed: int) -> None:
    random = Random(seed)
    for _ in range(25):
        mux, tags = asked()
        kind = random.randrange(len(KINDS))
        data = bytearray(b"".join(answer(tag, random, kind, 8) for tag in tags))
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        if random.random() < 0.2:
            del data[random.randrange(len(data)) :]
        try:
            read = by_client(received(mux, bytes(data)))
        except PenstockError:
            continue
        try:
            expected = by_protobuf(bytes(data))
        except DecodeError:
            pytest.fail("what protobuf does not read was read")
        assert read == expected


def test_a_tag_that_comes_twice_in_a_run_is_an_error() -> None:
    random = Random(0)
    mux, tags = asked()
    data = b"".join(answer(tag, random, 0, 8) for tag in [*tags[:20], tags[3]])
    with pytest.raises(PenstockError, match=f"request {tags[3]}, which is not pending"):
        mux.receive(data, settled := [])
    # No caller is left waiting, not even those with earlier answers.
    assert sorted([*mux.give_up(), *(waiter for waiter, _ in settled)]) == sorted(tags)
    assert not mux.has_pending
