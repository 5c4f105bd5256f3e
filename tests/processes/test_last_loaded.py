"""A process that starts again after a crash loads what the others serve, whatever is on the disk now."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock_proto.v1 import model_pb2 as pb
from penstock_proto.v1 import model_pb2_grpc
from processes.conftest import SHORT_LIVED, TWO
from processes.kit import children
from server import kit
from support import zoo
from support.servers import RunningServer, running_server

LABELS = "labels = {good = 1}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    models = {
        "kept": {1: zoo.scale(1.0), 2: zoo.scale(2.0)},
        "overwritten": {1: zoo.scale(1.0), 2: zoo.scale(2.0)},
        "removed": zoo.identity(),
    }
    path = zoo.repository(tmp_path, models)
    (path / "kept/model.toml").write_text(LABELS)
    return path


def change(path: Path) -> None:
    """Makes a mess of the repository: a start from it would fail."""
    (path / "overwritten/2/model.onnx").write_bytes(b"no model at all")
    shutil.rmtree(path / "removed")
    zoo.write(zoo.identity(), path / "added/1/model.onnx")
    zoo.write(zoo.scale(3.0), path / "kept/3/model.onnx")
    (path / "kept/model.toml").write_text("labels = {good = 4}\nno_such_setting = 1\n")


def crash(server: RunningServer, *workers: int) -> None:
    """Kills these processes and waits for those that take their places."""
    were_ready = ready(server)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    kit.wait_until(lambda: ready(server) == were_ready + len(workers), "others are ready")


def ready(server: RunningServer) -> int:
    return sum('"process ready"' in line for line in server.stderr)


def answers(server: RunningServer, *asked: tuple[str, str]) -> dict[tuple[str, str], set[object]]:
    """What twenty connections get for each of these models and versions: a factor, or a status code."""
    seen: dict[tuple[str, str], set[object]] = {each: set() for each in asked}
    for _ in range(20):
        with kit.connect(server.target) as channel:
            for name, version in asked:
                request = kit.request(name, version=version, x=kit.rows(1))
                try:
                    answer = kit.stub_of(channel).Predict(request, timeout=kit.BOUND)
                    seen[name, version].add(int(kit.array_of(answer.outputs["y"]).flat[0]))
                except grpc.RpcError as error:
                    seen[name, version].add(error.code().name)
    return seen


def test_crashed_processes_load_what_they_had_and_a_restart_what_is_there(path: Path) -> None:
    with running_server(path, *TWO, env=SHORT_LIVED) as server:
        change(path)
        crash(server, *children(server.pid))
        asked = [("kept", ""), ("kept", "good"), ("kept", "3"), ("overwritten", ""), ("overwritten", "1")]
        assert answers(server, *asked, ("removed", ""), ("added", "")) == {
            ("kept", ""): {2},
            ("kept", "good"): {1},
            ("kept", "3"): {"NOT_FOUND"},
            ("overwritten", ""): {"UNAVAILABLE"},
            ("overwritten", "1"): {1},
            ("removed", ""): {"UNAVAILABLE"},
            ("added", ""): {"NOT_FOUND"},
        }
        broken = reasons(server)
        assert "removed/1/model.onnx cannot be loaded: it is not there" in broken["removed"]
        assert "overwritten/2/model.onnx cannot be loaded" in broken["overwritten"]
        said = Counter(each["event"] for each in kit.logged(server))
        assert said["model is not served"] == 4
        assert said["a process cannot start"] == 0

        zoo.write(zoo.scale(4.0), path / "overwritten/2/model.onnx")
        (path / "kept/model.toml").write_text(LABELS)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("all processes are restarted", 40)
        shutil.rmtree(path / "kept/3")
        crash(server, *children(server.pid)[:1])
        asked = [("kept", "2"), ("kept", "3"), ("overwritten", ""), ("removed", ""), ("added", "")]
        assert answers(server, *asked) == {
            ("kept", "2"): {2},
            ("kept", "3"): {3, "UNAVAILABLE"},  # one of the processes still has it
            ("overwritten", ""): {4},
            ("removed", ""): {"NOT_FOUND"},
            ("added", ""): {1},
        }


def reasons(server: RunningServer) -> dict[str, str]:
    """Why versions are not served, by model."""
    with kit.connect(server.target) as channel:
        models: Any = model_pb2_grpc.ModelServiceStub(channel)
        listed = models.ListModels(pb.ListModelsRequest(), timeout=kit.BOUND).models
    return {each.name: each.state_reason for each in listed if each.state == pb.FAILED}
