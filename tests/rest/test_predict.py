"""`POST /predict`: the three forms of a request, what they convert, and the errors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from penstock.core.tensors import DataType, Kind
from penstock.server import Server
from rest.kit import Client
from support.dtypes import SMALL

LEAD = {"lead_source": "paid_ads", "number_of_courses_viewed": 2, "annual_income": 79276}
TWO = {"predictions": [{"y": [1, 2, 3]}, {"y": [4, 5, 6]}]}
OTHER = {"lead_source": "referral", "number_of_courses_viewed": 9, "annual_income": 1.5}


def test_one_record(client: Client) -> None:
    answer = client.post("/predict/lead_scoring", LEAD)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["penstock-model-version"] == "1"
    said = answer.json
    assert said.keys() == {"label", "probabilities", "prediction", "probability"}
    assert said["label"] == said["prediction"] == 0
    assert said["probability"] == max(said["probabilities"])
    assert sum(said["probabilities"]) == pytest.approx(1)
    assert b"0.6878185," in answer.body  # the shortest decimals of an FP32


def test_many_records_and_columns_say_the_same(client: Client) -> None:
    alone = [client.post("/predict/lead_scoring", each).json for each in (LEAD, OTHER)]
    together = client.post("/predict/lead_scoring/versions/1", {"instances": [LEAD, OTHER]}).json
    columns = {name: [LEAD[name], OTHER[name]] for name in LEAD}
    by_column = client.post("/predict/lead_scoring", {"inputs": columns}).json
    for index, each in enumerate(alone):
        record = together["predictions"][index]
        assert record["probabilities"] == pytest.approx(each["probabilities"], rel=1e-5)
        assert by_column["outputs"]["probabilities"][index] == pytest.approx(each["probabilities"], rel=1e-5)
        assert record["prediction"] == each["prediction"] == by_column["prediction"][index]
        assert by_column["probability"][index] == pytest.approx(each["probability"], rel=1e-5)
    assert by_column["outputs"].keys() == {"label", "probabilities"}


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        ("identity", {"x": [1, 2.5, -3]}, {"y": [1, 2.5, -3]}),
        ("scale/versions/1", {"instances": [[1, 2, 3], {"x": [4, 5, 6]}]}, TWO),
        ("identity", {"inputs": {"x": [[1, 2, 3]]}}, {"outputs": {"y": [[1, 2, 3]]}}),
        ("identity", {"inputs": {"x": [1, 2, 3, 4, 5, 6]}}, {"outputs": {"y": [[1, 2, 3], [4, 5, 6]]}}),
        ("identity", {"instances": []}, {"predictions": []}),
        ("column", {"x": 7}, {"y": 7}),
        ("column", {"x": [7]}, {"y": 7}),
        ("texts", {"x": None}, {"y": "unknown"}),
        ("texts", {"x": [None]}, {"y": "unknown"}),
        ("texts", {"instances": ["a", None]}, {"predictions": [{"y": "a"}, {"y": "unknown"}]}),
        ("texts", {"inputs": {"x": [None, "a"]}}, {"outputs": {"y": [["unknown"], ["a"]]}}),
        ("column", {"instances": [1, 2]}, {"predictions": [{"y": 1}, {"y": 2}]}),
        ("wide", {"x": [1, 2, 3, 4]}, {"y": [1, 2, 3, 4]}),
        ("deep", {"x": [[1, 2, 3], [4, 5, 6]]}, {"y": [[1, 2, 3], [4, 5, 6]]}),
        ("fixed", {"x": [1, 2, 3, 4]}, {"y": [2, 4, 6, 8]}),
        ("scalar", {"x": 4}, {"y": 8}),
        ("scale", {"x": [1, 2, 3]}, {"y": [2, 4, 6]}),
        ("scale/versions/1", {"x": [1, 2, 3]}, {"y": [1, 2, 3]}),
        ("scale/versions/stable", {"x": [1, 2, 3]}, {"y": [1, 2, 3]}),
        ("identity", {"x": ["NaN", "Infinity", "-Infinity"]}, {"y": ["NaN", "Infinity", "-Infinity"]}),
        ("identity", {"x": [1, None, 3]}, {"y": [1, "NaN", 3]}),
        ("column", {"instances": [1, {"x": None}]}, {"predictions": [{"y": 1}, {"y": "NaN"}]}),
        ("identity", {"x": [1, True, False]}, {"y": [1, 1, 0]}),
        ("column", {"x": True}, {"y": 1}),
        ("column", {"inputs": {"x": [True, None, False]}}, {"outputs": {"y": [[1], ["NaN"], [0]]}}),
        ("column", {"instances": [{"x": False}, {"x": 0.5}]}, {"predictions": [{"y": 0}, {"y": 0.5}]}),
        ("identity_int64", {"x": [True, False, 7]}, {"y": [1, 0, 7]}),
        ("identity_bf16", {"x": [True, False, 0.5]}, {"y": [1, 0, 0.5]}),
        ("identity_bytes", {"x": ["null", "ü", ""]}, {"y": ["null", "ü", ""]}),
        ("identity_bool", {"x": [True, False, True]}, {"y": [True, False, True]}),
    ],
)  # fmt: skip
def test_forms_and_shapes(client: Client, model: str, body: Any, expected: Any) -> None:
    answer = client.post(f"/predict/{model}", body)
    assert (answer.status, answer.json) == (200, expected)


@pytest.mark.parametrize("datatype", DataType, ids=str)
def test_every_datatype_comes_back(client: Client, datatype: DataType) -> None:
    values: list[Any] = [0, 1, 0.5]
    if datatype.kind in (Kind.INT, Kind.UINT):
        bounds = np.iinfo(datatype.dtype)
        values = [int(bounds.min), int(bounds.max), 7]
    elif datatype.kind is Kind.BYTES:
        values = ["a", "ä\n", "0"]
    elif datatype.kind is Kind.BOOL:
        values = [True, False, True]
    answer = client.post(f"/predict/identity_{datatype.label.lower()}", {"x": values})
    assert (answer.status, answer.json) == (200, {"y": values})
    assert datatype in SMALL or datatype.kind is not Kind.FLOAT or json.loads(answer.body)["y"][2] == 0.5


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        ("identity", [1], "the body is not an object"),
        ("identity", [1], 'values without a name go into {"instances": [value, ...]}'),
        ("column", {"x": [79, 63]}, 'shape [1, 2], expected x FP32[N,1]; columns go into {"inputs": {...}}'),
        ("column", {"instances": [7, "a"]}, 'instance 1: input x: the value "a" at position 0 is a text'),
        ("column", {"instances": [1, {"x": 1, "z": 1}]}, "instance 1: there is no input z"),
        ("wide", {"instances": [[1, 2, 3], [1]]}, "different lengths"),
        ("identity", {}, "input x is missing: expected x FP32[N,3]; got none"),
        ("identity", {"x": [1, 2, 3], "z": 1}, "there is no input z: expected x FP32[N,3]; got x, z"),
        ("identity", {"instances": [[1, 2, 3], {}]}, "input x is missing in instance 1"),
        ("identity", {"instances": [[1, 2, 3], [1]]}, "instance 1: input x has shape [1, 1]"),
        ("identity", {"instances": [[1, 2, 3]], "other": 1}, "expected nothing beside instances"),
        ("identity", {"x": [1, 2]}, "input x has shape [1, 2], expected x FP32[N,3]"),
        ("identity", {"x": [[1, 2, 3]]}, "input x has shape [1, 3] in a record, expected [3]"),
        ("identity", {"x": 1}, "input x is one value in a record, expected [3] of FP32"),
        ("identity", {"x": [1, "2", 3]}, 'the value "2" at position 1 is a text, expected FP32'),
        ("identity_int64", {"x": [1, None, 3]}, "is null, expected INT64, which has no missing values: fill"),
        ("identity_bytes", {"x": ["a", None, "b"]}, "is null, expected BYTES, which has no missing values"),
        ("identity_bytes", {"x": ["a", None]}, 'fill them in first, for example with "", the empty text'),
        ("identity", {"x": [1, None, "2"]}, 'the value "2" at position 2 is a text, expected FP32'),
        ("identity_bytes", {"x": ["a", True, "b"]}, "the value true at position 1 is true or false"),
        ("identity", {"x": [1, 1e39, 3]}, "the value 1e+39 at position 1 does not fit FP32"),
        ("identity_int64", {"x": [1, 2.5, 3]}, "the value 2.5 at position 1 does not fit INT64"),
        ("identity_int64", {"x": [-1, 2**63, 3]}, "do not fit INT64"),
        (
            "identity_int64",
            {"x": [1, 9007199254740993.0]},
            "the value 9007199254740992.0 at position 1 does not fit INT64: with a point or an exponent, "
            "a number from 2^53 on is rounded; write its digits only",
        ),
        ("identity_uint8", {"x": [1, 256, 3]}, "the value 256 at position 1 does not fit UINT8"),
        ("identity_bool", {"x": [1, 0, 1]}, "the value 1 at position 0 is a number, expected BOOL"),
        ("identity_bytes", {"x": ["a", 1, "b"]}, "the value 1 at position 1 is a number, expected BYTES"),
        ("identity?outputs=z", {"x": [1, 2, 3]}, "there is no output z"),
        ("identity?outputs=", {"x": [1, 2, 3]}, "outputs has an empty name; identity version 1 has y"),
        ("identity?outputs=y,", {"x": [1, 2, 3]}, "outputs has an empty name; identity version 1 has y"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(client: Client, model: str, body: Any, words: str) -> None:
    answer = client.post(f"/predict/{model}", body)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    said = answer.json
    assert said.keys() == {"type", "title", "status", "detail", "code"}
    assert (said["title"], said["status"], said["code"]) == ("Bad Request", 400, "INVALID_ARGUMENT")
    assert words in said["detail"]


def test_a_body_that_is_not_json(client: Client) -> None:
    for body in (b"", b"{", b'{"x": NaN}', b"\xff", b'{"x": [1, 2, 3]} 1', b"[" * 5000):
        answer = client.post("/predict/identity", body)
        assert (answer.status, answer.json["code"]) == (400, "INVALID_ARGUMENT")


def test_lines_and_texts_that_are_no_one_document(client: Client) -> None:
    for path in ("identity", "identity/stream"):
        said = client.post(f"/predict/{path}", b'{"x": [1, 2, 3]}{"x": [1, 2, 3]}').json
        said = said.get("error", said)["detail"]
        assert "/predict/{model}/stream" in said
        assert "--data-binary" in said
    said = client.post("/predict/identity", b'{"x": "\xff"}').json["detail"]
    assert said == "the body (10 bytes) is not JSON: it is not UTF-8"


def test_outputs_can_be_chosen(client: Client) -> None:
    assert client.post("/predict/lead_scoring?outputs=label", LEAD).json == {"label": 0}


def test_models_and_paths_that_are_not_there(client: Client) -> None:
    for path in ("/predict/nothing", "/predict/scale/versions/7", "/predict/scale/versions/old"):
        answer = client.post(path, {})
        assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")
    assert "/predict/{model}" in client.post("/predic", {}).json["detail"]
    answer = client.get("/predict/identity")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert client.call("HEAD", "/health").status == 200


def test_a_model_that_fails(client: Client) -> None:
    answer = client.post("/predict/fails", {"x": 100})
    assert (answer.status, answer.json["code"]) == (500, "INTERNAL")


def test_the_id_comes_back(client: Client) -> None:
    answer = client.post("/predict/identity", {"x": [1, 2, 3]}, X_Request_Id="a-1")
    assert answer.headers["x-request-id"] == "a-1"


def test_a_deadline(client: Client) -> None:
    answer = client.post("/predict/slow", {"x": 1}, Penstock_Timeout="0.000001")
    assert (answer.status, answer.json["code"]) == (504, "DEADLINE_EXCEEDED")
    for bad in ("soon", "-1", "nan", "inf", "0"):
        assert client.post("/predict/identity", {"x": [1, 2, 3]}, Penstock_Timeout=bad).status == 400
    assert client.post("/predict/identity", {"x": [1, 2, 3]}, Penstock_Timeout="60").status == 200


def test_priority(client: Client) -> None:
    assert client.post("/predict/identity", {"x": [1, 2, 3]}, Penstock_Priority="1").status == 200
    assert client.post("/predict/identity", {"x": [1, 2, 3]}, Penstock_Priority="high").status == 400


def test_a_sequence_by_headers(client: Client) -> None:
    def step(x: int, **headers: str) -> Any:
        return client.post("/predict/running_sum", {"x": x}, Penstock_Sequence_Id="s", **headers)

    assert step(1, Penstock_Sequence_Start="true").json == {"y": 1}
    assert step(5).json == {"y": 6}
    assert step(1, Penstock_Sequence_End="true").json == {"y": 7}
    answer = step(1)
    assert (answer.status, answer.json["code"]) == (409, "FAILED_PRECONDITION")
    assert client.post("/predict/running_sum", {"x": 1}).status == 400
    assert client.post("/predict/identity", {"x": [1, 2, 3]}, Penstock_Sequence_Id="s").status == 400


def test_health(client: Client, rest_server: Server) -> None:
    answer = client.get("/health")
    assert (answer.status, answer.json) == (200, {"status": "ok", "ready": True})


@pytest.mark.parametrize("path", ["/predict/lead_scoring", "/predict/lead_scoring/stream"])
def test_what_the_head_says_in_vain_is_rejected(client: Client, path: str) -> None:
    answer = client.post(f"{path}?output=label&outputs=label", LEAD)
    assert (answer.status, answer.json["detail"]) == (400, "there is no query parameter output, only outputs")
    answer = client.post(path, LEAD, Penstock_Sequences="shared, byid")
    assert answer.status == 400
    assert "penstock-sequences is 'shared, byid', expected by-id, shared, or both" in answer.json["detail"]
    assert client.post(f"{path}?outputs=label", LEAD, Penstock_Sequences="shared").json == {"label": 0}


def test_errors_of_sequences_name_the_headers(client: Client) -> None:
    def step(caller: str, **headers: str) -> str:
        answer = client.post("/predict/running_sum", {"x": 1}, Penstock_Caller=caller, **headers)
        return "" if answer.status == 200 else answer.json["detail"]

    assert "headers Penstock-Sequence-Id and Penstock-Sequence-Start;" in step("a")
    assert "header Penstock-Sequence-Start: true" in step("a", Penstock_Sequence_Id="own")
    assert not step("a", Penstock_Sequence_Id="own", Penstock_Sequence_Start="true")
    assert "the header) penstock-caller" in step("b", Penstock_Sequence_Id="own")
    assert not step("a", Penstock_Sequence_Id="own")  # on another connection


def test_outputs_may_be_named_by_several_parameters(client: Client) -> None:
    row = {"x": [1, 2, 3]}
    both = client.post("/predict/multi?outputs=total&outputs=double", row).json
    assert (
        list(both)
        == list(client.post("/predict/multi?outputs=total,double", row).json)
        == ["double", "total"]
    )


def test_a_wrong_path_is_told_those_like_it(client: Client) -> None:
    assert client.get("/v2/nothing").json["detail"].startswith("there is no path /v2/nothing; there are /v2/")
    assert client.get("/predict").json["detail"].endswith("/predict/{model}/versions/{version}/stream")
    words = client.get("/nothing").json["detail"]
    assert words.startswith("there is no path /nothing; there are /predict/{model}, ")
    assert words.count("/predict") == words.count("/v2") == words.count("/health") == 1
