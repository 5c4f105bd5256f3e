"""Folders of Hugging Face: where `make importing-torch` has installed Transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from importing.data import table
from importing.networks import write
from importing.outcomes import job
from penstock.importing import child

pytest.importorskip("transformers", reason="Transformers is not installed here: make importing-torch")
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small classifier of texts, in its folder."""
    from importing.networks_transformers import CASES

    (case,) = [each for each in CASES if each.name == "BertForSequenceClassification, three classes"]
    return case.make(tmp_path_factory.mktemp("network"))


def imported(network: Any, frame: Any, folder: Path, **changes: Any) -> dict[str, Any]:
    return child.run({**job(network.path, write(frame, folder), folder), **changes})


def test_texts_become_tokens_of_any_number(network: Any, tmp_path: Path) -> None:
    report = imported(network, table(30, 1)[["note"]], tmp_path)
    assert "refused" not in report, report["refused"]
    assert [each.partition(" ")[0] for each in report["inputs"]] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ]
    assert all(" INT64[batch," in each for each in report["inputs"])
    assert report["outputs"] == ["logits FP32[batch,3]"]
    rows = [json.loads(line) for line in (tmp_path / "golden.jsonl").read_text().splitlines()[1:]]
    lengths = {len(each["input_ids"]) for each in rows}
    assert {1, 2} < lengths
    session = ort.InferenceSession(tmp_path / "model.onnx")
    for rows_at_a_time, length in ((1, 1), (1, 40), (5, 7)):
        shape = (rows_at_a_time, length)
        feeds = {"input_ids": np.full(shape, 5), "attention_mask": np.ones(shape, np.int64)}
        feeds["token_type_ids"] = np.zeros(shape, np.int64)
        got = session.run(["logits"], feeds)[0]
        import pandas as pd

        frame = pd.DataFrame({name: list(each) for name, each in feeds.items()})
        assert np.abs(got - network.answer(frame)["logits"]).max() < 1e-4


def test_other_columns_than_texts_or_tokens(network: Any, tmp_path: Path) -> None:
    said = imported(network, table(9, 1)[["a", "c"]], tmp_path)["refused"]
    assert said == (
        "the sample lacks the column input_ids of lists of numbers, or one column of texts (two, for pairs "
        "of texts); it has a, c"
    )
    assert "--as vector takes" in imported(network, table(9, 1)[["note"]], tmp_path, vector=True)["refused"]
