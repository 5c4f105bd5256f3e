"""What `penstock serve` prints, and `penstock models`: the line to try a model with works as it stands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import onnx
import pytest

from penstock.config.toml import toml_value
from penstock.core.tensors import DataType
from server import kit
from support import lengths, zoo
from support.by_hand import tried
from support.servers import SCRIPT, running_server

AT_A_RATE = "[sample]\nshapes = { audio = [1, 576] }\nvalues = { rate = 16000 }\n"


def serving(folder: Path, model: onnx.ModelProto, settings: str = "") -> Any:
    root = zoo.repository(folder / "models", {"m": model})
    (root / "m" / "model.toml").write_text(settings)
    return running_server(root, "--transport", "reactor")


def test_the_line_to_try_holds_what_model_toml_says_of_requests(tmp_path: Path) -> None:
    with serving(tmp_path, lengths.at_a_rate(), AT_A_RATE) as server:
        assert "    batched    up to " in server.stdout
        assert '"$(yes 0.5 | head -n 576 | paste -sd, -)"' in server.stdout
        assert '"shape": [1, 576]' in server.stdout
        assert '"rate": {"int_values": [16000]}' in server.stdout
        assert tried(server, tmp_path)["y"]["floatValues"] == [0.5]


@pytest.mark.parametrize(
    ("datatype", "value", "given"),
    [
        (DataType.FP32, -2, -2.0),
        (DataType.BF16, 0.25, 0.25),
        (DataType.INT64, -2.0, "-2"),
        (DataType.BOOL, 0, False),
        (DataType.BYTES, r"""it's "$HOME" \ $(text)""", r"""it's "$HOME" \ $(text)"""),
    ],
)
@pytest.mark.parametrize("size", [2, 20])
def test_values_of_every_kind_survive_the_shell(
    datatype: DataType, value: Any, given: Any, size: int, tmp_path: Path
) -> None:
    settings = f"[sample]\nvalues = {{ x = {toml_value(value)} }}\n"
    with serving(tmp_path, zoo.identity(datatype, ("N", size)), settings) as server:
        (found,) = (each for name, each in tried(server, tmp_path)["y"].items() if name.endswith("Values"))
    assert found == [given] * size


def test_a_model_whose_request_is_short_is_tried_first(tmp_path: Path) -> None:
    zoo.repository(tmp_path / "models", {"a": zoo.identity(shape=("N", 500)), "b": zoo.add()})
    with running_server(tmp_path / "models", "--transport", "reactor") as server:
        assert '"model": "b"' in server.stdout
    shutil.rmtree(tmp_path / "models" / "b")
    with running_server(tmp_path / "models", "--transport", "reactor") as server:
        assert '"model": "a"' in server.stdout
        assert len(tried(server, tmp_path)["y"]["floatValues"]) == 500


def test_where_all_requests_are_too_long_the_models_are_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path, zoo.identity(shape=("N", 3, 640, 640))) as server:
        assert server.stdout.rstrip().endswith("penstock.v1.ModelService/ListModels")


def test_inputs_that_may_be_left_out_are_marked_and_not_sent(tmp_path: Path) -> None:
    settings = '[padding]\naxes = { input_ids = 1 }\nmask = "attention_mask"\nbuckets = [8]\n'
    inputs = "inputs     input_ids INT64[N,L], attention_mask INT64[N,L] (optional)\n"
    with serving(tmp_path, lengths.masked_mean(), settings) as server:
        assert inputs in server.stdout
        assert '"attention_mask"' not in server.stdout
        assert len(tried(server, tmp_path)["y"]["floatValues"]) == lengths.WIDTH
        command = [str(SCRIPT), "models", server.target]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=kit.BOUND, check=True).stdout
        assert inputs in listed
