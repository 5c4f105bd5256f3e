"""Tensors come and go bit for bit, and whole requests and answers with them."""

from __future__ import annotations

import struct
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.core.errors import InvalidRequest, RequestError
from penstock.core.minifloats import BY_BITS
from penstock.core.request import Response, Run
from penstock.core.tensors import Array, DataType
from penstock.models.model import Model
from penstock.protocols import typed_lists as values
from penstock.protocols.codec import attached
from penstock.protocols.penstock_v1 import encoder as answers
from penstock.protocols.penstock_v1.decoder import Inputs, array_of
from penstock.protocols.tensors import layout, wanted_outputs
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


def raw(array: Array, datatype: DataType) -> bytes:
    return answers.pack_bytes(array) if datatype is BYTES else array.tobytes()


def request(**inputs: Tensor) -> pb.PredictRequest:
    return pb.PredictRequest.FromString(pb.PredictRequest(inputs=inputs).SerializeToString())


class Reader:
    """Reads requests for one model and writes its answers."""

    def __init__(self, of: Model) -> None:
        self._model = of
        self.inputs = Inputs(of).read

    def answer(self, response: Response, id: str, tag: int, typed: bool) -> bytes:
        asked: Any = SimpleNamespace(model=self._model, id=id, tag=tag, form=typed)
        answer = answers.encode(response, asked)
        if isinstance(answer, RequestError):
            raise ValueError(str(answer))
        return answer


def answered(reader: Reader, outputs: dict[str, Array], *, typed: bool = False) -> pb.PredictResponse:
    """The message that a caller gets."""
    run = Run(started=10.0, assembled=10.1, finished=10.5, rows=3, outputs=outputs)
    response = Response(run, list(outputs), queue_seconds=1.25, stop=None)
    return pb.PredictResponse.FromString(reader.answer(response, "ü", 7, typed))


def elements(datatype: DataType) -> st.SearchStrategy[Any]:
    """Any bits, NaNs with payloads included; for text, any that can be written down."""
    if datatype is BYTES:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    if datatype is BOOL:
        return st.booleans()
    return st.integers(0, 2 ** (8 * datatype.dtype.itemsize) - 1)


def arrays(datatype: DataType) -> st.SearchStrategy[Array]:
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=4)
    carrier = datatype.dtype if datatype in (BYTES, BOOL) else np.dtype(f"<u{datatype.dtype.itemsize}")
    return hnp.arrays(carrier, shapes, elements=elements(datatype)).map(
        lambda array: array if carrier.hasobject else array.view(datatype.dtype)
    )


# There and back


@pytest.mark.parametrize("stop", [None, 4], ids=["alone", "batched"])
@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
@pytest.mark.parametrize("datatype", [FP32, DataType.FP64, BOOL], ids=ids)
def test_a_large_answer_is_copied_once_the_first_time_too(
    monkeypatch: pytest.MonkeyPatch, datatype: DataType, typed: bool, stop: int | None
) -> None:
    """What comes before the values is made without them; the values may be much."""
    monkeypatch.delattr(answers.Outputs, "output")  # protobuf would copy the values
    both = spec("x", ("N", "L"), datatype)
    reader = Reader(model(signature_of([both], [both])))
    array = np.ones((4, 2**20), datatype.dtype)
    run = Run(started=10.0, assembled=10.1, finished=10.5, rows=4, outputs={"x": array})
    tracemalloc.start()
    try:
        data = reader.answer(Response(run, ["x"], queue_seconds=1.25, stop=stop), "ü", 7, typed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * array.nbytes
    got = pb.PredictResponse.FromString(data).outputs["x"]
    assert (got.datatype, list(got.shape)) == (answers.NUMBERS[datatype], [4, 2**20])
    expected = Tensor(datatype=got.datatype, shape=got.shape)
    values.write(expected, datatype, array) if typed else setattr(expected, "raw", array.tobytes())
    assert got == expected


@pytest.mark.parametrize("datatype", DataType, ids=ids)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_raw_tensors_come_back_bit_for_bit(datatype: DataType, data: st.DataObject) -> None:
    both = spec("x", ("N", "L"), datatype)
    reader = Reader(model(signature_of([both], [both])))
    for array in (data.draw(arrays(datatype)), data.draw(arrays(datatype))):
        sent = Tensor(datatype=answers.NUMBERS[datatype], shape=array.shape, raw=raw(array, datatype))  # type: ignore[arg-type]
        for _ in range(2):  # the second time it is known
            taken, as_raw = reader.inputs(request(x=sent))
            assert as_raw
            assert taken["x"].dtype == datatype.dtype
            got = answered(reader, taken).outputs["x"]
            assert got == sent


@pytest.mark.parametrize("datatype", DataType, ids=ids)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_typed_tensors_come_back_by_value(datatype: DataType, data: st.DataObject) -> None:
    both = spec("x", ("N", "L"), datatype)
    reader = Reader(model(signature_of([both], [both])))
    array = data.draw(arrays(datatype))
    sent = answered(reader, {"x": array}, typed=True).outputs["x"]
    assert not sent.raw
    taken, as_raw = reader.inputs(request(x=sent))
    assert as_raw == (not array.size), "what holds no values came as neither"
    again = answered(reader, taken, typed=True).outputs["x"]
    if datatype.dtype.kind == "f" or datatype in BY_BITS:  # NaNs become quiet on the way
        assert np.array_equal(numbers(again), numbers(sent), equal_nan=True)
    else:
        assert again == sent


def numbers(message: Tensor) -> Array:
    return np.array([*message.float_values, *message.double_values])


def test_raw_inputs_are_views_of_the_messages_bytes() -> None:
    message = tensor(shape=[2, 2], raw=np.arange(4, dtype=np.float32).tobytes())
    array, _ = array_of(message, spec("x", ("N", 2)))
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_text_is_text() -> None:
    array, _ = array_of(tensor(raw=struct.pack("<I4sI", 4, "😀".encode(), 0)), spec("x", ("N",), BYTES))
    assert array.tolist() == ["😀", ""]


@pytest.mark.parametrize("typed", [False, True])
def test_an_answer_says_all_of_itself(typed: bool) -> None:
    reader = Reader(
        model(signature_of([spec("x")], [spec("y"), spec("z", ("N",), BYTES)]), name="näme", version=12)
    )
    outputs = {"y": np.array([[1.5]], np.float32), "z": np.array(["a"], object)}
    for _ in range(2):  # the second time its head is known
        message = answered(reader, outputs, typed=typed)
        assert (message.model, message.version, message.id, message.tag) == ("näme", "12", "ü", 7)
        assert (message.timing.queue.seconds, message.timing.queue.nanos) == (1, 250_000_000)
        assert (message.timing.compute.seconds, message.timing.compute.nanos) == (0, 500_000_000)
        assert message.timing.batch_rows == 3
        assert {name: list(each.shape) for name, each in message.outputs.items()} == {"y": [1, 1], "z": [1]}
        assert message.outputs["y"].datatype == tensor_pb2.FP32
        if typed:
            assert list(message.outputs["y"].float_values) == [1.5]
            assert list(message.outputs["z"].string_values) == ["a"]
        else:
            assert message.outputs["y"].raw == struct.pack("<f", 1.5)
            assert message.outputs["z"].raw == b"\1\0\0\0a"


def test_answers_of_many_shapes_and_scattered_memory() -> None:
    reader = Reader(model(signature_of([spec("x")], [spec("y", ("N", "L"))])))
    base = np.arange(400 * 6, dtype=np.float32).reshape(400, 6)
    for rows in range(1, 400):  # more shapes than are remembered
        array = base[:rows, ::2]
        got = answered(reader, {"y": array}).outputs["y"]
        assert (list(got.shape), got.raw) == ([rows, 3], array.tobytes())


def test_a_scalar_and_a_lone_value_keep_their_shapes() -> None:
    reader = Reader(model(signature_of([spec("x")], [spec("y", None)]), batched=False))
    for _ in range(2):  # the second time they are known
        for array in (np.array(1.5, np.float32), np.array([1.5], np.float32), np.ones((1, 1), np.float32)):
            got = answered(reader, {"y": array}).outputs["y"]
            assert (tuple(got.shape), got.raw) == (array.shape, array.tobytes())


def test_shares_of_many_shapes_and_scattered_memory() -> None:
    reader = Reader(model(signature_of([spec("x")], [spec("y", ("N", "L"))])))
    base = np.arange(400 * 6, dtype=np.float32).reshape(400, 6)
    run = Run(started=10.0, assembled=10.1, finished=10.5, rows=400, outputs={"y": base[:, ::2]})
    for rows in range(400):  # more shapes than are remembered
        response = Response(run, ["y"], 0.0, start=400 - rows, stop=400)
        got = pb.PredictResponse.FromString(reader.answer(response, "", 0, False)).outputs["y"]
        assert (list(got.shape), got.raw) == ([rows, 3], base[400 - rows :, ::2].tobytes())


def test_answers_of_one_run_share_what_they_have_in_common_and_nothing_else() -> None:
    reader = Reader(model(signature_of([spec("x")], [spec("y")])))
    outputs = {"y": np.arange(4, dtype=np.float32).reshape(4, 1)}
    run = Run(started=10.0, assembled=10.1, finished=12.5, rows=4, outputs=outputs)
    for number, waited in ((1, 0.0), (2, 0.000_001), (3, 5.0)):
        response = Response(run, ["y"], waited, start=number, stop=number + 1)
        message = pb.PredictResponse.FromString(reader.answer(response, str(number), number, False))
        assert (message.id, message.tag) == (str(number), number)
        assert message.outputs["y"].raw == struct.pack("<f", number)
        assert message.timing.queue.ToNanoseconds() == round(waited * 1e9)
        assert message.timing.compute.ToNanoseconds() == 2_500_000_000
        assert message.timing.batch_rows == 4


def test_text_that_is_none_cannot_be_sent() -> None:
    reader = Reader(model(signature_of([spec("x")], [spec("y", ("N",), BYTES)])))
    for typed in (False, True):
        with pytest.raises(ValueError, match="surrogate"):
            answered(reader, {"y": np.array(["\ud800"], object)}, typed=typed)


# Whole requests


TWO = signature_of([spec("a", ("N", 1)), spec("b", ("N",), INT64)], [spec("y"), spec("z"), spec("w")])
A = tensor(float_values=[1.0, 2.0])
B = tensor(int_values=[3, 4])


def test_inputs_are_in_the_signatures_order() -> None:
    arrays, any_raw = Inputs(model(TWO)).read(request(b=B, a=A))
    assert list(arrays) == ["a", "b"]
    assert not any_raw


def test_one_raw_input_makes_the_request_raw() -> None:
    _, any_raw = Inputs(model(TWO)).read(request(a=A, b=tensor(shape=[2], raw=bytes(16))))
    assert any_raw


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "input a is missing: expected a FP32[N,1], b INT64[N]; got none"),
        ({"a": A}, "input b is missing: expected a FP32[N,1], b INT64[N]; got a"),
        ({"a": A, "B": B}, "input b is missing: expected a FP32[N,1], b INT64[N]; got B, a"),
        ({"a": A, "b": B, "c": A}, "there is no input c: expected a FP32[N,1], b INT64[N]; got a, b, c"),
        ({"a": A, "b": B, "": A}, "there is no input : expected"),
    ],
)
def test_inputs_are_all_there_and_no_others(inputs: dict[str, Tensor], words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Inputs(model(TWO)).read(request(**inputs))
    assert words in str(refused.value)


def test_a_model_without_inputs() -> None:
    reader_model = model(signature_of([], [spec("y")]), batched=False)
    reader = Reader(reader_model)
    assert reader.inputs(request()) == ({}, False)
    assert layout(reader_model, {}) == (1, None)
    with pytest.raises(InvalidRequest, match="there is no input a: expected none; got a"):
        reader.inputs(request(a=A))


@pytest.mark.parametrize(
    ("wanted", "given_back"),
    [
        (["z", "y"], ("y", "z")),
        (["w"], ("w",)),
        (["z", "z", "y", "z"], ("y", "z")),
        (["w", "z", "y"], ("y", "z", "w")),
    ],
)
def test_outputs_are_each_once_in_the_signatures_order(
    wanted: list[str], given_back: tuple[str, ...]
) -> None:
    assert wanted_outputs(model(TWO), wanted) == given_back


def test_outputs_that_the_model_has_not_are_named() -> None:
    with pytest.raises(InvalidRequest, match="there is no output n, o; m version 1 has y, z, w"):
        wanted_outputs(model(TWO), ["n", "y", "o"])


@pytest.mark.parametrize(("batched", "rows"), [(True, 2), (False, 1)])
def test_rows_are_the_first_axis_where_the_model_is_batched(batched: bool, rows: int) -> None:
    two = model(TWO, batched=batched)
    arrays, _ = Inputs(two).read(request(a=A, b=B))
    assert layout(two, arrays) == (rows, None)


def test_ragged_rows_are_refused() -> None:
    ragged = request(a=A, b=tensor(int_values=[1, 2, 3]))
    arrays, _ = Inputs(model(TWO)).read(ragged)
    with pytest.raises(InvalidRequest, match="all inputs need the same number of rows: a has 2, b has 3"):
        layout(model(TWO), arrays)
    assert layout(model(TWO, batched=False), arrays) == (1, None), "alone, the model decides"


def test_requests_of_equal_inner_shapes_share_a_batch() -> None:
    open_inside = model(signature_of([spec("x", ("N", "L"))], [spec("y", ("N", "L"))]))

    def layout_of(*shape: int) -> tuple[int, object]:
        return layout(open_inside, {"x": np.zeros(shape, np.float32)})

    (one, key), (nine, same), (_, other) = layout_of(1, 4), layout_of(9, 4), layout_of(1, 5)
    assert (one, nine) == (1, 9)
    assert key == same != other


def test_the_codec_of_a_model_is_made_once() -> None:
    one, other = model(TWO), model(TWO)
    assert attached(one, Inputs) is attached(one, Inputs)
    assert attached(one, Inputs) is not attached(other, Inputs)


def test_the_table_of_datatypes_is_that_of_the_contract() -> None:
    assert {each.label: number for each, number in answers.NUMBERS.items()} == {
        name: number for name, number in tensor_pb2.DataType.items() if number
    }
