"""A restart under plain grpcio callers that only let gRPC retry UNAVAILABLE: none of their calls fails."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import grpc

from server import kit
from support import zoo
from support.servers import RunningServer

RETRY = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
RETRIES = json.dumps({"methodConfig": [{"name": [{}], "waitForReady": True, "retryPolicy": RETRY}]})
LINGER = {"PENSTOCK_SERVER__LINGER_SECONDS": "0.2"}
CALLERS = 4


def test_a_restart_loses_no_call(tmp_path: Path) -> None:
    path = zoo.repository(tmp_path, {"identity": zoo.identity()})
    server, over = RunningServer(path, env=LINGER), threading.Event()
    failed: list[grpc.RpcError] = []
    answered = [0] * CALLERS

    def call(number: int) -> None:
        with kit.connect(target, ("grpc.service_config", RETRIES)) as channel:
            while not over.is_set():
                try:
                    kit.stub_of(channel).Predict(kit.request("identity", x=kit.rows(1)), timeout=kit.BOUND)
                    answered[number] += 1
                except grpc.RpcError as error:
                    failed.append(error)

    def all_go_on() -> None:
        before = list(answered)
        kit.wait_until(
            lambda: all(now > then + 1 for now, then in zip(answered, before, strict=True)), "calls"
        )

    try:
        server.wait_until_ready()
        target = server.target
        callers = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
        for each in callers:
            each.start()
        try:
            all_go_on()
            assert server.stop() == 0
            server.close()
            server = RunningServer(path, "--port", target.rpartition(":")[2])
            server.wait_until_ready()
            all_go_on()
        finally:
            over.set()
            for each in callers:
                each.join(kit.BOUND)
    finally:
        server.close()
    assert failed == []
