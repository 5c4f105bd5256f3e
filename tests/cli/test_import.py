"""`penstock import`: from a joblib file and a table to a version that a server serves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

if TYPE_CHECKING:
    from conftest import Cli


@cache
def fitted() -> tuple[pd.DataFrame, Any]:
    """A table, and a pipeline that is fitted on it once for all tests."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": range(80),
            "source": np.where(random.random(80) < 0.2, None, random.choice(["ads", "café"], 80)),
            "income": np.where(random.random(80) < 0.2, np.nan, random.normal(5e4, 9e3, 80)),
        }
    )
    frame["converted"] = (frame["income"].fillna(0) > 5e4).astype(int)
    names = ["source", "income"]
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(
        ColumnTransformer([("source", encoder, ["source"]), ("income", SimpleImputer(), ["income"])]),
        LogisticRegression(max_iter=1000),
    )
    return frame, model.fit(frame[names], frame["converted"])


class Trained:
    """A pipeline in a file, and its table."""

    def __init__(self, folder: Path) -> None:
        self.frame, self.model = fitted()
        self.path, self.sample = folder / "pipeline.joblib", folder / "leads.csv"
        joblib.dump(self.model, self.path)
        self.frame.to_csv(self.sample, index=False)


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return Trained(tmp_path)


def test_from_a_joblib_file_to_a_version(trained: Trained, tmp_path: Path, cli: Cli) -> None:
    """That it is served is in tests/importing/test_page.py."""
    folder = tmp_path / "models/leads"
    (folder / "7").mkdir(parents=True)
    ran = cli(
        "import", trained.path, "--sample", trained.sample, "--target", "converted", "--to", folder, "--yes"
    )
    assert ran.code == 0, ran.err
    assert {each.name for each in folder.iterdir()} == {"7", "8"}
    names = {each.name for each in (folder / "8").iterdir()}
    assert names == {"model.onnx", "golden.jsonl", "profile.json", "version.toml"}
    assert "no inputs  id (columns that the model does not take)" in ran.out
    assert "\n  classes    0, 1 (the order of probabilities)\n" in ran.out
    assert tomllib.loads((folder / "8/version.toml").read_text())["model"]["classes"] == [0, 1]
    assert "print(dict(Client(" in ran.out  # the repr of a prediction has no values
    body = re.search(r"-d '(\{.*?\})'\n", ran.out)
    assert body is not None
    expected = json.loads(ran.out.rpartition("which gives ")[2])
    row = {each: json.loads(body[1])[each] for each in ("source", "income")}
    wanted = trained.model.predict_proba(pd.DataFrame([row]))[0]
    assert expected["probabilities"] == pytest.approx(wanted, abs=1e-4)
    assert cli("check", folder / "8").code == 0


def test_a_pickle_is_not_loaded_unasked(trained: Trained, tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("penstock"), "import", trained.path, "--sample", trained.sample]
    ran = subprocess.run(
        [*command, "--to", tmp_path / "models/leads"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "loading it runs code that is in it, as you. If you trust the file, add --yes" in ran.stderr
    assert not (tmp_path / "models").exists()


def test_a_refusal_leaves_nothing(trained: Trained, tmp_path: Path, cli: Cli) -> None:
    folder = tmp_path / "models/leads"
    ran = cli("import", trained.path, "--sample", trained.sample, "--to", folder, "--yes", "--tolerance", "0")
    assert ran.code == 1
    assert "is not imported: on the sample the ONNX file differs from the original: 80 rows: " in ran.err
    assert not folder.exists()


def test_columns_keep_their_names(trained: Trained, tmp_path: Path, cli: Cli) -> None:
    """Also those that skl2onnx changes, and those that it changes to names which others have."""
    names = ["support calls", "a b", "a-b", "a_b", "2nd", "größe (cm)", "client's share"]
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, len(names))), columns=names)
    columns = ColumnTransformer([("first", "passthrough", names[:3]), ("other", SimpleImputer(), names[3:])])
    model = make_pipeline(columns, LinearRegression()).fit(frame, frame @ np.arange(1.0, 8.0))
    joblib.dump(model, trained.path)
    frame.to_csv(trained.sample, index=False)
    ran = cli("import", trained.path, "--sample", trained.sample, "--to", tmp_path / "m/x", "--yes")
    assert ran.code == 0, ran.err
    assert "inputs     " + ", ".join(f"{name} FP32[batch,1]" for name in names) in ran.out


def test_a_large_tolerance_is_a_warning(trained: Trained, tmp_path: Path, cli: Cli) -> None:
    """One number of the sample has more digits than FP32."""
    frame = pd.DataFrame({"x": [16777216.0, 16777217.0] * 20, "z": range(40)})
    model = make_pipeline(ColumnTransformer([("x", "passthrough", ["x"])]), LinearRegression())
    joblib.dump(model.fit(frame, frame["x"] * 1000 % 16777216000), trained.path)
    frame.to_csv(trained.sample, index=False)
    flags = ("--sample", trained.sample, "--to", tmp_path / "m/x", "--yes", "--leave-out", "extremes")
    assert cli("import", trained.path, *flags).code == 1
    ran = cli("import", trained.path, *flags, "--tolerance", "1")
    assert ran.code == 0, ran.err
    assert "warning    outputs differ by up to " in ran.out


def test_a_process_that_ends_says_how(tmp_path: Path, cli: Cli) -> None:
    class Ends:
        def __reduce__(self) -> tuple[object, ...]:
            import os

            return (os._exit, (3,))

    import pickle

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Ends()))
    (tmp_path / "rows.csv").write_text("a\n1\n")
    ran = cli(
        "import", tmp_path / "model.pkl", "--sample", tmp_path / "rows.csv", "--to", tmp_path / "m", "--yes"
    )
    assert ran.code == 1
    assert "ended with status 3" in ran.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "model.keras",
            "needs the module keras, which is not installed here: pip install 'keras' 'tensorflow'",
        ),
        ("model.xyz", "not known as a model"),
        ("weights.pt", "has weights or pickled classes, but no graph"),
        ("nothing.joblib", "there is no such file"),
    ],
)
def test_files_that_are_not_imported(tmp_path: Path, cli: Cli, name: str, said: str) -> None:
    if name != "nothing.joblib":
        (tmp_path / name).write_bytes(b"PK")
    (tmp_path / "rows.csv").write_text("a\n1\n")
    flags = ("--sample", tmp_path / "rows.csv", "--to", tmp_path / "m", "--yes")
    ran = cli("import", tmp_path / name, *flags)
    assert ran.code == 1
    assert said in ran.err


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{}", "its config.json names no architecture"),
        ("[]", "its config.json cannot be read"),
        ('{"architectures": ["GPT2LMHeadModel"]}', "GPT2LMHeadModel generates token by token"),
        ('{"architectures": ["T5Model"], "is_encoder_decoder": true}', "T5Model generates token by token"),
        ('{"architectures": ["Own"], "auto_map": {"AutoModel": "own.Own"}}', "Own is code in the folder"),
    ],
)
def test_folders_of_hugging_face_that_are_not_imported(
    tmp_path: Path, cli: Cli, config: str, said: str
) -> None:
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (tmp_path / "rows.csv").write_text("a\n1\n")
    ran = cli("import", folder, "--sample", tmp_path / "rows.csv", "--to", tmp_path / "m")
    assert ran.code == 1
    assert said in ran.err
    (folder / "model.onnx").write_bytes(b"")
    ran = cli("import", folder, "--sample", tmp_path / "rows.csv", "--to", tmp_path / "m")
    assert f"{folder} has an ONNX file already: penstock serve {folder}" in ran.err


def test_an_onnx_file_gets_golden_rows(models: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "rows.csv").write_text("text\nÜber\n\n")
    file = models / "text/1/model.onnx"
    names = [each.name for each in __import__("onnx").load(file).graph.input]
    (tmp_path / "rows.csv").write_text(f"{names[0]}\nÜber\nplain\n")
    ran = cli("import", file, "--sample", tmp_path / "rows.csv", "--to", tmp_path / "m/text")
    assert ran.code == 0, ran.err
    assert "no original to compare with" in ran.out
    assert cli("check", tmp_path / "m/text").code == 0


def test_progress_is_shown_on_a_terminal_only(trained: Trained, tmp_path: Path) -> None:
    words = ["import", trained.path, "--sample", trained.sample, "--target", "converted", "--yes"]
    command = [Path(sys.executable).with_name("penstock"), *words, "--to", tmp_path / "models/leads"]
    terminal, end = os.openpty()
    run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=end)
    os.close(end)
    shown = b""
    with suppress(OSError):  # the end of a terminal
        while some := os.read(terminal, 4096):
            shown += some
    os.close(terminal)
    assert run.wait(60) == 0
    for said in ("reading leads.csv", "converting scikit-learn Pipeline", "comparing 80 rows"):
        assert said in shown.decode()
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert ran.stderr == ""


@pytest.mark.parametrize(
    ("value", "typed"),
    [
        (1.5, {"float_values": [1.5]}),
        ([1.5, 2.0], {"float_values": [1.5, 2.0]}),
        ([5, 6, 7], {"shape": [1, 3], "int_values": [5, 6, 7]}),
        ([[1.0, 2.0], [3.0, "NaN"]], {"shape": [1, 2, 2], "float_values": [1.0, 2.0, 3.0, "NaN"]}),
        ("NaN", {"float_values": ["NaN"]}),
        ("Oslo", {"string_values": ["Oslo"]}),
        (True, {"bool_values": [True]}),
    ],
)
def test_values_of_the_call_that_is_shown(value: object, typed: dict[str, object]) -> None:
    from penstock.cli.import_model import _typed

    assert _typed(value) == typed
