"""`/openapi.json` describes what the server takes and gives."""

from __future__ import annotations

from typing import Any

import pytest

from rest.kit import Client


def resolved(document: Any, schema: Any) -> Any:
    if "$ref" not in schema:
        return schema
    found = document
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_every_example_is_answered(client: Client) -> None:
    answer = client.get("/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    document = answer.json
    assert document["openapi"] == "3.1.0"
    tried = 0
    for path, item in document["paths"].items():
        if not path.startswith("/predict/") or path.endswith("/stream") or "running_sum" in path:
            continue
        forms = item["post"]["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
        record = resolved(document, forms[0])
        said = resolved(
            document, item["post"]["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"][0]
        )
        for example in record.get("examples", ()):
            came = client.post(path, example)
            assert came.status == 200, (path, example, came.body)
            assert came.json.keys() == said["properties"].keys()
            tried += 1
    assert tried > 20
    paths = document["paths"]
    assert {"/health", "/predict/scale", "/predict/scale/versions/1", "/predict/scale/stream"} <= paths.keys()
    record = document["components"]["schemas"]["lead_scoring.1.Record"]
    assert record["required"] == ["lead_source", "number_of_courses_viewed", "annual_income"]
    assert record["properties"]["number_of_courses_viewed"]["anyOf"][0]["type"] == "integer"
    stateful = str(paths["/predict/running_sum"])
    assert all(f"Penstock-{name}" in stateful for name in ("Sequence-Id", "Caller", "Sequences"))
    texts = document["components"]["schemas"]["texts.1.Record"]["properties"]["x"]
    assert texts["anyOf"][0] == {"type": ["string", "null"]}  # the model says what a missing text is
    assert record["properties"]["lead_source"]["anyOf"][0] == {"type": "string"}
    answer = document["components"]["schemas"]["lead_scoring.1.Answer"]
    assert "NaN" in str(answer["properties"]["probability"])


@pytest.mark.parametrize(
    ("model", "status"), [("wide", 200), ("column", 200), ("identity", 400), ("deep", 400)]
)
def test_one_value_for_a_row_is_described_where_it_is_taken(client: Client, model: str, status: int) -> None:
    assert client.post(f"/predict/{model}", {"x": 5}).status == status
    record = client.get("/openapi.json").json["components"]["schemas"][f"{model}.1.Record"]
    kinds = record["properties"]["x"].get("anyOf", ())
    assert any(each.get("type") == "number" for each in kinds) == (status == 200)


def test_all_forms_and_parameters_are_described(client: Client) -> None:
    document = client.get("/openapi.json").json
    paths = document["paths"]

    def forms(model: str) -> Any:
        return paths[f"/predict/{model}"]["post"]["requestBody"]["content"]["application/json"]["schema"][
            "anyOf"
        ]

    _, instances, columns = forms("column")
    items = instances["properties"]["instances"]["items"]["anyOf"]
    assert "$ref" in items[0]
    assert items[1]["description"] == "x FP32[N,1]"
    columns = columns["properties"]["inputs"]
    assert columns["required"] == ["x"]
    tensor, flat = columns["properties"]["x"]["anyOf"]
    assert tensor["items"]["type"] == flat["type"] == "array"
    assert "$ref" in forms("lead_scoring")[1]["properties"]["instances"]["items"]
    names = {each["name"] for each in paths["/predict/running_sum/stream"]["post"]["parameters"]}
    assert names == {"Penstock-Timeout", "Penstock-Priority", "outputs"}
