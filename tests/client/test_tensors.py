import sys
from collections.abc import Iterator

import numpy as np
import pytest

import penstock_client
from penstock_client import InvalidInput, _tensors
from penstock_client._tensors import decode
from penstock_proto.v1 import tensor_pb2

SHAPES = [(), (0,), (3,), (2, 0, 3), (2, 3, 4)]
DTYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2",
    "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip


def spec(datatype: str, shape: tuple[int, ...]) -> str:
    return " ".join([datatype, ",".join("abcdef"[: len(shape)])])


def random(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Arrays of any bits: infinities, NaN with payloads and subnormals among them."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = np.random.default_rng(5).integers(0, 2 if dtype == "?" else 256, size, np.uint8)
    return np.frombuffer(data.tobytes(), dtype).reshape(shape)


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(server, client, datatype, shape) -> None:
    array = random(DTYPES[datatype], shape)
    server.add("m", x=spec(datatype, shape))
    streamed = list(client.predict_stream("m", [{"x": array}] * 3))
    for result in [client.predict("m", {"x": array}), *streamed]:
        assert result["x"].dtype == array.dtype
        assert result["x"].shape == shape
        assert result["x"].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(48, dtype=np.float32).reshape(2, 6, 4)[:, ::-2],
        np.arange(24, dtype=">f4").reshape(2, 3, 4),
        np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
        np.broadcast_to(np.float32(3), (2, 3, 4)),
    ],
    ids=["transposed", "strided", "big-endian", "fortran", "broadcast"],
)
def test_arrays_in_any_layout_arrive_as_they_look(server, client, array) -> None:
    server.add("m", x="FP32 a,b,c")
    np.testing.assert_array_equal(client.predict("m", {"x": array})["x"], array)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3)], ids=str)
def test_text_comes_back_as_text(server, client, shape) -> None:
    words = ["", "a", "naïve", "🦄", "null\0inside", "trailing\0"]
    array = np.array(words[: int(np.prod(shape))], object).reshape(shape)
    server.add("m", x=spec("BYTES", shape))
    result = client.predict("m", {"x": array})["x"]
    assert (result.dtype, result.shape, result.tolist()) == (object, shape, array.tolist())


def test_one_element_that_is_no_text_makes_all_of_them_bytes(server, client) -> None:
    server.add("m", x="BYTES N")
    assert client.predict("m", {"x": ["ü", b"\xff"]})["x"].tolist() == ["ü".encode(), b"\xff"]


def test_bfloat16_arrays_go_and_come(server, client) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    server.add("m", x="BF16 a,b")
    array = random("u2", (4, 5)).view(bfloat16)
    result = client.predict("m", {"x": array})["x"]
    assert result.dtype == bfloat16
    assert result.tobytes() == array.tobytes()
    assert client.predict("m", {"x": array.T})["x"].tobytes() == array.T.tobytes()
    server.add("wide", x="FP32 a,b")
    np.testing.assert_array_equal(client.predict("wide", {"x": array})["x"], array.astype(np.float32))


@pytest.fixture
def without_ml_dtypes(monkeypatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    _tensors.small_dtype.cache_clear()
    yield
    _tensors.small_dtype.cache_clear()


def test_bfloat16_is_widened_where_nobody_knows_it(server, client, without_ml_dtypes) -> None:
    server.add("m", x="BF16 N")
    result = client.predict("m", {"x": np.array([1.5, -3.0, np.inf, 0.0])})["x"]
    assert result.dtype == np.float32
    assert result.tolist() == [1.5, -3.0, np.inf, 0.0]


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"])
def test_arrays_of_8_bits_go_and_come(server, client, name) -> None:
    dtype = getattr(pytest.importorskip("ml_dtypes"), name)
    server.add("m", x=f"FP8{name.removeprefix('float8_').upper()} N")
    array = np.arange(256, dtype=np.uint8).view(dtype)
    result = client.predict("m", {"x": array})["x"]
    assert result.dtype == dtype
    assert result.tobytes() == array.tobytes()
    assert client.predict("m", {"x": [1.5, -2, 0.3]})["x"].astype(float).tolist() == [
        1.5,
        -2.0,
        float(np.array(0.3).astype(dtype)),
    ]
    exact = client.predict("m", {"x": np.array([0.25, 4.0])})["x"]
    assert exact.astype(float).tolist() == [0.25, 4.0]
    server.add("wide", x="FP32 N")
    np.testing.assert_array_equal(client.predict("wide", {"x": array})["x"], array.astype(np.float32))
    for value, shown in (
        (np.array([0.3]), "0.3.* at position 0"),
        ([1e6], "1000000.0 at position 0"),
        ([1.0, 33], "33 at position 1"),
    ):
        with pytest.raises(InvalidInput, match=f"the value {shown}.* does not fit FP8"):
            client.predict("m", {"x": value})


def test_without_ml_dtypes_8_bits_are_bits(server, client, without_ml_dtypes) -> None:
    server.add("m", x="FP8E5M2 N")
    bits = np.array([1, 2, 200], np.uint8)
    result = client.predict("m", {"x": bits})["x"]
    assert (result.dtype, result.tolist()) == (np.uint8, [1, 2, 200])
    with pytest.raises(InvalidInput, match="FP8E5M2 needs the package ml_dtypes"):
        client.predict("m", {"x": [1.5]})


def test_bits_are_not_taken_for_bfloat16(server, client) -> None:
    server.add("m", x="BF16 N")
    assert client.predict("m", {"x": np.array([1, 2], np.uint16)})["x"].astype(float).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        ({"datatype": "FP32", "shape": [2], "raw": b"1234"}, "reshape"),
        ({"datatype": "FP32", "shape": [1], "raw": b"123"}, "buffer size"),
        ({"datatype": "FP32", "shape": [-1], "raw": b"12345678"}, "a negative length"),
        ({"datatype": "FP32", "shape": [2**62, 4], "raw": b""}, "reshape|large"),
        ({"datatype": 0, "shape": [1], "raw": b"1"}, "an unknown datatype"),
        ({"datatype": 77, "shape": [1], "raw": b"1"}, "an unknown datatype"),
        ({"datatype": "BYTES", "shape": [1], "raw": b"\5\0\0\0ab"}, "cut off"),
        ({"datatype": "BYTES", "shape": [1], "raw": b"\1\0\0"}, "4 bytes"),
        ({"datatype": "BYTES", "shape": [2], "raw": b"\1\0\0\0a"}, "reshape"),
        ({"datatype": "BF16", "shape": [1], "raw": b"123"}, "buffer size"),
        ({"datatype": "FP32", "shape": [1], "float_values": [1.0]}, "reshape"),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(tensor, reason) -> None:
    with pytest.raises(penstock_client.PenstockError, match=f'output "y" cannot be read: .*({reason})'):
        decode("y", tensor_pb2.Tensor(**tensor))
