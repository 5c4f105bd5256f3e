"""What messages cost that are as much work as the bounds allow: from this the bounds were chosen.

    python -m benchmarks.bounds

Printed is the CPU time of each step in milliseconds, the least of several tries: counting, reading and
writing. Each holds Python's interpreter, but those of lists of integers that are read apart or written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from penstock.core import wire
from penstock.core.large_bytes import LARGE_BYTES, joined
from penstock.core.tensors import DataType, TensorSpec
from penstock.protocols import typed_lists
from penstock.protocols.open_inference.work import WORK as INFER
from penstock.protocols.penstock_v1.decoder import decode
from penstock.protocols.penstock_v1.work import WORK as PREDICT
from penstock.protocols.tensors import of_raw, pack_bytes
from penstock.protocols.work import FIELDS_A_NAME, LIGHT_BYTES, OTHER_FIELDS, Bounds, too_many_names
from penstock_proto.inference import grpc_service_pb2 as oip
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1.tensor_pb2 import Tensor

TRIES = 20
OFFLOADED = 262_144  # bytes; larger messages go to a worker in any case
MOST = Bounds().names
TEXTS = TensorSpec("x", DataType.BYTES, ("N",))
FIELDS = FIELDS_A_NAME * MOST + OTHER_FIELDS


def _predict(**lists: Sequence[object]) -> bytes:
    made = pb.PredictRequest(model="m")
    for name, values in lists.items():
        getattr(made.inputs["x"], name).extend(values)
    return made.SerializeToString()


def _steps() -> dict[str, Callable[[], object]]:
    names = pb.PredictRequest(model="m", outputs=["y"] * 50_000).SerializeToString()
    fields = wire.field(wire.key(99, wire.LENGTH_DELIMITED), b"") * 50_000
    parameters = b"\x22\x00" * 50_000
    integers = _predict(int_values=[1] * (OFFLOADED - 64))
    texts = _predict(string_values=[""] * (OFFLOADED // 2 - 64))
    raw_texts = pack_bytes(np.array([""] * (OFFLOADED // 4), dtype=object))
    light = b"\x1a\x00" * (LIGHT_BYTES // 2)
    empty = b"\x0a\x00" * Bounds().requests
    ids = _predict(int_values=np.random.default_rng(0).integers(0, 30_000, 2**18).tolist())
    numbers, many = np.ones(2**18, np.int64), np.array(["text"] * 2**16, dtype=object)
    whole = memoryview(np.ones(2**24, np.uint8))
    return {
        f"counting {MOST + 1} names of a message with 50,000": lambda: too_many_names(
            names, PREDICT.names, MOST
        ),
        f"counting {FIELDS} other fields": lambda: too_many_names(fields, PREDICT.names, MOST),
        f"the same of Open Inference, {MOST + 1} parameters": lambda: too_many_names(
            parameters, INFER.names, MOST
        ),
        "parsing 50,000 names": lambda: pb.PredictRequest.FromString(names),
        "parsing 50,000 parameters": lambda: oip.ModelInferRequest.FromString(parameters),
        f"parsing {LIGHT_BYTES} bytes of names": lambda: pb.PredictRequest.FromString(light),
        "parsing 262,080 integers of a byte": lambda: pb.PredictRequest.FromString(integers),
        "parsing 262,144 integers below 30,000": lambda: pb.PredictRequest.FromString(ids),
        "reading 262,080 integers of a byte apart": lambda: decode(integers),
        "reading 262,144 integers below 30,000 apart": lambda: decode(ids),
        "parsing 131,008 empty texts": lambda: pb.PredictRequest.FromString(texts),
        "reading 65,536 empty raw texts": lambda: of_raw(TEXTS, raw_texts),
        "writing 262,144 integers of a byte as a list": lambda: typed_lists.packed(DataType.INT64, numbers),
        "writing 262,144 integers of two bytes as a list": lambda: typed_lists.packed(
            DataType.INT64, numbers * 300
        ),
        "writing 65,536 texts as a list": lambda: Tensor(string_values=many.tolist()).SerializeToString(),
        f"parsing {Bounds().requests} empty requests": lambda: pb.PredictStreamRequest.FromString(empty),
        f"slicing {LARGE_BYTES} bytes": lambda: bytes(whole[:LARGE_BYTES]),
        "joining 16 MiB beside the interpreter": lambda: joined((whole,)),
    }


def main() -> None:
    """Measures and prints the table."""
    for title, step in _steps().items():
        least = min(_cpu_seconds(step) for _ in range(TRIES))
        print(f"{title:60}{least * 1e3:8.2f}")


def _cpu_seconds(step: Callable[[], object]) -> float:
    before = time.thread_time()
    step()
    return time.thread_time() - before


if __name__ == "__main__":
    main()
