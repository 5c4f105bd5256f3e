"""What the parameters of a request ask for."""

from __future__ import annotations

import math
from typing import Any

import pytest

from penstock.core.errors import InvalidRequest
from penstock.protocols.open_inference.parameters import classes_of, of_request
from penstock_proto.inference import grpc_service_pb2 as pb

P = pb.InferParameter


def request(**parameters: pb.InferParameter) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(parameters=parameters)


def output(**parameters: pb.InferParameter) -> pb.ModelInferRequest:
    wanted = pb.ModelInferRequest.InferRequestedOutputTensor(name="y", parameters=parameters)
    return pb.ModelInferRequest(outputs=[wanted])


def test_nothing_asked() -> None:
    assert of_request(request()) == (0, math.inf)


def test_a_lower_level_of_priority_goes_first() -> None:
    levels = [of_request(request(priority=P(uint64_param=level)))[0] for level in (1, 2, 3, 4, 2**64 - 1)]
    assert levels[:4] == [1, 0, -1, -2]
    assert levels == sorted(levels, reverse=True)
    assert of_request(request(priority=P(int64_param=1)))[0] == 1
    assert of_request(request(priority=P(uint64_param=0)))[0] == 0, "the default"


def test_a_timeout_is_in_microseconds() -> None:
    assert of_request(request(timeout=P(int64_param=1500)))[1] == 0.0015
    assert of_request(request(timeout=P(uint64_param=1_000_000)))[1] == 1.0
    assert of_request(request(timeout=P(int64_param=0)))[1] == math.inf


def test_other_parameters_are_accepted() -> None:
    more: dict[str, Any] = {
        "mine": P(string_param="text"),
        "binary_data_output": P(bool_param=True),
        "sequence_id": P(int64_param=7),
        "sequence_start": P(bool_param=True),
        "triton_enable_empty_final_response": P(bool_param=True),
        "unset": P(),
    }
    assert of_request(request(**more)) == (0, math.inf)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (
            {"priority": P(string_param="high")},
            "parameter priority is string_param, expected uint64_param or int64_param",
        ),
        ({"priority": P()}, "parameter priority is empty, expected uint64_param or int64_param"),
        (
            {"priority": P(int64_param=-1)},
            "parameter priority is -1, expected 0 (the default) or a positive number",
        ),
        (
            {"timeout": P(double_param=0.5)},
            "parameter timeout is double_param, expected int64_param or uint64_param",
        ),
        (
            {"timeout": P(int64_param=-1)},
            "parameter timeout is -1 µs, expected 0 (no timeout) or a positive number",
        ),
        (
            {"sequence_id": P(double_param=1.0)},
            "parameter sequence_id is double_param, expected int64_param or string_param",
        ),
        (
            {"triton_enable_empty_final_response": P(string_param="yes")},
            "parameter triton_enable_empty_final_response is string_param, expected bool_param",
        ),
        (
            {"triton_other": P(bool_param=True)},
            "parameter triton_other: names that start with triton_ are reserved; the only known one is "
            "triton_enable_empty_final_response",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        of_request(request(**parameters))
    assert str(refused.value) == words


def test_classes() -> None:
    assert classes_of(output()) == {}
    assert classes_of(output(classification=P(int64_param=3))) == {"y": 3}
    assert classes_of(output(binary_data=P(bool_param=True))) == {}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (
            {"classification": P(string_param="3")},
            "parameter classification is string_param, expected int64_param or uint64_param",
        ),
        (
            {"classification": P(int64_param=0)},
            "parameter classification of output y is 0, expected 1 or more",
        ),
        (
            {"shared_memory_region": P(string_param="r")},
            "output y is to go to shared memory, which this server does not write",
        ),
    ],
    ids=str,
)
def test_outputs_that_cannot_be_had_like_that(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        classes_of(output(**parameters))
    assert str(refused.value) == words
