"""ModelInferRequest's tensors become arrays bit for bit, or are refused with words that help."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import InvalidRequest
from penstock.core.tensors import DataType, Kind
from penstock.protocols.open_inference.decoder import LISTS, Inputs
from penstock.protocols.tensors import pack_bytes
from penstock_proto.inference import grpc_service_pb2 as pb
from server.kit import examples
from support.work import model, signature_of, spec

X = np.arange(6, dtype=np.float32).reshape(2, 3)
ONE = signature_of([spec("x", ("N", 3))], [spec("y")])
TWO = signature_of([spec("a"), spec("b", datatype=DataType.INT64)], [spec("y")])
TYPED = [each for each in DataType if each in LISTS]


def ids(value: object) -> str:
    return str(value)


def raw(array: Any, datatype: DataType) -> bytes:
    return pack_bytes(array) if datatype is DataType.BYTES else array.tobytes()


def request(*tensors: dict[str, Any], raws: list[bytes] | None = None) -> pb.ModelInferRequest:
    """A message that has been over the wire."""
    message = pb.ModelInferRequest(inputs=[pb.ModelInferRequest.InferInputTensor(**each) for each in tensors])
    message.raw_input_contents.extend(raws or [])
    return pb.ModelInferRequest.FromString(message.SerializeToString())


def tensor(name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (2, 3), **more: Any) -> Any:
    return {"name": name, "datatype": datatype, "shape": shape, **more}


def refusal(message: pb.ModelInferRequest, signature: Any = ONE) -> str:
    with pytest.raises(InvalidRequest) as refused:
        Inputs(model(signature)).read(message)
    return str(refused.value)


@pytest.mark.parametrize("datatype", DataType, ids=ids)
def test_raw_tensors_come_bit_for_bit(datatype: DataType) -> None:
    reader = Inputs(model(signature_of([spec("x", ("N", 3), datatype)], [spec("y")])))
    array = examples(datatype, (4, 3))
    sent = request(tensor(datatype=datatype.label, shape=(4, 3)), raws=[raw(array, datatype)])
    for _ in range(2):  # the second time the shape is known
        (found,) = reader.read(sent).values()
        assert found.dtype == datatype.dtype
        assert raw(found, datatype) == raw(array, datatype)
        assert found.shape == (4, 3)


@pytest.mark.parametrize("datatype", TYPED, ids=ids)
def test_typed_contents_come_bit_for_bit(datatype: DataType) -> None:
    reader = Inputs(model(signature_of([spec("x", ("N", 3), datatype)], [spec("y")])))
    array = examples(datatype, (4, 3))
    if datatype.kind in (Kind.FLOAT, Kind.DOUBLE):
        array = np.nan_to_num(array)
    values = [each.encode() if isinstance(each, str) else each for each in array.ravel().tolist()]
    contents = pb.InferTensorContents(**{LISTS[datatype][0]: values})
    sent = request(tensor(datatype=datatype.label, shape=(4, 3), contents=contents))
    assert raw(reader.read(sent)["x"], datatype) == raw(array, datatype)


@pytest.mark.parametrize("datatype", [DataType.FP16, DataType.BF16], ids=ids)
def test_half_precision_is_only_taken_raw(datatype: DataType) -> None:
    contents = pb.InferTensorContents(fp32_contents=[1.0] * 6)
    words = refusal(
        request(tensor(datatype=datatype.label, contents=contents)),
        signature_of([spec("x", ("N", 3), datatype)], [spec("y")]),
    )
    assert words == f"input x has values in fp32_contents; {datatype} must be sent in raw_input_contents"


@pytest.mark.parametrize(
    ("datatype", "value"),
    [(DataType.INT8, 128), (DataType.INT16, -32769), (DataType.UINT8, 256), (DataType.UINT16, 65536)],
    ids=ids,
)
def test_integers_out_of_range_are_refused(datatype: DataType, value: int) -> None:
    contents = pb.InferTensorContents(**{LISTS[datatype][0]: [1, value, 1]})
    words = refusal(
        request(tensor(datatype=datatype.label, shape=(1, 3), contents=contents)),
        signature_of([spec("x", ("N", 3), datatype)], [spec("y")]),
    )
    assert words == f"input x: the value {value} at position 1 does not fit {datatype}"


def test_raw_contents_follow_the_order_of_the_inputs_and_arrays_that_of_the_signature() -> None:
    reader = Inputs(model(TWO))
    numbers = np.array([[7]], np.int64)
    value = np.array([[1.5]], np.float32)
    sent = request(
        tensor("b", "INT64", (1, 1)), tensor("a", shape=(1, 1)), raws=[numbers.tobytes(), value.tobytes()]
    )
    found = reader.read(sent)
    assert list(found) == ["a", "b"]
    assert (found["a"].item(), found["b"].item()) == (1.5, 7)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (request(), "input x is missing: expected x FP32[N,3]; got none"),
        (request(tensor("z"), raws=[X.tobytes()]), "there is no input z: expected x FP32[N,3]; got z"),
        (request(tensor(), tensor(), raws=[X.tobytes()] * 2), "input x appears twice"),
        (request(tensor(datatype="INT32"), raws=[X.tobytes()]), "input x has datatype INT32, expected FP32"),
        (
            request(tensor(datatype="nonsense"), raws=[X.tobytes()]),
            "input x has datatype nonsense, expected FP32",
        ),
        (
            request(tensor(shape=(3, 2)), raws=[X.tobytes()]),
            "input x has shape [3, 2], expected x FP32[N,3]",
        ),
        (
            request(tensor(shape=(2, -3)), raws=[X.tobytes()]),
            "input x has shape [2, -3], expected x FP32[N,3]",
        ),
        (
            request(tensor(), raws=[X.tobytes()[:-1]]),
            "input x has 23 bytes, not a multiple of the 4 bytes of FP32",
        ),
        (
            request(tensor(), raws=[X.tobytes()[:-4]]),
            "input x has 5 values, but shape [2, 3] needs 6",
        ),
        (
            request(tensor(), raws=[X.tobytes()] * 2),
            "raw_input_contents has 2 entries for 1 input; expected one for each, in their order",
        ),
        (
            request(tensor()),
            "input x has no values, expected x FP32[N,3]",
        ),
        (
            request(tensor(contents=pb.InferTensorContents(fp32_contents=[1.0] * 6)), raws=[X.tobytes()]),
            "input x has values in both raw_input_contents and contents; send one",
        ),
        (
            request(tensor(contents=pb.InferTensorContents(int_contents=[1] * 6))),
            "input x has values in int_contents; FP32 is expected in fp32_contents",
        ),
        (
            request(tensor(contents=pb.InferTensorContents(int_contents=[1], fp32_contents=[1.0] * 6))),
            "input x has values in int_contents, fp32_contents; FP32 is expected in fp32_contents",
        ),
        (
            request(
                tensor(parameters={"shared_memory_region": pb.InferParameter(string_param="r")}),
                raws=[X.tobytes()],
            ),
            "input x is in shared memory, which this server does not read; send its values in "
            "raw_input_contents",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(message: pb.ModelInferRequest, words: str) -> None:
    assert refusal(message) == words


def test_a_known_shape_hides_nothing_else() -> None:
    """What has been checked for one tensor is remembered; one that looks alike must not slip through."""
    reader = Inputs(model(ONE))
    good = request(tensor(), raws=[X.tobytes()])
    reader.read(good)
    for bad in (
        request(tensor(datatype="INT8"), raws=[X.tobytes()]),
        request(tensor(), raws=[X.tobytes() + b"\0\0\0\0"]),
        request(tensor(contents=pb.InferTensorContents(fp32_contents=[1.0] * 6)), raws=[X.tobytes()]),
        request(
            tensor(parameters={"shared_memory_region": pb.InferParameter(string_param="r")}),
            raws=[X.tobytes()],
        ),
    ):
        with pytest.raises(InvalidRequest):
            reader.read(bad)
    np.testing.assert_array_equal(reader.read(good)["x"], X)


@pytest.mark.parametrize("typed", [True, False])
def test_no_rows_at_all(typed: bool) -> None:
    found = Inputs(model(ONE)).read(request(tensor(shape=(0, 3)), raws=None if typed else [b""]))
    assert found["x"].shape == (0, 3)


def test_scalars() -> None:
    scalar = signature_of([spec("x", ())], [spec("y")])
    found = Inputs(model(scalar, batched=False)).read(
        request(tensor(shape=()), raws=[np.float32(2.5).tobytes()])
    )
    assert found["x"].shape == ()
    assert found["x"].item() == 2.5


def test_datatype_may_be_left_out() -> None:
    np.testing.assert_array_equal(
        Inputs(model(ONE)).read(request(tensor(datatype=""), raws=[X.tobytes()]))["x"], X
    )


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200))
def test_garbage_is_an_array_that_fits_or_a_refusal(data: bytes) -> None:
    message = request(tensor(), raws=[X.tobytes()])
    try:
        message.MergeFromString(data)
    except Exception:
        return
    try:
        found = Inputs(model(ONE)).read(message)
    except InvalidRequest:
        return
    assert found["x"].shape[1] == 3


def test_a_shape_is_not_learned_from_a_tensor_with_more_in_it() -> None:
    """Unknown fields are skipped; their bytes must not be taken for other fields in a later request."""
    reader = Inputs(model(ONE))
    parameters = {"shared_memory_region": pb.InferParameter(string_param="r")}
    shared = request(tensor(parameters=parameters), raws=[X.tobytes()])
    size = shared.inputs[0].ByteSize() - request(tensor()).inputs[0].ByteSize()
    unknown = bytes([15 << 3 | 2, size - 2]) + bytes(size - 2)
    odd = request(tensor(), raws=[X.tobytes()])
    odd.inputs[0].MergeFromString(unknown)
    assert odd.inputs[0].ByteSize() == shared.inputs[0].ByteSize()
    np.testing.assert_array_equal(reader.read(odd)["x"], X)
    with pytest.raises(InvalidRequest, match="shared memory"):
        reader.read(shared)
