"""Every datatype goes there and back, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.core.tensors import DataType
from penstock_proto.v1 import prediction_pb2 as pb
from server import kit
from server.conftest import IDENTITIES

ENCODINGS = {"raw": kit.raw, "typed": kit.typed}


def same_bits(sent: np.ndarray, came: np.ndarray, datatype: DataType) -> None:
    assert came.shape == sent.shape
    if datatype is DataType.BYTES:
        assert came.tolist() == sent.tolist()
    else:
        assert came.tobytes() == sent.tobytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", IDENTITIES)
def test_every_datatype_there_and_back(channel, stub, name, encoding) -> None:
    datatype = IDENTITIES[name]
    arrays = [kit.examples(datatype, (count, 3), seed=count) for count in (1, 0, 5)]
    requests = [
        kit.request(name, tag=tag, x=ENCODINGS[encoding](array, datatype)) for tag, array in enumerate(arrays)
    ]
    unary = [stub.Predict(each, timeout=kit.BOUND) for each in requests]
    streamed = kit.stream_all(channel, kit.one_each(requests))
    assert [each.tag for each in streamed] == [0, 1, 2]
    for array, one, other in zip(arrays, unary, streamed, strict=True):
        for response in (one, other.response):
            same_bits(array, kit.array_of(response.outputs["y"]), datatype)
            filled = {field.name for field, _ in response.outputs["y"].ListFields()}
            # What came without values comes back as raw, which then is empty as well.
            assert ("raw" in filled) == (encoding == "raw" and array.size > 0)


@pytest.mark.parametrize("name", IDENTITIES)
def test_the_encoding_of_the_answer_can_be_chosen(stub, name) -> None:
    datatype = IDENTITIES[name]
    array = kit.examples(datatype, (5, 3))
    for encoding, wanted in ((pb.TYPED, False), (pb.RAW, True)):
        for write in ENCODINGS.values():
            message = kit.request(name, output_encoding=encoding, x=write(array, datatype))
            output = stub.Predict(message, timeout=kit.BOUND).outputs["y"]
            assert bool(output.raw) == wanted
            same_bits(array, kit.array_of(output), datatype)


def test_a_scalar(channel, stub) -> None:
    for write in (kit.raw, lambda array: kit.typed(array, DataType.FP32)):
        message = kit.request("scalar", x=write(np.float32(21)))
        results = [
            stub.Predict(message, timeout=kit.BOUND),
            kit.stream_all(channel, [kit.message(message)])[0].response,
        ]
        for response in results:
            assert kit.array_of(response.outputs["y"]).tolist() == 42.0


@pytest.mark.parametrize("shape", [(0, 4), (5, 0), (0, 0)])
def test_axes_of_no_length(stub, shape) -> None:
    array = np.zeros(shape, np.float32)
    assert kit.array_of(stub.Predict(kit.request("wide", x=array)).outputs["y"]).shape == shape
    sums = kit.array_of(stub.Predict(kit.request("row_sum", x=array)).outputs["y"])
    assert sums.tolist() == [0.0] * shape[0]


@pytest.mark.parametrize("shape", [(), (2,), (1, 2, 3), (0, 2), (1,) * 20])
def test_a_model_of_any_rank(stub, shape) -> None:
    array = np.ones(shape, np.float32)
    came = kit.array_of(stub.Predict(kit.request("any", x=array)).outputs["y"])
    assert came.shape == shape
    assert (came == 2).all()


def test_shapes_are_inferred(stub) -> None:
    tensor = kit.typed(np.arange(6, dtype=np.float32), DataType.FP32)
    del tensor.shape[:]
    came = kit.array_of(stub.Predict(kit.request("identity", x=tensor)).outputs["y"])
    assert came.tolist() == [[0, 1, 2], [3, 4, 5]]
