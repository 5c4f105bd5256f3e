"""The command under "Try it" works for every model that can run: a shell runs it against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from penstock.backends.onnx import OnnxBackend
from penstock.config import Config
from penstock.core.tensors import DataType
from penstock.models.model import Model
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.summary import Facts, summary
from support import lengths, zoo
from support.servers import RunningServer, running_server
from support.work import Tally

STAND_IN = f'''#!{sys.executable}
"""Takes what grpcurl takes of the command to try, and sends it."""
import sys
import grpc
from google.protobuf import json_format
from penstock_proto.v1 import model_pb2, prediction_pb2 as pb
flag, *rest = sys.argv[1:]
assert flag == "-plaintext"
if rest[0] != "-d":
    print("LISTED")
    sys.exit()
data = sys.stdin.read() if rest[1] == "@" else rest[1]
request = json_format.Parse(data, pb.PredictRequest())
address, method = rest[2:]
with grpc.insecure_channel(address) as channel:
    codec = pb.PredictRequest.SerializeToString, pb.PredictResponse.FromString
    call = channel.unary_unary("/" + method, *codec)
    answer = call(request, timeout=20)
print(answer.model, sorted(answer.outputs))
'''


def fails_below(length: int) -> onnx.ModelProto:
    """x FP32 [N, L]; a window of that length is taken from each row, so shorter ones cannot run."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", axis])
        for name, axis in (("x", "L"), ("y", "M"))
    )
    nodes = [
        helper.make_node("Unsqueeze", ["x", "one"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[length]),
        helper.make_node("Squeeze", ["b", "one"], ["y"]),
    ]
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], [one]),
        opset_imports=[helper.make_opsetid("", zoo.OPSET)],
        ir_version=zoo.IR_VERSION,
    )


MODELS: Mapping[str, onnx.ModelProto] = {
    "longer": fails_below(10),
    "it's": zoo.scale(2),
    "two words": zoo.scale(2, ("N", 40)),
    "image": zoo.scale(2, ("N", 3, 80, 80)),
    "text": zoo.identity(DataType.BYTES, ("N", 30)),
    "brains": zoo.identity(DataType.BF16, ("N", 2)),
    "flags": zoo.identity(DataType.BOOL, ("N", 20)),
    "eighths": zoo.identity(DataType.FP8E4M3FN, ("N", 3)),
    "any_rank": zoo.rank_unknown(),
    "scalar": zoo.scalar(),
    "constant": zoo.constant(),
    "divided": zoo.divided(),
    "at_a_rate": lengths.at_a_rate(),
    "real": zoo.two_open_axes(),
}
SETTINGS = {
    "at_a_rate": "[sample]\nshapes = { audio = [1, 576] }\nvalues = { rate = 16000 }\n",
    "real": "[sample]\nfile = 'requests.jsonl'\n",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = zoo.repository(tmp_path_factory.mktemp("models"), MODELS)
    for name, text in SETTINGS.items():
        (root / name / "model.toml").write_text(text)
    (root / "real/requests.jsonl").write_text('{"x": [0.1, -2.5, "nan", 1e-30]}\n{"x": [1, 2, 3, 4]}\n')
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[RunningServer]:
    with running_server(root) as running:
        yield running


@pytest.fixture(scope="module")
def models(root: Path) -> Mapping[str, Model]:
    registry = ModelRegistry(Config(), OnnxBackend, lambda model: Tally())
    registry.load_all(scan(root), lambda model: None)
    return {model.name: model for model in registry.all()}


def line(models: Sequence[Model], target: str) -> str:
    text = summary(models, Facts(target, "ops", "reactor", "1"))
    return text.splitlines()[-1].strip()


def run(command: str, folder: Path, shell: str = "sh") -> str:
    (folder / "grpcurl").write_text(STAND_IN)
    (folder / "grpcurl").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [shell, "-c", command],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", MODELS)
def test_the_command_of_every_model_works(
    name: str, server: RunningServer, models: Mapping[str, Model], tmp_path: Path
) -> None:
    command = line([models[name]], server.target)
    assert "PredictionService/Predict" in command
    assert len(command) < 2000
    assert run(command, tmp_path).startswith(f"{name} [")


def test_the_command_that_is_printed_works(server: RunningServer, tmp_path: Path) -> None:
    command = server.stdout.rpartition("Try it:\n")[2].strip()
    assert " [" in run(command, tmp_path)


def test_the_model_with_the_shortest_command_is_shown(models: Mapping[str, Model]) -> None:
    assert '"model": "brains"' in line([models["image"], models["two words"], models["brains"]], "host:1")
    assert '"model": "two words"' in line([models["image"], models["two words"]], "host:1")


def test_of_such_the_one_with_real_rows_is_shown(models: Mapping[str, Model]) -> None:
    brains, real = models["brains"], models["real"]
    assert '"model": "brains"' in line([brains, real], "host:1")
    golden, real.golden = real.golden, "2 rows: no labels differ, largest 0"
    try:
        assert '"model": "real"' in line([brains, real], "host:1")
        real.is_default = False
        assert '"model": "brains"' in line([brains, real], "host:1")
    finally:
        real.golden, real.is_default = golden, True


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("Büro", "utf-8", '"Büro"'),
        ("Büro", "ascii", r'"B\u00fcro"'),
        ("Büro", None, r'"B\u00fcro"'),
        ("\x9b31m", "utf-8", r'"\u009b31m"'),  # a terminal would take it for a command
        ("\ud800", "utf-8", r'"\ud800"'),
    ],
)
def test_texts_are_shown_as_people_write_them(
    models: Mapping[str, Model], monkeypatch: pytest.MonkeyPatch, text: str, encoding: str, shown: str
) -> None:
    model = models["text"]
    monkeypatch.setattr(model, "example", {"x": np.array([[text, *"a" * 29]], object)})
    monkeypatch.setattr("sys.stdout", SimpleNamespace(encoding=encoding))
    assert f'{{"string_values": [{shown}, ' in line([model], "host:1")


@pytest.mark.parametrize(
    ("has_docs", "said"), [(False, "/openapi.json /health"), (True, "/openapi.json /docs ")]
)
def test_the_page_of_the_api_is_named_where_it_is_installed(has_docs: bool, said: str) -> None:
    facts = Facts("grpc", "ops", "reactor", "1", http_address="http", has_docs=has_docs)
    assert said in summary([], facts)


def test_many_values_come_through_a_pipe(models: Mapping[str, Model]) -> None:
    command = line([models["image"]], "host:1")
    assert command.startswith("printf %s ")
    assert "head -n 19200" in command


def test_real_requests_are_shown_as_they_are(models: Mapping[str, Model]) -> None:
    assert '"float_values": [0.1, -2.5, "NaN", 1e-30]' in line([models["real"]], "host:1")


def test_a_model_that_never_ran_is_not_shown(models: Mapping[str, Model]) -> None:
    model = models["brains"]
    example, model.example = model.example, {}
    try:
        assert line([model], "host:1") == "grpcurl -plaintext host:1 penstock.v1.ModelService/ListModels"
    finally:
        model.example = example
