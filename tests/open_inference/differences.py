"""Where we answer otherwise than Triton, and why: by the step, what we answer, as `summary` has it."""

from __future__ import annotations

from typing import Any

FINAL = {"triton_final_response": {"bool_param": True}}
VALUES = "AACAPwAAAEAAAEBAAADAQAAAoEAAAIBA"


def answer(
    *, raw: str = VALUES, shape: tuple[str, ...] = ("2", "3"), datatype: str = "FP32", **more: Any
) -> Any:
    """An answer of the model `identity`."""
    outputs = [{"name": "y", "datatype": datatype, "shape": list(shape)}]
    told = {"model_name": "identity", "model_version": "1", "outputs": outputs, "raw_output_contents": [raw]}
    return {**told, **more}


def streamed(name: str) -> Any:
    return answer(id=name, parameters=FINAL)


X = [{"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}]
MULTI = {"double": ["-1", "3"], "total": ["-1"], "positive": ["-1", "3"]}
MULTI_TYPES = {"double": "FP32", "total": "FP32", "positive": "BOOL"}
MULTI_RAW = {"double": "AAAAQAAAgEAAAMBAAABAQQAAIEEAAABB", "total": "AADAQAAAcEE=", "positive": "AQEBAQEB"}


def multi(*names: str) -> Any:
    """An answer of the model `multi` to two rows."""
    outputs = [
        {"name": name, "datatype": MULTI_TYPES[name], "shape": ["2", *MULTI[name][1:]]} for name in names
    ]
    raw = [MULTI_RAW[name] for name in names]
    return {"model_name": "multi", "model_version": "1", "outputs": outputs, "raw_output_contents": raw}


def _all(names: str, ours: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(", "), ours)


LABELS = _all("metadata no number, config no number, statistics no number, version no number", "NOT_FOUND")
LABELS |= {"model ready no number": {}, "version negative": "NOT_FOUND"}
"""A version may be a label here, so one that is no number is just not there."""

UNKNOWN = _all("statistics unknown, statistics unknown version", "NOT_FOUND")
"""What is unknown has one status, whatever is asked; Triton says INVALID_ARGUMENT to this one question."""

FIXED = _all("load identity, unload identity, load nobody, unload nobody", "FAILED_PRECONDITION")
"""Trying again does not help, which UNAVAILABLE would promise; KServe's client tries it three times."""

NOT_THERE = _all("trace, log", "UNIMPLEMENTED")
NOT_THERE |= _all("system memory status, system memory register, system memory unregister", "UNIMPLEMENTED")
NOT_THERE |= _all("cuda memory status, cuda memory register, cuda memory unregister", "UNIMPLEMENTED")
NOT_THERE |= _all("input in shared memory, output in shared memory", "INVALID_ARGUMENT")

RANK_ONE = {
    "metadata of multi": {
        "name": "multi",
        "versions": ["1"],
        "inputs": X,
        "outputs": [{"name": n, "datatype": MULTI_TYPES[n], "shape": MULTI[n]} for n in MULTI],
    },
    "config of multi": {
        "name": "multi",
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3"]}],
        "output": [
            {"name": "double", "data_type": "TYPE_FP32", "dims": ["3"]},
            {"name": "total", "data_type": "TYPE_FP32"},
            {"name": "positive", "data_type": "TYPE_BOOL", "dims": ["3"]},
        ],
        "batched": True,
        "dynamic": True,
        "kinds": ["KIND_CPU"],
    },
    "all outputs": multi("double", "total", "positive"),
    "two outputs": multi("double", "total"),
}
"""An output of one number a row has the shape of the graph, which Triton can only say as [-1, 1]."""

LENIENT = {
    "classes unsigned": answer(
        raw="CgAAADMuMDAwMDAwOjIKAAAAMi4wMDAwMDA6MQoAAAA2LjAwMDAwMDowCgAAADUuMDAwMDAwOjE=",
        shape=("2", "2"),
        datatype="BYTES",
    ),
    "datatype left out": answer(),
    "no rows": answer(raw="", shape=("0", "3")),
    "more rows than a batch": answer(raw="AACAPwAAgD8AAIA/" * 33, shape=("33", "3")),
    "parameter timeout unsigned": answer(),
    "parameter custom unsigned": answer(),
    "parameter without a value": answer(),
}
"""What is clear enough is taken: all of it is refused by Triton, so no client of Triton sends it."""

STRICT = _all("raw too many, parameter timeout negative", "INVALID_ARGUMENT")
"""A mistake that Triton passes over."""

TEXT = {"texts not UTF-8": "INVALID_ARGUMENT"}
"""ONNX strings are text."""

CLASSES = {
    "classes of ties": answer(
        raw="CgAAADEuMDAwMDAwOjAKAAAAMS4wMDAwMDA6MQoAAAAwLjAwMDAwMDoyBQAAAGluZjoxBgAAAC1pbmY6MgUAAABuYW46MA==",
        shape=("2", "3"),
        datatype="BYTES",
    ),
}
"""NaN comes last, where Triton has no order."""

STREAMS = {
    "stream triton_grpc_error 'true'": [streamed("good 0"), "INVALID_ARGUMENT"],
    "stream triton_grpc_error no such model": ["NOT_FOUND"],
    "stream of a failing model": [{"error": True, "id": "failing"}, streamed("good 1"), "OK"],
}
"""Every error ends such a stream, where Triton means only the model's; and all errors in one look alike."""

COUNTED = {
    "statistics of a failing model": {
        "ends": ["OK", "INTERNAL"],
        "more": {
            "inference_count": 1,
            "execution_count": 1,
            "success": 1,
            "fail": 1,
            "queue": 1,
            "compute_infer": 1,
            "batches of 1": 1,
        },
    },
    "statistics of bad input": {
        "ends": ["OK", "INVALID_ARGUMENT", "INVALID_ARGUMENT"],
        "more": {
            "inference_count": 1,
            "execution_count": 1,
            "success": 1,
            "fail": 2,
            "queue": 1,
            "compute_infer": 1,
            "batches of 1": 1,
        },
    },
}
"""What fails counts as failed: Triton's Python backend calls it success; bad input Triton counts nowhere."""

FULL = {"queue full": ["OK", "RESOURCE_EXHAUSTED"], "timeout in the queue": ["DEADLINE_EXCEEDED", "OK"]}
"""Triton says UNAVAILABLE to both."""

NO_PATH = _all("trace, log", "NOT_FOUND")
NO_PATH |= _all("system memory status, system memory register, system memory unregister", "NOT_FOUND")
NO_PATH |= _all("cuda memory status, cuda memory register, cuda memory unregister", "NOT_FOUND")
"""What is not there is a path that is not there."""

UNSAID = {
    "typed in the wrong list": answer(raw="AACAPwAAgD8AAIA/AACAPwAAgD8AAIA/"),
    "parameter sequence unsigned": answer(),
}
"""JSON has one kind of list, and one of number."""

NULL = {"parameter without a value": "INVALID_ARGUMENT"}
"""A parameter of JSON that is null."""

DIFFERENCES: dict[str, Any] = {
    **LABELS, **UNKNOWN, **FIXED, **NOT_THERE, **RANK_ONE, **LENIENT, **STRICT, **TEXT, **CLASSES, **STREAMS,
    **COUNTED, **FULL,
}  # fmt: skip

OVER_HTTP: dict[str, Any] = {**NO_PATH, **UNSAID, **NULL}
"""The same over HTTP, besides the differences above."""

ONLY_OVER_GRPC = {"index of a repository"}
"""What HTTP has no way to ask, besides streams."""
