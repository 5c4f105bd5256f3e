"""Answers as ModelInferResponses, and classifications."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import InvalidRequest, ModelFailed
from penstock.core.request import Response, Run
from penstock.core.tensors import Array, DataType
from penstock.protocols.open_inference import encoder as outputs
from penstock.protocols.open_inference.classification import check_classes, top_classes
from penstock.protocols.open_inference.encoder import Outputs
from penstock.protocols.tensors import pack_bytes
from penstock_proto.inference import grpc_service_pb2 as pb
from server.kit import examples, unpacked
from support.work import model, signature_of, spec

FP32 = DataType.FP32


def writer_of(datatypes: dict[str, DataType], **how: Any) -> Outputs:
    specs = [spec(name, ("N", 3), datatype) for name, datatype in datatypes.items()]
    made = model(signature_of([spec("x")], specs), **how)
    return Outputs(made)


def answer(writer: Outputs, arrays: dict[str, Array], classes: Any = None, **part: Any) -> Any:
    run = Run(1.0, 1.0, 2.0, 4, arrays)
    data = writer.encode(Response(run, tuple(arrays), 0.0, **part), "ü", classes)
    assert isinstance(data, bytes)
    return pb.ModelInferResponse.FromString(data)


@pytest.mark.parametrize("datatype", DataType, ids=str)
def test_every_datatype_is_raw(datatype: DataType) -> None:
    array = examples(datatype, (4, 3))
    writer = writer_of({"y": datatype})
    for _ in range(2):  # the second time the head is known
        message = answer(writer, {"y": array}, start=1, stop=3)
        (output,) = message.outputs
        assert (message.model_name, message.model_version, message.id) == ("m", "1", "ü")
        assert (output.name, output.datatype, list(output.shape)) == ("y", datatype.label, [2, 3])
        part = array[1:3]
        expected = pack_bytes(part) if datatype is DataType.BYTES else part.tobytes()
        assert list(message.raw_output_contents) == [expected]


def test_outputs_and_their_values_are_in_the_same_order() -> None:
    arrays = {"b": np.ones((4, 3), np.float32), "a": np.zeros((4, 3), np.int64)}
    message = answer(writer_of({"a": DataType.INT64, "b": FP32}), arrays)
    assert [each.name for each in message.outputs] == ["b", "a"]
    assert list(message.raw_output_contents) == [each.tobytes() for each in arrays.values()]


def test_no_rows_and_other_shapes() -> None:
    writer = writer_of({"y": FP32})
    assert list(answer(writer, {"y": np.empty((4, 3), np.float32)}, start=2, stop=2).outputs[0].shape) == [
        0,
        3,
    ]
    assert list(answer(writer, {"y": np.float32(1.0)}).outputs[0].shape) == []


def test_text_that_is_none_fails_alone() -> None:
    writer = writer_of({"y": DataType.BYTES})
    run = Run(1.0, 1.0, 2.0, 1, {"y": np.array([["\ud800"]], object)})
    failed = writer.encode(Response(run, ("y",), 0.0), "")
    assert isinstance(failed, ModelFailed)


def test_more_than_protobuf_carries_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "UNLIMITED", 100)
    run = Run(1.0, 1.0, 2.0, 1, {"y": np.zeros((10, 3), np.float32)})
    failed = writer_of({"y": FP32}).encode(Response(run, ("y",), 0.0), "")
    assert isinstance(failed, ModelFailed)
    assert "above protobuf's limit" in str(failed)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_answers_of_one_run_are_those_of_each_alone(data: st.DataObject) -> None:
    datatypes = data.draw(st.lists(st.sampled_from(list(DataType)), min_size=1, max_size=3))
    inner = data.draw(st.sampled_from([(3,), (2, 2), (), (0,)]))
    counts = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=5))
    arrays = {
        f"y{place}": examples(datatype, (sum(counts), *inner)) for place, datatype in enumerate(datatypes)
    }
    specs = [spec(f"y{place}", ("N", *inner), datatype) for place, datatype in enumerate(datatypes)]
    made = model(signature_of([spec("x")], specs))
    run, start = Run(1.0, 1.0, 2.0, sum(counts), arrays), 0
    for count in counts:
        names = tuple(data.draw(st.permutations(list(arrays)))[: data.draw(st.integers(1, len(arrays)))])
        asked: Any = SimpleNamespace(model=made, id=data.draw(st.sampled_from(["", "ü"])), form=None)
        part = Response(run, names, 0.0, start, start + count)
        assert outputs.encode(part, asked) == Outputs(made).encode(part, asked.id)
        start += count


# Classifications


def classes(
    values: Any, count: int, *, batched: bool = True, labels: Any = (), datatype: DataType = FP32
) -> Any:
    array = np.asarray(values, datatype.dtype)
    return top_classes(datatype, array, count, batched, labels).tolist()


def test_the_largest_of_each_row_come_first() -> None:
    assert classes([[1, 2, 3], [6, 5, 4]], 2) == [["3.000000:2", "2.000000:1"], ["6.000000:0", "5.000000:1"]]


def test_all_there_are_where_more_are_wanted() -> None:
    assert classes([[1, 2]], 9) == [["2.000000:1", "1.000000:0"]]


def test_labels_as_far_as_there_are_any() -> None:
    assert classes([[1, 2, 3]], 3, labels=["a", "b"]) == [["3.000000:2", "2.000000:1:b", "1.000000:0:a"]]


def test_equal_values_by_their_index_and_no_numbers_last() -> None:
    row = [np.nan, 1.0, np.inf, 1.0, -np.inf]
    assert classes([row], 5) == [["inf:2", "1.000000:1", "1.000000:3", "-inf:4", "nan:0"]]


def test_integers_are_written_as_such() -> None:
    values = [[2**53 + 1, -5, 2**62]]
    expected = [["4611686018427387904:2", "9007199254740993:0", "-5:1"]]
    assert classes(values, 3, datatype=DataType.INT64) == expected
    assert classes([[0, 2**64 - 1]], 1, datatype=DataType.UINT64) == [["18446744073709551615:1"]]


def test_half_precision() -> None:
    assert classes([[1.5, 0.5]], 1, datatype=DataType.FP16) == [["1.500000:0"]]
    bits = np.array([[0x3F80, 0x4000]], np.uint16)  # 1.0 and 2.0
    assert top_classes(DataType.BF16, bits, 1, True, ()).tolist() == [["2.000000:1"]]


def test_without_rows_all_values_are_one_choice() -> None:
    assert classes([[1, 2], [4, 3]], 2, batched=False) == ["4.000000:2", "3.000000:3"]


def test_inner_axes_are_one_choice() -> None:
    assert classes([[[1, 2], [4, 3]]], 2) == [["4.000000:2", "3.000000:3"]]


def test_no_rows_have_no_classes() -> None:
    assert top_classes(FP32, np.empty((0, 3), np.float32), 2, True, ()).shape == (0, 2)
    assert top_classes(FP32, np.empty((2, 0), np.float32), 2, True, ()).shape == (2, 0)


@pytest.mark.parametrize("datatype", [DataType.BOOL, DataType.BYTES], ids=str)
def test_what_has_no_order_has_no_classes(datatype: DataType) -> None:
    with pytest.raises(InvalidRequest, match=f"output y is {datatype}: its values cannot be ranked"):
        check_classes("y", datatype)


def test_classes_stand_in_their_output_and_others_are_as_ever() -> None:
    arrays = {"a": np.array([[1.0, 3.0, 2.0]], np.float32), "b": np.array([[7, 8, 9]], np.int64)}
    message = answer(writer_of({"a": FP32, "b": DataType.INT64}), arrays, {"a": 1}, start=0, stop=1)
    first, second = message.outputs
    assert (first.datatype, list(first.shape)) == ("BYTES", [1, 1])
    assert unpacked(message.raw_output_contents[0]) == ["3.000000:1"]
    assert (second.datatype, message.raw_output_contents[1]) == ("INT64", arrays["b"].tobytes())
