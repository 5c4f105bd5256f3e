"""`penstock import` of tables whose texts pandas reads as missing values: every command gives the same."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from penstock.importing.table import NA_TEXTS

if TYPE_CHECKING:
    from conftest import Cli

REGIONS = ("EU", "US", "N/A", "None", "", "null")


class Tickets:
    """A table with such texts, and a pipeline that was trained on what `pandas.read_csv` makes of it."""

    def __init__(self, folder: Path, **read: Any) -> None:
        self.sample, self.path = folder / "tickets.csv", folder / "model.joblib"
        rows = [(REGIONS[i % 6], i % 7, int(i % 6 > 1) ^ int(i % 7 > 4)) for i in range(90)]
        with self.sample.open("w", newline="") as file:
            csv.writer(file).writerows([("region", "seats", "y"), *rows])
        frame = pd.read_csv(self.sample, **read)
        categories = make_pipeline(
            SimpleImputer(strategy="constant", fill_value="missing"), OneHotEncoder(handle_unknown="ignore")
        )
        self.model = make_pipeline(
            ColumnTransformer([("r", categories, ["region"]), ("s", "passthrough", ["seats"])]),
            DecisionTreeClassifier(random_state=0),
        ).fit(frame[["region", "seats"]], frame["y"])
        self.expected = self.model.predict_proba(frame[["region", "seats"]])[:, 1].tolist()
        joblib.dump(self.model, self.path)

    def flags(self, folder: Path, *more: str) -> Sequence[object]:
        return (
            *("import", self.path, "--sample", self.sample, "--target", "y", "--to", folder, "--yes"),
            *more,
        )


def scored(cli: Cli, folder: Path, rows: Path) -> list[float]:
    """The probabilities that `penstock score` gives."""
    out = folder / "scored.csv"
    ran = cli("score", rows, "--model", folder / "1/model.onnx", "-o", out)
    assert ran.code == 0, ran.err
    return [float(each["probabilities.1"]) for each in csv.DictReader(io.StringIO(out.read_text()))]


def golden(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "1/golden.jsonl").read_text().splitlines()[1:]]


def test_texts_that_pandas_takes_as_missing_are_asked_for(tmp_path: Path, cli: Cli) -> None:
    ran = cli(*Tickets(tmp_path).flags(tmp_path / "m/tickets"))
    assert ran.code == 1
    assert 'column "region": N/A (15 rows), None (15 rows), null (15 rows)' in ran.err
    assert "--na missing" in ran.err
    assert "--na text" in ran.err
    assert not (tmp_path / "m/tickets").exists()


def test_as_missing_every_client_gets_what_the_original_gives(tmp_path: Path, cli: Cli) -> None:
    tickets, folder = Tickets(tmp_path), tmp_path / "m/tickets"
    ran = cli(*tickets.flags(folder, "--na", "missing"))
    assert ran.code == 0, ran.err
    assert [each["region"] for each in golden(folder)[:6]] == list(REGIONS)
    assert scored(cli, folder, tickets.sample) == pytest.approx(tickets.expected, abs=1e-6)
    assert cli("check", folder).code == 0


def test_as_texts_they_are_categories_like_others(tmp_path: Path, cli: Cli) -> None:
    tickets, folder = Tickets(tmp_path, keep_default_na=False), tmp_path / "m/tickets"
    tickets.sample.write_text(tickets.sample.read_text().replace("\n,", "\nEU,"))  # no empty cells
    frame = pd.read_csv(tickets.sample, keep_default_na=False)
    ran = cli(*tickets.flags(folder, "--na", "text"))
    assert ran.code == 0, ran.err
    expected = tickets.model.predict_proba(frame[["region", "seats"]])[:, 1].tolist()
    assert scored(cli, folder, tickets.sample) == pytest.approx(expected, abs=1e-6)


def test_a_column_of_booleans_is_an_input_of_booleans(tmp_path: Path, cli: Cli) -> None:
    frame = pd.DataFrame({"seats": range(60), "is_trial": [i % 3 == 0 for i in range(60)]})
    model = DecisionTreeClassifier(random_state=0).fit(frame, (frame.seats > 30) ^ frame.is_trial)
    joblib.dump(model, tmp_path / "model.joblib")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    folder = tmp_path / "m/trial"
    flags = ("--sample", tmp_path / "rows.csv", "--to", folder, "--yes")
    ran = cli("import", tmp_path / "model.joblib", *flags)
    assert ran.code == 0, ran.err
    assert "is_trial BOOL[batch,1]" in ran.out
    assert '"bool_values": [true]' in ran.out
    assert '"is_trial": True}))' in ran.out
    assert golden(folder)[0] == {"seats": 0.0, "is_trial": True, "label": 1, "probabilities": [0.0, 1.0]}
    assert scored(cli, folder, tmp_path / "rows.csv") == model.predict_proba(frame)[:, 1].tolist()
    expected = tmp_path / "expected.csv"
    expected.write_text("label\n" + "".join(f"{int(each)}\n" for each in model.predict(frame)))
    ran = cli("check", folder, "--rows", tmp_path / "rows.csv", "--expect", expected)
    assert ran.out == "60 rows: no labels differ\n"
    wide = cli("import", tmp_path / "model.joblib", *flags, "--as", "vector")
    assert "x FP32[batch,2]" in wide.out
    file = cli("import", folder / "1/model.onnx", *flags)
    assert file.code == 0, file.err


def test_texts_that_are_no_inputs_are_not_asked_for(tmp_path: Path, cli: Cli) -> None:
    tickets = Tickets(tmp_path)
    frame = pd.read_csv(tickets.sample)[["region", "seats", "y"]].dropna()
    frame.assign(note="None").to_csv(tickets.sample, index=False)
    ran = cli(*tickets.flags(tmp_path / "m/tickets"))
    assert ran.code == 0, ran.err
    assert "no inputs  note" in ran.out


def test_an_onnx_file_is_taken_as_it_is(models: Path, tmp_path: Path, cli: Cli) -> None:
    file = models / "text/1/model.onnx"
    name = __import__("onnx").load(file).graph.input[0].name
    (tmp_path / "rows.csv").write_text(f"{name}\nN/A\nplain\n")
    flags = ("import", file, "--sample", tmp_path / "rows.csv", "--to", tmp_path / "m/text")
    assert "an ONNX file is taken as it is" in cli(*flags, "--na", "missing").err
    assert cli(*flags).code == 0
    assert golden(tmp_path / "m/text")[0][name] == "N/A"


def test_the_texts_are_those_of_pandas() -> None:
    texts = ["a", *NA_TEXTS, "N/a", "none", "NAN"]
    read = pd.read_csv(io.StringIO("".join(f'"{each}",\n' for each in texts)), header=None)[0]
    assert read[read.isna()].index.tolist() == list(range(1, len(NA_TEXTS) + 1))
    from pandas._libs.parsers import STR_NA_VALUES

    assert set(NA_TEXTS) == STR_NA_VALUES - {""}
