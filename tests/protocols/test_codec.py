"""One input: what may be left out is inferred, and what does not fit is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import InvalidRequest
from penstock.core.tensors import DataType, TensorSpec
from penstock.protocols.penstock_v1.decoder import Inputs, array_of
from penstock.protocols.penstock_v1.encoder import NUMBERS
from penstock.protocols.tensors import fits
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2
from penstock_proto.v1.tensor_pb2 import Tensor
from support.work import model, signature_of, spec

FP32, INT64, BYTES, BOOL = DataType.FP32, DataType.INT64, DataType.BYTES, DataType.BOOL


def ids(value: object) -> str:
    return str(value)


def tensor(**fields: Any) -> Tensor:
    """A message that has been over the wire."""
    return Tensor.FromString(Tensor(**fields).SerializeToString())


def refusal(message: Tensor, of: TensorSpec) -> str:
    """Why a tensor is refused, by the first reading and by a model's reader alike; it names the input."""
    reader = Inputs(model(signature_of([of], [of]), batched=False))
    texts = []
    for read in (
        lambda: array_of(message, of),
        lambda: reader.read(pb.PredictRequest(inputs={of.name: message})),
    ):
        with pytest.raises(InvalidRequest) as refused:
            read()
        texts.append(str(refused.value))
    assert texts[0] == texts[1]
    assert f"input {of.name}" in texts[0]
    return texts[0]


def request(**inputs: Tensor) -> pb.PredictRequest:
    return pb.PredictRequest.FromString(pb.PredictRequest(inputs=inputs).SerializeToString())


# What may be left out


@pytest.mark.parametrize(
    ("declared", "count", "inferred"),
    [
        ((), 1, ()),
        (("N",), 1, (1,)),
        (("N",), 5, (5,)),
        (("N", 3), 6, (2, 3)),
        ((3, "N"), 6, (3, 2)),
        ((1, "N", 2), 6, (1, 3, 2)),
        (("?", 1), 4, (4, 1)),
        ((4,), 4, (4,)),
        ((1, 3), 3, (1, 3)),
        ((2, 3), 6, (2, 3)),
        (None, 1, ()),
    ],
)
def test_a_shape_that_the_signature_settles_may_be_left_out(
    declared: tuple[int | str, ...] | None, count: int, inferred: tuple[int, ...]
) -> None:
    numbers = [float(number) for number in range(count)]
    for message in (
        tensor(float_values=numbers),
        tensor(raw=np.array(numbers, np.float32).tobytes()),
        tensor(datatype=tensor_pb2.FP32, double_values=numbers),
    ):
        array, _ = array_of(message, spec("x", declared))
        assert array.shape == inferred
        assert array.ravel().tolist() == numbers


@pytest.mark.parametrize(
    ("declared", "count", "words"),
    [
        (("N", "L"), 4, "has no shape; it is ambiguous with 2 open axes: x FP32[N,L]"),
        (None, 4, "has no shape, and the model declares none"),
        (("N", 3), 4, "has 4 values, which do not fill x FP32[N,3]"),
        ((4,), 3, "has 3 values, which do not fill x FP32[4]"),
        ((4,), 8, "has 8 values, which do not fill x FP32[4]"),
        (("N", 0), 1, "has 1 value, which does not fill x FP32[N,0]"),
    ],
)
def test_a_shape_that_the_signature_does_not_settle_is_asked_for(
    declared: tuple[int | str, ...] | None, count: int, words: str
) -> None:
    assert words in refusal(tensor(float_values=[1.0] * count), spec("x", declared))


def test_a_scalar_that_came_with_two_values() -> None:
    assert "2 values" in refusal(tensor(float_values=[1, 2]), spec("x", ()))


# Shapes


@pytest.mark.parametrize(
    ("declared", "shape"),
    [
        (("N", 3), (2, 4)),
        (("N", 3), (6,)),
        (("N", 3), (2, 3, 1)),
        (("N", 3), (-1, 3)),
        (("N", 3), (2, -3)),
        (("N", "L"), (-2, -3)),
        ((1, 6), (2, 3)),
        ((), (6,)),
        (None, (-6,)),
        (None, (1,) * 65),
    ],
)
def test_shapes_that_do_not_fit_are_named_beside_what_was_expected(
    declared: tuple[int | str, ...] | None, shape: tuple[int, ...]
) -> None:
    for message in (tensor(shape=shape, float_values=[0] * 6), tensor(shape=shape, raw=bytes(24))):
        text = refusal(message, spec("x", declared))
        assert f"has shape {list(shape)}, expected {spec('x', declared)}" in text


@pytest.mark.parametrize(
    ("declared", "shape", "holds"),
    [
        (("N", 3), (1, 3), 3),
        (("N", 4), (2**62, 4), 2**64),
        (("N", "L"), (2**32, 2**32), 2**64),
        (("N", "L", "M"), (2**63 - 1, 2**63 - 1, 2**63 - 1), (2**63 - 1) ** 3),
        (("N", 3), (0, 3), 0),
        (None, (7,), 7),
    ],
)
def test_shapes_that_hold_another_number_of_values_are_refused(
    declared: tuple[int | str, ...] | None, shape: tuple[int, ...], holds: int
) -> None:
    for message in (tensor(shape=shape, float_values=[0] * 6), tensor(shape=shape, raw=bytes(24))):
        text = refusal(message, spec("x", declared))
        assert f"6 values, but shape {list(shape)} needs {holds}" in text


@pytest.mark.parametrize("shape", [(0, 2**62), (2**40, 0, 2**40), (2**63 - 1, 0)])
def test_shapes_that_hold_nothing_and_yet_are_too_large_are_refused(shape: tuple[int, ...]) -> None:
    """numpy cannot hold them: the product of the other lengths overflows."""
    for declared in (("N", "L", "M")[: len(shape)], None):
        assert str(list(shape)) in refusal(tensor(shape=shape), spec("x", declared))


@pytest.mark.parametrize("datatype", DataType, ids=ids)
def test_a_tensor_of_no_rows_holds_nothing(datatype: DataType) -> None:
    array, _ = array_of(tensor(shape=[0, 3]), spec("x", ("N", 3), datatype))
    assert (array.shape, array.dtype) == ((0, 3), datatype.dtype)


@pytest.mark.parametrize(("declared", "shape"), [(("N", 3), ()), (("N", 3), (2, 3)), ((), ()), (None, ())])
def test_a_tensor_without_values_is_refused(
    declared: tuple[int | str, ...] | None, shape: tuple[int, ...]
) -> None:
    of = spec("x", declared)
    assert refusal(tensor(shape=shape), of) == f"input x has no values, expected {of}"


# Datatypes and values


@pytest.mark.parametrize("other", [each for each in DataType if each is not FP32], ids=ids)
def test_another_datatype_is_refused(other: DataType) -> None:
    message = tensor(datatype=NUMBERS[other], shape=[1, 1], raw=bytes(8))
    assert refusal(message, spec("x")) == f"input x has datatype {other}, expected FP32"


@pytest.mark.parametrize("number", [19, 99, -1, 2**31 - 1])
def test_a_datatype_that_nobody_knows_is_refused(number: int) -> None:
    message = Tensor.FromString(
        tensor(shape=[1, 1], raw=bytes(4)).SerializeToString() + b"\x08" + varint(number)
    )
    assert refusal(message, spec("x")) == f"input x has datatype datatype {number}, expected FP32"


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


@pytest.mark.parametrize("count", [1, 3, 5, 23])
@pytest.mark.parametrize(
    "datatype", [each for each in DataType if each.dtype.itemsize > 1 and each is not BYTES], ids=ids
)
def test_bytes_that_are_no_whole_number_of_values_are_refused(datatype: DataType, count: int) -> None:
    size = datatype.dtype.itemsize
    came = "1 byte" if count == 1 else f"{count} bytes"
    assert (
        refusal(tensor(raw=bytes(count)), spec("x", ("N",), datatype))
        == f"input x has {came}, not a multiple of the {size} bytes of {datatype}"
    )


@pytest.mark.parametrize("value", [2, 0x80, 0xFF])
def test_truth_is_0_or_1(value: int) -> None:
    assert "every byte must be 0 or 1" in refusal(tensor(raw=bytes([0, 1, value])), spec("x", ("N",), BOOL))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\1", "element 0 ends after the 1 byte"),
        (b"\0\0\0", "element 0 ends after the 3 bytes"),
        (b"\1\0\0\0", "element 0 ends after the 4 bytes"),
        (b"\xff\xff\xff\xffabc", "element 0 ends after the 7 bytes"),
        (b"\0\0\0\0\2\0\0\0a", "element 1 ends after the 9 bytes"),
        (b"\0\0\0\0\1\0\0\0\xff", "element 1 is not UTF-8"),
        (b"\3\0\0\0\xed\xa0\x80", "element 0 is not UTF-8"),
    ],
)
def test_text_that_is_cut_off_or_none_is_refused(data: bytes, words: str) -> None:
    assert words in refusal(tensor(raw=data), spec("x", ("N",), BYTES))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"raw": bytes(4), "float_values": [1]}, "has values both in raw and in float_values"),
        ({"raw": bytes(4), "string_values": ["a"]}, "has values both in raw and in string_values"),
        ({"int_values": [1], "double_values": [1]}, "has values both in int_values and in double_values"),
        (
            {"string_values": ["a"], "bytes_values": [b"a"]},
            "has values both in string_values and in bytes_values",
        ),
    ],
)
def test_values_in_two_places_are_refused(fields: dict[str, Any], words: str) -> None:
    assert words in refusal(tensor(shape=[1, 1], **fields), spec("x"))


def test_values_in_two_places_are_refused_also_where_the_shape_is_known() -> None:
    reader = Inputs(model(signature_of([spec("x")], [spec("y")])))
    fine = tensor(datatype=tensor_pb2.FP32, shape=[1, 1], raw=bytes(4))
    for _ in range(2):
        reader.read(request(x=fine))
    for more in ({"float_values": [1]}, {"bytes_values": [b""]}, {"bool_values": [False]}):
        both = tensor(datatype=tensor_pb2.FP32, shape=[1, 1], raw=bytes(4), **more)
        with pytest.raises(InvalidRequest, match="has values both in raw and in"):
            reader.read(request(x=both))


def test_what_is_known_of_a_shape_lets_nothing_else_through() -> None:
    reader = Inputs(model(signature_of([spec("x", ("N", 2))], [spec("y")])))
    for _ in range(2):
        reader.read(request(x=tensor(datatype=tensor_pb2.FP32, shape=[2, 2], raw=bytes(16))))
    for wrong in (
        tensor(datatype=tensor_pb2.INT32, shape=[2, 2], raw=bytes(16)),
        tensor(datatype=tensor_pb2.FP32, shape=[2, 2], raw=bytes(12)),
        tensor(datatype=tensor_pb2.FP32, shape=[2, 2], raw=bytes(20)),
        tensor(datatype=tensor_pb2.FP32, shape=[2, 2]),
        tensor(datatype=tensor_pb2.FP32, shape=[2, 3], raw=bytes(16)),
        tensor(datatype=tensor_pb2.FP32, shape=[4], raw=bytes(16)),
    ):
        with pytest.raises(InvalidRequest):
            reader.read(request(x=wrong))


def test_truth_is_looked_at_every_time() -> None:
    both = spec("x", ("N",), BOOL)
    reader = Inputs(model(signature_of([both], [both])))
    for _ in range(2):
        reader.read(request(x=tensor(datatype=tensor_pb2.BOOL, shape=[2], raw=b"\0\1")))
    with pytest.raises(InvalidRequest, match="0 or 1"):
        reader.read(request(x=tensor(datatype=tensor_pb2.BOOL, shape=[2], raw=b"\0\2")))


def test_typed_values_name_the_value_that_does_not_fit() -> None:
    text = refusal(tensor(int_values=[1, 2**31]), spec("x", ("N",), DataType.INT32))
    assert text == "input x: the value 2147483648 at position 1 does not fit INT32"


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=60), st.sampled_from(list(DataType)), st.sampled_from([("N", 2), ("N", "L"), (), None])
)
def test_hostile_messages_end_in_an_array_that_fits_or_a_refusal(
    data: bytes, datatype: DataType, shape: tuple[int | str, ...] | None
) -> None:
    of = spec("x", shape, datatype)
    message = Tensor()
    try:
        message.MergeFromString(data)
    except Exception:
        message.raw = data
    try:
        array, _ = array_of(message, of)
    except InvalidRequest:
        return
    assert array.dtype == datatype.dtype
    assert fits(array.shape, of)


def test_a_shape_is_not_learned_from_a_tensor_with_more_in_it() -> None:
    """Unknown fields are skipped; their bytes must not be taken for other fields in a later request."""
    reader = Inputs(model(signature_of([spec("x", ("N", 1))], [spec("y")])))
    good = Tensor(datatype=NUMBERS[FP32], shape=[1, 1], raw=bytes(4))
    twice = Tensor(datatype=NUMBERS[FP32], shape=[1, 1], raw=bytes(4), float_values=[1.0])
    size = twice.ByteSize() - good.ByteSize()
    odd = Tensor.FromString(good.SerializeToString() + bytes([15 << 3 | 2, size - 2]) + bytes(size - 2))
    assert odd.ByteSize() == twice.ByteSize()
    reader.read(pb.PredictRequest(inputs={"x": odd}))
    with pytest.raises(InvalidRequest, match="has values both in raw and in float_values"):
        reader.read(pb.PredictRequest(inputs={"x": twice}))
