"""Every datatype and every kind of shape, there and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import tritonclient
import tritonclient.grpc as triton
from checking import connected, refused, rows, tensor, x
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import np_to_triton_dtype

INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
FLOATS = ("float16", "float32", "float64")
TEXTS = ["", "ü", "nul\0inside", "🦄", "a" * 5000, "\n", "nul at the end\0", "日本語", " "]


def there_and_back(target: str, model: str, array: Any, datatype: str) -> np.ndarray:
    with connected(target) as client:
        result = client.infer(model, [tensor("x", array, datatype)])
        answer = result.get_response().outputs[0]
        assert (answer.datatype, list(answer.shape)) == (datatype, list(array.shape))
        back: np.ndarray = result.as_numpy("y")
        return back


def check_truths(target: str) -> None:
    array = np.array([[True, False, True], [False, False, True]])
    back = there_and_back(target, "identity_bool", array, "BOOL")
    assert (back.dtype, back.tolist()) == (np.bool_, array.tolist())


def check_integers(target: str) -> None:
    for name in INTEGERS:
        bounds = np.iinfo(name)
        array = np.array([[bounds.min, bounds.max, 1], [0, 7, bounds.max - 1]], name)
        back = there_and_back(target, f"identity_{np_to_triton_dtype(array.dtype).lower()}", array,
                              np_to_triton_dtype(array.dtype))  # fmt: skip
        assert (back.dtype, back.tolist()) == (array.dtype, array.tolist())


def check_floats(target: str) -> None:
    for name in FLOATS:
        bounds = np.finfo(name)
        array = np.array([[bounds.max, bounds.smallest_subnormal, -0.0], [np.nan, np.inf, -np.inf]], name)
        datatype = np_to_triton_dtype(array.dtype)
        back = there_and_back(target, f"identity_{datatype.lower()}", array, datatype)
        assert back.tobytes() == array.tobytes(), name


def check_bf16(target: str) -> None:
    """The newest client takes arrays of ml_dtypes; the older one FP32, which it cuts."""
    values = np.array([[1, -2.5, 3e38], [np.inf, -0.0, 2**-126]], np.float32)
    if np_to_triton_dtype(values.dtype) == "FP32" and "ml_dtypes" in vars(tritonclient.utils):
        import ml_dtypes

        back = there_and_back(target, "identity_bf16", values.astype(ml_dtypes.bfloat16), "BF16")
        assert back.dtype == ml_dtypes.bfloat16
        assert back.tobytes() == values.astype(ml_dtypes.bfloat16).tobytes()
    else:
        back = there_and_back(target, "identity_bf16", values, "BF16")
        assert np.allclose(back[0, :2], values[0, :2])
        assert (back[1] == values[1]).all()


def check_texts(target: str) -> None:
    for array in (np.array(TEXTS, object), np.array([text.encode() for text in TEXTS], object)):
        back = there_and_back(target, "identity_bytes", array.reshape(3, 3), "BYTES")
        assert back.ravel().tolist() == [text.encode() for text in TEXTS]
    fixed = np.array([[b"ab", b"c", b""]])
    assert there_and_back(target, "identity_bytes", fixed, "BYTES").tolist() == fixed.tolist()


def check_half_and_brain_floats_travel_raw_only(target: str) -> None:
    for datatype in ("FP16", "BF16"):
        request = pb.ModelInferRequest(model_name=f"identity_{datatype.lower()}")
        given = request.inputs.add(name="x", datatype=datatype, shape=[1, 3])
        given.contents.fp32_contents.extend([1, 2, 3])
        with connected(target) as client:
            error = client._client_stub.ModelInfer.future(request, timeout=20).exception()
            assert error.code().name == "INVALID_ARGUMENT", error


def check_typed_contents(target: str) -> None:
    lists = {
        "BOOL": ("bool_contents", [True, False, True]),
        "UINT8": ("uint_contents", [0, 7, 255]),
        "UINT16": ("uint_contents", [0, 7, 65535]),
        "UINT32": ("uint_contents", [0, 7, 2**32 - 1]),
        "UINT64": ("uint64_contents", [0, 7, 2**64 - 1]),
        "INT8": ("int_contents", [-128, 7, 127]),
        "INT16": ("int_contents", [-(2**15), 7, 2**15 - 1]),
        "INT32": ("int_contents", [-(2**31), 7, 2**31 - 1]),
        "INT64": ("int64_contents", [-(2**63), 7, 2**63 - 1]),
        "FP32": ("fp32_contents", [1.5, -2, 3]),
        "FP64": ("fp64_contents", [1e300, -2, 3]),
        "BYTES": ("bytes_contents", ["ü".encode(), b"", b"c"]),
    }
    with connected(target) as client:
        for datatype, (field, values) in lists.items():
            request = pb.ModelInferRequest(model_name=f"identity_{datatype.lower()}")
            given = request.inputs.add(name="x", datatype=datatype, shape=[1, 3])
            getattr(given.contents, field).extend(values)
            answer = client._client_stub.ModelInfer(request, timeout=20)
            assert triton.InferResult(answer).as_numpy("y").tolist() == [values], datatype


def check_no_rows(target: str) -> None:
    for model, array, datatype in (
        ("identity_fp32", np.zeros((0, 3), np.float32), "FP32"),
        ("identity_int64", np.zeros((0, 3), np.int64), "INT64"),
        ("identity_bytes", np.zeros((0, 3), object), "BYTES"),
        ("wide", np.zeros((2, 0), np.float32), "FP32"),
    ):
        assert there_and_back(target, model, array, datatype).shape == array.shape


def check_scalars(target: str) -> None:
    with connected(target) as client:
        given = triton.InferInput("x", [], "FP32")
        given.set_data_from_numpy(np.array(21, np.float32))
        back = client.infer("scalar", [given]).as_numpy("y")
        assert (back.shape, back.item()) == ((), 42)


def check_many_axes(target: str) -> None:
    array = np.arange(30, dtype=np.float32).reshape(5, 2, 3)
    assert there_and_back(target, "deep", array, "FP32").tolist() == array.tolist()


def check_a_big_tensor(target: str) -> None:
    """20 MiB there and 20 MiB back: neither side has a limit."""
    array = np.random.default_rng(0).random((5, 1 << 20), np.float32)
    with connected(target) as client:
        back = client.infer("wide", [tensor("x", array)]).as_numpy("y")
        assert back.tobytes() == array.tobytes()


def check_more_rows_than_a_batch(target: str) -> None:
    array = rows(*range(1000))
    assert there_and_back(target, "identity", array, "FP32").tolist() == array.tolist()


def check_wrong_size(target: str) -> None:
    with connected(target) as client:
        request = pb.ModelInferRequest(model_name="identity", raw_input_contents=[b"\0" * 11])
        request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
        error = client._client_stub.ModelInfer.future(request, timeout=20).exception()
        assert error.code().name == "INVALID_ARGUMENT"
        both = pb.ModelInferRequest(model_name="identity", raw_input_contents=[b"\0" * 12])
        given = both.inputs.add(name="x", datatype="FP32", shape=[1, 3])
        given.contents.fp32_contents.extend([1, 2, 3])
        error = client._client_stub.ModelInfer.future(both, timeout=20).exception()
        assert error.code().name == "INVALID_ARGUMENT"
        not_text = [tensor("x", np.array([[b"\xff", b"", b""]], object), "BYTES")]
        refused(lambda: client.infer("identity_bytes", not_text), "INVALID_ARGUMENT")
        assert client.infer("identity", x(3)).as_numpy("y").tolist() == rows(3).tolist()
