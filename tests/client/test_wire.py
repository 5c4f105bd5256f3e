"""Answers read by their layout are what protobuf reads."""

import numpy as np
import pytest

from penstock_client import PenstockError
from penstock_client._wire import KnownRequest, extras, input_of, input_opened
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2

HEAD = b"any"


def piece(**fields: object) -> bytes:
    return pb.PredictResponse(**fields).SerializeToString()


def output(name: str, values: np.ndarray) -> bytes:
    tensor = tensor_pb2.Tensor(datatype=tensor_pb2.FP32, shape=values.shape, raw=values.tobytes())
    return piece(outputs={name: tensor})


NAMES = piece(model="m", version="1")
TIMING = piece(timing=pb.Timing(batch_rows=300))
TAG = piece(tag=12345)
LONG = piece(id="i" * 100)
ORDERS = [
    (NAMES, "y", TIMING, TAG),
    (NAMES, TIMING, "y", TAG),
    (NAMES, TIMING, TAG, LONG, TIMING, "y"),
    (TIMING, NAMES, "y"),
    (NAMES, "y", "z", TAG),
    ("y", NAMES),
]


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_fields_is_read(order: tuple[object, ...]) -> None:
    known = KnownRequest("m", "", None, 0)
    for turn in range(4):
        arrays = {name: np.full((2, 3), turn, np.float32) for name in order if isinstance(name, str)}
        data = b"".join(each if isinstance(each, bytes) else output(each, arrays[each]) for each in order)
        prediction = known.read(data, HEAD, "")
        assert {name: each.tolist() for name, each in prediction.items()} == {
            name: each.tolist() for name, each in arrays.items()
        }
        assert (prediction.model, prediction.version) == ("m", "1")
        assert prediction.timing.batch_rows == (300 if TIMING in order else 0)


def test_an_answer_that_differs_is_not_read_by_an_old_layout() -> None:
    one, two = np.ones((2, 3), np.float32), np.zeros((1, 3), np.float32)
    for more in (output("z", two), output("y", two), TAG + output("y", two)):
        known = KnownRequest("m", "", None, 0)
        known.read(NAMES + output("y", one), HEAD, "")
        data = NAMES + output("y", one) + more
        expected = pb.PredictResponse.FromString(data).outputs
        read = known.read(data, HEAD, "")
        assert {*read} == {*expected}
        assert all(each.tobytes() == expected[name].raw for name, each in read.items())
    other = known.read(piece(model="m", version="2") + output("y", two), HEAD, "")
    assert (other.version, other["y"].shape) == ("2", (1, 3))


def test_a_damaged_answer_is_an_error() -> None:
    known = KnownRequest("m", "", None, 0)
    data = NAMES + TIMING + output("y", np.ones((2, 3), np.float32))
    known.read(data, HEAD, "")
    for cut in range(len(NAMES) + 1, len(data)):
        if cut != len(NAMES + TIMING):
            with pytest.raises(PenstockError):
                known.read(data[:cut], HEAD, "")


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 64), (300, 2, 70000)])
@pytest.mark.parametrize("name", ["x", "ü" * 90])
def test_what_is_written_of_an_input_is_read_back(name: str, shape: tuple[int, ...]) -> None:
    size = 4 * int(np.prod(shape))
    head = input_opened(name, 11, shape, size)
    assert input_of(head) == (name, 11, shape)
    if size < 10_000:
        tensor = pb.PredictRequest.FromString(head + bytes(size)).inputs[name]
        assert (tensor.datatype, tuple(tensor.shape), tensor.raw) == (11, shape, bytes(size))


@pytest.mark.parametrize("id", ["", "request-1", "ü" * 200])
@pytest.mark.parametrize("metadata", [None, {}, {"traceparent": "t" * 55, "empty": ""}, {"k": "v" * 300}])
@pytest.mark.parametrize("timeout", [None, 1e-12, 1e-9, 0.25, 0.999999999, 1.0, 12345.678, 1e9, 1e15])
def test_what_differs_between_calls_is_written_as_protobuf_reads_it(
    id: str, timeout: float | None, metadata: dict[str, str] | None
) -> None:
    message = pb.PredictRequest.FromString(extras(id, timeout, metadata))
    assert (message.id, dict(message.metadata)) == (id, metadata or {})
    assert message.HasField("timeout") == (timeout is not None)
    if timeout is not None:
        seconds = message.timeout.seconds + message.timeout.nanos / 1e9
        assert seconds == pytest.approx(min(max(timeout, 1e-9), 315_576_000_000))


def test_timeouts_of_a_caller_have_the_same_width() -> None:
    assert len({len(extras("id", seconds, None)) for seconds in (1e-9, 0.1, 0.3, 0.999, 1.5, 99)}) == 1
