"""SIGHUP: new processes take the places of the old ones, and no caller notices."""

from __future__ import annotations

import signal

import pytest

from processes.kit import Load, children
from server import kit
from support import zoo
from support.servers import running_server


@pytest.mark.parametrize("road", kit.ROADS)
def test_a_roll_under_load_refuses_and_loses_nothing(tmp_path, road) -> None:
    path = zoo.repository(tmp_path, {"identity": zoo.identity()})
    env = {"PENSTOCK_SERVER__CONNECTION_SECONDS": "1"}
    with running_server(path, "--processes", "2", "--transport", road, env=env) as server:
        before = children(server.pid)
        load = Load(server.target)
        with load.on(Load.unary, Load.unary, Load.connecting, Load.streams):
            kit.wait_until(lambda: load.codes["unary", "OK"] > 100, "the load is on")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log("all processes are restarted", 40)
            after = children(server.pid)
        seen = kit.metric(server.ops, "requests_total", code="OK")
    assert set(before).isdisjoint(after)
    assert len(after) == len(before) == 2
    assert {code for _, code, *_ in load.codes} == {"OK"}, load.codes
    answered = load.codes["unary", "OK"] + load.codes["connecting", "OK"] + 20 * load.codes["streams", "OK"]
    assert seen == answered
    assert kit.problems(server) == []
    print(load.codes)
