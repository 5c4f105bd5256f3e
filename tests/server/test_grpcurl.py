"""What people do by hand: grpcurl, without a .proto file."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from server import kit

GRPCURL = shutil.which("grpcurl")
pytestmark = pytest.mark.skipif(GRPCURL is None, reason="grpcurl is not installed")

LEAD = {
    "model": "lead_scoring",
    "inputs": {
        "lead_source": {"string_values": ["paid_ads"]},
        "number_of_courses_viewed": {"int_values": [2]},
        "annual_income": {"double_values": [79276]},
    },
}
LISTS = ("boolValues", "intValues", "uintValues", "floatValues", "doubleValues", "stringValues")
PREDICT = "penstock.v1.PredictionService/Predict"
STREAM = "penstock.v1.PredictionService/PredictStream"
DEADLINE_EXCEEDED, NOT_FOUND = 64 + 4, 64 + 5  # grpcurl's exit codes: 64 and the status code


@pytest.fixture
def transport() -> str:
    """One transport is enough: grpcurl sees no difference."""
    return "reactor"


@pytest.fixture
def grpcurl(server):
    """Runs grpcurl: `grpcurl(*what, flags=(...), send=..., code=...)` gives what it prints."""

    def run(*what: str, flags: tuple[str, ...] = (), send: str = "", code: int = 0) -> str:
        ran = subprocess.run(
            [str(GRPCURL), "-plaintext", *flags, *(["-d", "@"] if send else []), server.target, *what],
            input=send,
            capture_output=True,
            text=True,
            timeout=kit.BOUND,
            check=False,
        )
        assert ran.returncode == code, ran.stderr
        return ran.stdout + ran.stderr

    return run


def values(text: str) -> list[dict[str, Any]]:
    """The JSON values that were printed one after another."""
    decoder, found, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].lstrip()
    return found


def test_list(grpcurl) -> None:
    assert grpcurl("list").split() == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
        "penstock.v1.ModelService",
        "penstock.v1.PredictionService",
    ]


@pytest.mark.parametrize(
    ("symbol", "shown"),
    [
        ("penstock.v1.PredictionService", "// One request, one answer."),
        ("penstock.v1.PredictRequest", "// The model's name, as ModelService.ListModels gives it."),
        ("penstock.v1.ModelService", "// Every version of every model, by name and version."),
    ],
)
def test_describe_shows_comments(grpcurl, symbol, shown) -> None:
    assert shown in grpcurl("describe", symbol)


def test_predict(grpcurl) -> None:
    (answer,) = values(grpcurl(PREDICT, send=json.dumps({**LEAD, "id": "by hand"})))
    assert (answer["model"], answer["version"], answer["id"]) == ("lead_scoring", "1", "by hand")
    assert answer["outputs"]
    for tensor in answer["outputs"].values():
        assert set(tensor) <= {"datatype", "shape", *LISTS}, "typed inputs are answered with typed lists"


def test_a_prediction_that_is_refused(grpcurl) -> None:
    said = grpcurl(PREDICT, send='{"model": "skale"}', code=NOT_FOUND)
    assert "Code: NotFound" in said
    assert "no model 'skale'" in said


def test_a_stream_of_several_messages(grpcurl) -> None:
    """Three messages on standard input, the second with two requests, one of these bad."""
    leads = [{**LEAD, "tag": str(tag)} for tag in range(3)]
    bad = {"model": "lead_scoring", "tag": "3"}
    messages = [{"requests": [leads[0]]}, {"requests": [leads[1], bad]}, {"requests": [leads[2]]}]
    answers = values(grpcurl(STREAM, send="\n".join(map(json.dumps, messages))))
    results = [each for answer in answers for each in answer["results"]]
    assert [each.get("tag", "0") for each in results] == ["0", "1", "3", "2"]
    assert ["error" in each for each in results] == [False, False, True, False]
    outputs = [each["response"]["outputs"] for each in results if "response" in each]
    assert outputs == [outputs[0]] * 3


def test_health_check(grpcurl) -> None:
    assert values(grpcurl("grpc.health.v1.Health/Check")) == [{"status": "SERVING"}]
    asked = grpcurl("grpc.health.v1.Health/Check", send='{"service": "lead_scoring"}')
    assert values(asked) == [{"status": "SERVING"}]
    grpcurl("grpc.health.v1.Health/Check", send='{"service": "nothing"}', code=NOT_FOUND)


def test_health_watch(grpcurl) -> None:
    """It stays open until the bound, having told the state once."""
    said = grpcurl("grpc.health.v1.Health/Watch", flags=("-max-time", "0.5"), code=DEADLINE_EXCEEDED)
    assert said.count("SERVING") == 1
    assert "Code: DeadlineExceeded" in said


def test_the_models(grpcurl) -> None:
    (answer,) = values(grpcurl("penstock.v1.ModelService/ListModels"))
    names = [each["name"] for each in answer["models"]]
    assert names == sorted(names)
    assert names.count("scale") == 3
    asked = '{"model": "scale", "version": "stable"}'
    (model,) = values(grpcurl("penstock.v1.ModelService/GetModel", send=asked))
    assert (model["name"], model["version"], model["state"]) == ("scale", "2", "READY")
    assert model in answer["models"]
