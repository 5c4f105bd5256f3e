"""The page's file, its events and its calls, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from page import kit
from penstock.config.sections import ServerConfig
from penstock.operations import Question
from penstock.page import Ports, Seen, StatusPage
from penstock_client import Client, PenstockError
from processes.kit import children
from rest.kit import serving
from support import zoo
from support.servers import SCRIPT, RunningServer, running_server

LEAD = {"lead_source": "paid_ads", "number_of_courses_viewed": 2, "annual_income": 79276}


def test_the_page_allows_its_own_style_and_script_and_nothing_else(page_server: RunningServer) -> None:
    answer = kit.ask(page_server.ops + "/", Accept=kit.HTML)
    assert answer.status == 200
    headers = answer.headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    rules = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert (rules["default-src"], rules["connect-src"], rules["frame-ancestors"]) == (
        "'none'",
        "'self'",
        "'none'",
    )
    for tag in ("style", "script"):
        [text] = re.findall(f"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", answer.text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg|\$\{location)", answer.text), (
        "nothing from elsewhere"
    )


def test_other_clients_get_the_list_of_paths(page_server: RunningServer) -> None:
    for accept in ("*/*", "text/plain", ""):
        answer = kit.ask(page_server.ops + "/", Accept=accept)
        assert answer.text.split() == ["/metrics", "/livez", "/readyz", "/events", "/call"]
    assert kit.ask(page_server.ops + "/", "POST", b"", Accept=kit.HTML).status == 405


def test_the_verdicts_are_those_of_penstock_models_why(page_server: RunningServer) -> None:
    with kit.events(page_server.ops) as events:
        shown = kit.first(events, "models")
    assert shown["grpc"] == int(page_server.target.rpartition(":")[2])
    assert shown["http"] == int(page_server.http.rpartition(":")[2])
    models = {(each["name"], each["version"]): each for each in shown["models"]}
    with Client(page_server.target) as client:
        said = {(each.name, each.version): each for each in client.models()}
    assert models.keys() == said.keys()
    for key, model in models.items():
        batching = said[key].batching
        assert (model["batched"], model["reason"], tuple(model["why"])) == (
            batching.enabled, batching.reason, tuple(batching.why),
        )  # fmt: skip
        assert (model["default"], model["labels"]) == (said[key].is_default, list(said[key].labels))
        assert [each["name"] for each in model["inputs"]] == [each.name for each in said[key].inputs]
    assert models["lead_scoring", "1"]["proven"] == "row-wise"
    assert models["deep", "1"]["reason"] == "switched off in model.toml"
    command = [SCRIPT, "models", page_server.target, "--why"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for sentence in models["lead_scoring", "1"]["why"]:
        assert sentence in printed


def test_figures_come_every_second_and_follow_the_metrics(page_server: RunningServer) -> None:
    with kit.events(page_server.ops) as events, Client(page_server.target) as client:
        kit.first(events, "figures")
        for _ in range(30):
            client.predict("scale", {"x": np.ones((4, 3), np.float32)})
        for _ in range(20):
            figures = kit.first(events, "figures")
            [scale] = [
                each for each in figures["models"] if (each["name"], each["version"]) == ("scale", "2")
            ]
            if scale["answered"] >= 30:
                break
    assert figures["ready"] is True
    assert scale["rate"] > 0
    assert scale["answered"] >= 30
    assert scale["batch"] == pytest.approx(scale["rows"] / scale["rate"], rel=0.5)
    assert scale["latency"][0] <= scale["latency"][2]
    assert scale["sizes"]


def test_recent_errors_are_what_callers_were_told(page_server: RunningServer) -> None:
    with kit.events(page_server.ops) as events:
        with Client(page_server.target, transport="unary") as client, pytest.raises(PenstockError) as told:
            client.predict("fails", {"x": np.array([[100]], np.int64)})
        kit.call(page_server.ops, "model=exact", {"x": "my secret"})
        kit.call(page_server.ops, "model=nobody", {})
        found = []
        while len(found) < 3:
            found = [
                each
                for each in kit.first(events, "errors")
                if each["model"] in ("fails", "exact") or "nobody" in each["text"]
            ]
    by_model = {each["model"]: each for each in found}
    assert by_model["fails"]["code"] == "INTERNAL"
    assert by_model["fails"]["text"].split(",")[0] in str(told.value)
    assert by_model["exact"]["text"] == "input x: the value # at position 0 is a text, expected INT64"
    assert (by_model[""]["code"], by_model[""]["rpc"]) == ("NOT_FOUND", "RestPredict")


def test_a_call_is_a_request_over_http(page_server: RunningServer) -> None:
    answer = kit.call(page_server.ops, "model=lead_scoring", LEAD)
    direct = kit.ask(f"{page_server.http}/predict/lead_scoring", "POST", json.dumps(LEAD).encode())
    assert (answer.status, answer.text) == (200, direct.text)
    assert "server-timing" not in direct.headers  # only who asks for it gets it
    assert re.fullmatch(
        r"queue;dur=\d+\.\d+, compute;dur=\d+\.\d+, batch;desc=1", answer.headers["server-timing"]
    )
    assert kit.call(page_server.ops, "model=scale&version=1", {"x": [1, 2, 3]}).text == '{"y":[1.0,2.0,3.0]}'
    wrong = kit.call(page_server.ops, "model=lead_scoring&version=7", LEAD)
    assert (wrong.status, wrong.headers["content-type"]) == (404, "application/problem+json")
    step = {"Penstock_Caller": "test", "Penstock_Sequence_Id": "a"}
    assert kit.call(
        page_server.ops, "model=running_sum", {"x": 2}, **step, Penstock_Sequence_Start="true"
    ).text
    assert kit.call(page_server.ops, "model=running_sum", {"x": 3}, **step).text == '{"y":5}'


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Sec_Fetch_Site": "cross-site"}, "another site's page (sec-fetch-site: cross-site)"),
        ({"Sec_Fetch_Site": "same-site"}, "another site's page (sec-fetch-site: same-site)"),
        ({"Origin": "http://elsewhere.example"}, "a page of http://elsewhere.example, not of this server"),
        ({"Origin": "null"}, "a page of null, not of this server"),
        ({"Content_Type": "text/plain"}, "content-type is 'text/plain', expected application/json"),
    ],
)
def test_pages_of_other_sites_cannot_call(
    page_server: RunningServer, headers: dict[str, str], words: str
) -> None:
    answer = kit.call(page_server.ops, "model=lead_scoring", LEAD, **headers)
    assert (answer.status, answer.headers["content-type"]) == (403, "application/problem+json")
    assert words in json.loads(answer.text)["detail"]


@pytest.mark.parametrize(
    "host", ["evil.example:{port}", "localhost.evil.example", "[", "127.0.0.1, evil.example"]
)
def test_a_name_that_is_not_the_servers_gets_nothing(page_server: RunningServer, host: str) -> None:
    """Another site's page whose name was led to this server is of the same origin (DNS rebinding)."""
    host = host.format(port=page_server.ops.rpartition(":")[2])
    for answer in (
        kit.call(page_server.ops, "model=lead_scoring", LEAD, Host=host, Origin=f"http://{host}"),
        kit.ask(page_server.ops + "/events", Host=host),
        kit.ask(page_server.ops + "/", Host=host, Accept=kit.HTML),
    ):
        assert (answer.status, answer.headers["content-type"]) == (403, "application/problem+json")
        assert host in (detail := json.loads(answer.text)["detail"])
        assert "server.page_names" in detail
    for path in ("/metrics", "/livez", "/readyz"):
        assert kit.ask(page_server.ops + path, Host=host).status == 200


@pytest.mark.parametrize("host", ["localhost:9999", "LocalHost.", "10.1.2.3:8002", "[::1]:8002", "[fd00::1]"])
def test_addresses_and_localhost_are_this_server(page_server: RunningServer, host: str) -> None:
    answer = kit.call(page_server.ops, "model=lead_scoring", LEAD, Host=host, Origin=f"http://{host}")
    assert answer.status == 200, answer.text


def test_names_of_this_server_are_listed() -> None:
    settings = ServerConfig(host="Models", page_names=("models.example.com",))
    page = StatusPage(
        lambda: Seen((), (), ()), lambda: (True, ""), lambda: Ports("", 1, 0), settings.own_names
    )
    html = page.pages()["/"].answer
    for host, status in [
        ("models:8002", 200), ("Models.Example.com", 200), ("", 200),
        ("example.com", 403), ("x.models.example.com", 403),
    ]:  # fmt: skip
        assert html(Question("", {"host": host}, b"")).status == status, host


def test_calls_are_bounded_and_named(page_server: RunningServer) -> None:
    assert kit.ask(f"{page_server.ops}/call").status == 405
    answer = kit.call(page_server.ops, "version=1", LEAD)
    assert (answer.status, json.loads(answer.text)["detail"]) == (
        400, "the query names no model, expected ?model=NAME&version=VERSION",
    )  # fmt: skip
    large = kit.ask(f"{page_server.ops}/call?model=x", "POST", None, Content_Length=str(5 << 20))
    assert (large.status, "at most 4194304" in large.text) == (413, True)


def test_watchers_are_bounded_and_leave_room(page_server: RunningServer) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(kit.events(page_server.ops)) for _ in range(16)]
        assert kit.ask(f"{page_server.ops}/events").status == 503
        assert kit.ask(f"{page_server.ops}/livez").status == 200
        assert all(kit.first(each, "figures") for each in streams)
        head = kit.ask(f"{page_server.ops}/", "HEAD", Accept=kit.HTML)
        assert (head.status, head.text) == (200, "")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return zoo.repository(tmp_path / "models", {"identity": zoo.identity()})


def test_without_http_the_page_says_so_and_does_not_call(model: Path) -> None:
    with serving(model, http=False) as server:
        ops = f"http://127.0.0.1:{server.ops_port}"
        with kit.events(ops) as events:
            shown = kit.first(events, "models")
            assert shown["http"] == 0
            assert shown["models"][0]["inputs"][0]["example"]
        answer = kit.call(ops, "model=identity", {"x": [1, 2, 3]})
        assert (answer.status, "HTTP is switched off" in answer.text) == (404, True)


def test_the_page_can_be_switched_off(model: Path) -> None:
    with serving(model, http=False, status_page=False) as server:
        ops = f"http://127.0.0.1:{server.ops_port}"
        assert kit.ask(f"{ops}/", Accept=kit.HTML).text.split() == ["/metrics", "/livez", "/readyz"]
        assert kit.ask(f"{ops}/events").status == 404


def test_several_processes_are_shown_as_one(model: Path) -> None:
    flags = ("--processes", "2", "--http", "--http-port", "0")
    with running_server(model, *flags) as server, kit.events(server.ops) as events:
        shown = kit.first(events, "models")
        assert [each["name"] for each in shown["models"]] == ["identity"]
        calls = 40
        for _ in range(calls):  # each on a connection of its own, to either process
            answer = kit.call(server.ops, "model=identity", {"x": [1, 2, 3]})
            assert (answer.status, answer.text) == (200, '{"y":[1.0,2.0,3.0]}')
        kit.call(server.ops, "model=identity", {"x": [1, 2]})
        seen: dict[str, Any] = {"errors": []}
        while not seen["errors"] or seen["figures"]["models"][0]["answered"] < calls:
            name, data = next(events)
            seen[name] = data
        errors, figures = seen["errors"], seen["figures"]
        assert figures["processes"] == 2
        assert (errors[0]["model"], errors[0]["code"]) == ("identity", "INVALID_ARGUMENT")
        os.kill(children(server.pid)[0], signal.SIGKILL)
        errors = kit.first(events, "errors")
        while errors[0]["code"] != "PROCESS_ENDED":
            errors = kit.first(events, "errors")
        assert errors[0]["text"].endswith("signal SIGKILL")
        while figures["processes"] < 2 or not figures["restarts"]:  # another has taken its place
            figures = kit.first(events, "figures")
