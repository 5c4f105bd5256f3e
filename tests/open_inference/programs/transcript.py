"""Asks a server everything worth asking of the Open Inference Protocol, and prints what it answers, as JSON.

    python tests/open_inference/programs/transcript.py HOST:PORT [STEP ...]
    python tests/open_inference/programs/transcript.py http://HOST:PORT [STEP ...]

Runs in an environment with tritonclient and knows no other server than Triton: its messages are those of
tritonclient, sent as they are, since its API refuses to send most of what is wrong. The same steps run
against any server with the models that `triton.py` has.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
from asking import (
    STEPS,
    X,
    failed,
    infer,
    one_by_one,
    output,
    packed,
    request,
    step,
    stream,
    tensor,
    together,
    told,
)
from over_http import Stub
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

HTTP = "http://"

# Asking about the server and its models


def ask_about_models() -> None:
    step("live", "ServerLive", pb.ServerLiveRequest())
    step("ready", "ServerReady", pb.ServerReadyRequest())
    step("server metadata", "ServerMetadata", pb.ServerMetadataRequest())
    asked = {"": ("identity", ""), " version": ("scale", "2"), " unknown": ("nobody", "")}
    asked |= {" unknown version": ("scale", "99"), " no number": ("scale", "abc"), " empty": ("", "")}
    for what, (name, version) in asked.items():
        step(f"model ready{what}", "ModelReady", pb.ModelReadyRequest(name=name, version=version))
        step(f"metadata{what}", "ModelMetadata", pb.ModelMetadataRequest(name=name, version=version))
        step(f"config{what}", "ModelConfig", pb.ModelConfigRequest(name=name, version=version))
        step(f"statistics{what}", "ModelStatistics", pb.ModelStatisticsRequest(name=name, version=version))
    for name in ("scale", "multi", "identity_bytes", "add"):
        step(f"metadata of {name}", "ModelMetadata", pb.ModelMetadataRequest(name=name))
        step(f"config of {name}", "ModelConfig", pb.ModelConfigRequest(name=name))
    step("index", "RepositoryIndex", pb.RepositoryIndexRequest())
    step("index ready", "RepositoryIndex", pb.RepositoryIndexRequest(ready=True))
    step("index of a repository", "RepositoryIndex", pb.RepositoryIndexRequest(repository_name="models"))
    for name in ("identity", "nobody"):
        step(f"load {name}", "RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=name))
        step(f"unload {name}", "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=name))


def ask_for_extensions() -> None:
    step("system memory status", "SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest())
    region = pb.SystemSharedMemoryRegisterRequest(name="r", key="/nowhere", byte_size=24)
    step("system memory register", "SystemSharedMemoryRegister", region)
    step("system memory unregister", "SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest())
    step("cuda memory status", "CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest())
    cuda = pb.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"x", byte_size=24)
    step("cuda memory register", "CudaSharedMemoryRegister", cuda)
    step("cuda memory unregister", "CudaSharedMemoryUnregister", pb.CudaSharedMemoryUnregisterRequest())
    step("trace", "TraceSetting", pb.TraceSettingRequest())
    step("log", "LogSettings", pb.LogSettingsRequest())


# Inference


def ask_for_models() -> None:
    infer("infer", id="an id")
    infer("no such model", "nobody")
    infer("no name", "")
    infer("version", "scale", model_version="2")
    infer("version left out", "scale")
    infer("no such version", "scale", model_version="99")
    infer("version no number", "scale", model_version="abc")
    infer("version negative", "scale", model_version="-1")


def ask_for_outputs() -> None:
    infer("all outputs", "multi")
    infer("two outputs", "multi", outputs=[output("total"), output("double")])
    infer("output twice", outputs=[output(), output()])
    infer("no such output", outputs=[output("nobody")])
    infer("output parameter", outputs=[output(custom=1)])
    infer("output binary_data", outputs=[output(binary_data=False)])
    infer("output in shared memory", outputs=[output(shared_memory_region="r", shared_memory_byte_size=24)])
    good = {"2": 2, "3": 3, "more than there are": 10, "0": 0, "negative": -1}
    wrong = {"text": "2", "double": 2.0, "true": True, "unsigned": ("uint64_param", 2)}
    for what, k in (good | wrong).items():
        infer(f"classes {what}", outputs=[output(classification=k)])
    ties = np.array([[1, 1, 0], [np.nan, np.inf, -np.inf]], np.float32)
    infer("classes of ties", raw=[ties.tobytes()], outputs=[output(classification=3)])
    digits = np.array([[0.1, 1e10, -1 / 3], [1e-10, 123456789, 1]], np.float32)
    infer("classes of digits", raw=[digits.tobytes()], outputs=[output(classification=3)])
    infer("classes with labels", "labelled", outputs=[output(classification=2)])
    infer("classes of what is not batched", "alone", outputs=[output(classification=2)])
    infer("classes of many axes", "deep", [tensor(shape=(1, 2, 3))], outputs=[output(classification=4)])
    infer("classes of one a row", "multi", outputs=[output("total", classification=1)])
    infer("classes of truths", "multi", outputs=[output("positive", classification=2)])
    numbers = np.array([[5], [2**53 + 1]], np.int64)
    infer("classes of integers", "integers", [tensor(array=numbers, datatype="INT64")],
          raw=[numbers.tobytes()], outputs=[output(classification=1)])  # fmt: skip


def ask_with_wrong_inputs() -> None:
    infer("no inputs", inputs=[], raw=[])
    infer("wrong name", inputs=[tensor("z")])
    infer("input missing", "add", [tensor("a")])
    infer("input too many", inputs=[tensor(), tensor("z")], raw=[X.tobytes()] * 2)
    infer("input twice", inputs=[tensor(), tensor()], raw=[X.tobytes()] * 2)
    infer("input twice of two", "add", [tensor("a"), tensor("a")], raw=[X.tobytes()] * 2)
    infer("wrong datatype", inputs=[tensor(datatype="INT32")])
    infer("no such datatype", inputs=[tensor(datatype="FP8")])
    infer("datatype left out", inputs=[tensor(datatype="")])
    shapes = {"wrong": (3, 2), "rank": (6,), "rank too high": (2, 3, 1), "open": (-1, 3), "empty": ()}
    shapes |= {"negative": (2, -3), "huge": (2**62, 3), "overflow": (2**40, 2**40)}
    for what, shape in shapes.items():
        infer(f"shape {what}", inputs=[tensor(shape=shape)])
    infer("no rows", inputs=[tensor(shape=(0, 3))], raw=[b""])
    many = np.ones((33, 3), np.float32)
    infer("more rows than a batch", inputs=[tensor(array=many)], raw=[many.tobytes()])
    infer("rows differ", "add", [tensor("a"), tensor("b", X[:1])], raw=[X.tobytes(), X[:1].tobytes()])
    memory = {"shared_memory_region": "r", "shared_memory_byte_size": 24}
    infer("input in shared memory", inputs=[tensor(parameters=memory)], raw=[])
    infer("input parameter", inputs=[tensor(parameters={"custom": 1, "content_type": "np"})])


def ask_with_wrong_contents() -> None:
    x, two = X.tobytes(), [tensor("a"), tensor("b")]
    infer("raw missing", raw=[])
    infer("raw too few", "add", two, raw=[x])
    infer("raw too many", raw=[x, x])
    infer("raw too short", raw=[x[:-1]])
    infer("raw too long", raw=[x + b"\0"])
    infer("raw empty", raw=[b""])
    typed = {"fp32_contents": X.ravel()}
    infer("typed", inputs=[tensor(contents=typed)], raw=[])
    infer("typed and raw", inputs=[tensor(contents=typed)])
    infer("one typed one raw", "add", [tensor("a", contents=typed), tensor("b")], raw=[x])
    infer("typed too few", inputs=[tensor(contents={"fp32_contents": [1, 2]})], raw=[])
    infer("typed too many", inputs=[tensor(contents={"fp32_contents": [1] * 7})], raw=[])
    infer("typed in the wrong list", inputs=[tensor(contents={"int_contents": [1] * 6})], raw=[])
    infer("typed in two lists", inputs=[tensor(contents={**typed, "int_contents": [1]})], raw=[])
    text = [tensor(datatype="BYTES")]
    infer("texts", "identity_bytes", text, raw=[packed(b"", "ü".encode(), b"nul\0", b"a", b"b", b"c")])
    typed_text = [
        tensor(datatype="BYTES", contents={"bytes_contents": [b"", b"\xc3\xbc", b"a", b"b", b"c", b"d"]})
    ]
    infer("texts typed", "identity_bytes", typed_text, raw=[])
    infer("texts too few", "identity_bytes", text, raw=[packed(b"a")])
    infer("texts too many", "identity_bytes", text, raw=[packed(*[b"a"] * 7)])
    infer("texts cut off", "identity_bytes", text, raw=[packed(*[b"a"] * 6)[:-1]])
    infer("texts cut off in a length", "identity_bytes", text, raw=[packed(*[b"a"] * 6) + b"\0"])
    infer("texts not UTF-8", "identity_bytes", text, raw=[packed(*[b"\xff"] * 6)])
    one = [tensor(array=np.zeros((1, 1)), datatype="INT64", contents={"int64_contents": [-(2**63)]})]
    infer("typed integer", "integers", one, raw=[])


# Parameters


def ask_with_parameters() -> None:
    given: dict[str, dict[str, Any]] = {
        "priority": {"priority": ("uint64_param", 1)},
        "priority signed": {"priority": 1},
        "priority negative": {"priority": -1},
        "priority huge": {"priority": ("uint64_param", 2**63)},
        "priority text": {"priority": "1"},
        "priority double": {"priority": 1.0},
        "timeout": {"timeout": 10_000_000},
        "timeout unsigned": {"timeout": ("uint64_param", 10_000_000)},
        "timeout negative": {"timeout": -1},
        "timeout text": {"timeout": "1"},
        "timeout double": {"timeout": 1.0},
        "timeout 0": {"timeout": 0},
        "custom": {"a": "text", "b": True, "c": -1},
        "custom double": {"d": 0.5},
        "custom unsigned": {"e": ("uint64_param", 2**63)},
        "custom unset": {},
        "reserved": {"triton_anything": 1},
        "reserved prefix alone": {"triton_": "x"},
        "final response": {"triton_enable_empty_final_response": True},
        "no final response": {"triton_enable_empty_final_response": False},
        "final response text": {"triton_enable_empty_final_response": "true"},
        "final response integer": {"triton_enable_empty_final_response": 1},
        "sequence": {"sequence_id": 7, "sequence_start": True, "sequence_end": True},
        "sequence text": {"sequence_id": "seven", "sequence_start": True, "sequence_end": False},
        "sequence 0": {"sequence_id": 0},
        "sequence unsigned": {"sequence_id": ("uint64_param", 7)},
        "sequence double": {"sequence_id": 7.0},
        "sequence start alone": {"sequence_start": True},
        "sequence start text": {"sequence_id": 7, "sequence_start": "yes"},
        "binary_data_output": {"binary_data_output": True},
        "headers": {"headers": "x"},
    }
    for what, parameters in given.items():
        infer(f"parameter {what}", parameters=parameters)
    message = request()
    message.parameters["unset"].CopyFrom(pb.InferParameter())
    message.parameters["custom"].string_param = "x"
    step("parameter without a value", "ModelInfer", message)
    unset = request()
    unset.parameters["timeout"].CopyFrom(pb.InferParameter())
    step("timeout without a value", "ModelInfer", unset)


# Streams


def ask_on_streams() -> None:
    bad, good = request(raw=[], id="bad"), [request(id=f"good {n}") for n in range(3)]
    stream("stream", *good)
    stream("stream of nothing")
    stream("stream with an error", good[0], bad, good[1])
    stream("stream without ids", request(), request(raw=[]))
    stream("stream of the same id", good[0], good[0])
    stream("stream no such model", request("nobody", id="n"), good[1])
    stream("stream no such version", request("scale", model_version="99", id="v"), good[1])
    stream("stream failing late", request(inputs=[tensor(shape=(3, 2))], id="late"), good[1])
    stream("stream classes", request(outputs=[output(classification=1)], id="c"))
    stream("stream reserved", request(parameters={"triton_anything": 1}, id="r"), good[1])
    for what, asked in {"asked": True, "not asked": False}.items():
        parameters = {"triton_enable_empty_final_response": asked}
        stream(
            f"stream final response {what}", request(parameters=parameters, id="f"), request(raw=[], id="b")
        )
    for value in ("true", "false", "True", "1", ""):
        stream(f"stream triton_grpc_error {value!r}", good[0], bad, good[1], triton_grpc_error=value)
    stream("stream triton_grpc_error without errors", *good, triton_grpc_error="true")
    nobody = request("nobody", id="n")
    stream("stream triton_grpc_error no such model", nobody, good[1], triton_grpc_error="true")
    stream("stream of several models", request("scale", id="s"), request("identity", id="i"))
    bad_row = [tensor(array=np.array([[100]]), datatype="INT64", contents={"int64_contents": [100]})]
    failing = request("fails", bad_row, raw=[], id="failing")
    stream("stream of a failing model", failing, good[1])


# Running


def ask_while_running() -> None:
    row = [tensor(array=[[100]], datatype="INT64", contents={"int64_contents": [100]})]
    good_row = [tensor(array=[[1]], datatype="INT64", contents={"int64_contents": [1]})]
    good, failing = request("fails", good_row, raw=[]), request("fails", row, raw=[])
    infer("model fails", "fails", row, raw=[])
    one_by_one("statistics of success", *[request()] * 3)
    one_by_one("statistics of a failing model", good, failing)
    one_by_one(
        "statistics of bad input", good, request("fails", row, raw=[b"x"]), request("fails", [], raw=[])
    )
    one = [tensor(array=[[1]])]
    slow = request("slow", one, raw=[X[:1, :1].tobytes()])
    together("queue full", *[slow] * 8)
    late = request("slow", one, raw=[X[:1, :1].tobytes()], parameters={"timeout": 20_000})
    together("timeout in the queue", slow, slow, last=late)
    long = request("slow", one, raw=[X[:1, :1].tobytes()], parameters={"timeout": 10_000_000})
    together("timeout that is long", slow, last=long)
    # The last, since Triton 2.51 does not always survive it.
    stream(
        "stream triton_grpc_error of a failing model", request(id="good"), failing, triton_grpc_error="true"
    )


# What is printed


def run(target: str, names: Sequence[str]) -> dict[str, Any]:
    """Every answer by the step's name."""
    if target.startswith(HTTP):
        unary = [name for name in STEPS if not name.startswith("stream")]
        return ask(Stub(target.removeprefix(HTTP)), names or unary)
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(target, options) as channel:
        return ask(service_pb2_grpc.GRPCInferenceServiceStub(channel), names or list(STEPS))


def ask(stub: Any, names: Sequence[str]) -> dict[str, Any]:
    """The answer to each of these steps."""
    answers = {}
    for name in names:
        try:
            answer = STEPS[name](stub)
            answers[name] = answer if isinstance(answer, list | dict) else told(answer)
        except grpc.RpcError as error:
            answers[name] = failed(error)
    return answers


for add in (ask_about_models, ask_for_extensions, ask_for_models, ask_for_outputs, ask_with_wrong_inputs,
            ask_with_wrong_contents, ask_with_parameters, ask_on_streams, ask_while_running):  # fmt: skip
    add()

if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], sys.argv[2:]), indent=1, ensure_ascii=False))
    # Not by the interpreter's own end: gRPC's threads have been seen to keep a finished client alive.
    sys.stdout.flush()
    os._exit(0)
