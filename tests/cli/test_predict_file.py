"""`penstock predict --file`: rows of CSV and JSON Lines through a model and out again."""

from __future__ import annotations

import csv
import io
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from penstock.cli.predict import streaming
from penstock_client import Client
from support.servers import RunningServer, running_server

if TYPE_CHECKING:
    from conftest import Cli

LEADS = """\
id,lead_source,number_of_courses_viewed,annual_income
7,paid_ads,2,79276
8,organic,5,120000.5
"""


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def objects_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def through(predict: Cli, tmp_path: Path) -> Cli:
    """Writes a file, predicts its rows and expects what it says: `through(model, name, text, *flags)`."""

    def run(model: str, name: str, content: str | bytes, *flags: str | Path, code: int = 0) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        ran = predict(model, "--file", path, *flags)
        assert ran.code == code, ran.err
        assert bool(ran.err) == bool(code)
        return ran.out

    return run


def test_answers_stand_beside_the_rows(through: Cli, server: RunningServer) -> None:
    out = through("lead_scoring", "leads.csv", LEADS)
    header, *rows = csv.reader(io.StringIO(out))
    assert header == [
        *LEADS.splitlines()[0].split(","),
        "label",
        "probabilities.0",
        "probabilities.1",
        "error",
    ]
    assert [row[:4] for row in rows] == [line.split(",") for line in LEADS.splitlines()[1:]]
    inputs = {"lead_source": ["paid_ads", "organic"], "number_of_courses_viewed": [2, 5]}
    with Client(server.target) as client:
        expected = client.predict("lead_scoring", {**inputs, "annual_income": [79276, 120000.5]})
    assert [row[4] for row in rows] == [str(label) for label in expected["label"]]
    for row, probabilities in zip(rows, expected["probabilities"], strict=True):
        assert [float(cell) for cell in row[5:7]] == pytest.approx(probabilities, rel=1e-5)
        assert row[7] == ""


def test_json_lines(through: Cli) -> None:
    lines = '\n{"x": 5, "note": {"a": [1, null]}}\r\n\n  \n{"note": "ü", "x": [6]}'
    out = through("below_100", "rows.jsonl", lines)
    assert out == '{"x": 5, "note": {"a": [1, null]}, "y": 5}\n{"note": "ü", "x": [6], "y": 6}\n'


def test_order_is_kept_over_many_rows(through: Cli) -> None:
    values = [(i * 37) % 210 - 100 for i in range(3000)]
    out = through("below_100", "rows.csv", "x\n" + "\n".join(map(str, values)), code=1)
    rows = rows_of(out)
    assert [int(row["x"]) for row in rows] == values
    for row in rows:
        assert (row["y"], row["error"] != "") == ((row["x"], False) if int(row["x"]) < 100 else ("", True))


def test_a_bad_row_does_not_stop_the_file(predict: Cli, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('x,z\n1,a\nmany,b\n\n200,c\n4\n5,e,f\n6,"g\n')
    ran = predict("below_100", "--file", path)
    assert ran.code == 1
    assert ran.err == 'Error: 5 of 6 rows failed; see their column "error"\n'
    rows = rows_of(ran.out)
    assert [(row["x"], row["z"], row["y"]) for row in rows] == [
        ("1", "a", "1"),
        ("many", "b", ""),
        ("200", "c", ""),
        ("4", "", ""),
        ("5", "e", ""),
        ("", "", ""),
    ]
    errors = [row["error"] for row in rows]
    assert errors[:2] == ["", 'input "x": it is not a whole number; got "many", expected INT64[N,1]']
    assert "out of data bounds" in errors[2]
    assert errors[3:5] == [
        "it has 1 cells, but the header has 2",
        "it has 3 cells, but the header has 2",
    ]
    assert errors[5].startswith("it cannot be read: unexpected end of data")


def test_bad_lines_of_json(through: Cli) -> None:
    lines = '{"x": 1}\n{"x": \n[2]\n{"y": 3}\n{"x": [[1], [2]]}\n{"x": null}\n{"x": 2.5}\n{"x": 7}\n'
    out = objects_of(through("below_100", "rows.jsonl", lines, code=1))
    assert out[0] == {"x": 1, "y": 1}
    assert out[1]["line"] == '{"x": '
    assert out[1]["error"].startswith("it is not JSON: ")
    assert out[2] == {"line": [2], "error": "it is not a JSON object"}
    assert out[3] == {"y": 3, "error": 'no value for input "x" INT64[N,1]'}
    assert "it has 2 rows, expected one" in out[4]["error"]
    assert "is missing, and INT64 has no missing values: fill them in first" in out[5]["error"]
    assert "the value 2.5 at position 0 does not fit INT64" in out[6]["error"]
    assert out[7] == {"x": 7, "y": 7}


@pytest.mark.parametrize("bad", ["x\n1\n2\nbad\n4\n", "x\n1\n2\n100\n4\n"])
def test_fail_fast(predict: Cli, tmp_path: Path, bad: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(bad)
    ran = predict("below_100", "--file", path, "--fail-fast")
    assert ran.code == 1
    assert ran.err.startswith(f"Error: {path}: line 4: ")
    assert ran.err.count("\n") == 1
    assert ran.out == "x,y,error\n1,1,\n2,2,\n"


def test_a_byte_order_mark_and_carriage_returns(through: Cli) -> None:
    out = through("text", "rows.csv", b'\xef\xbb\xbfx,z\r\n"a\r\nb",1\r\n"say ""hi"", ok",2\r\n')
    assert out == 'x,z,y,error\n"a\r\nb",1,"a\r\nb",\n"say ""hi"", ok",2,"say ""hi"", ok",\n'


def test_bytes_that_are_not_utf8_pass_through(through: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    through("below_100", "rows.csv", b"x,name\n1,Andr\xe9\n", "-o", out)
    assert out.read_bytes() == b"x,name,y,error\n1,Andr\xe9,1,\n"
    assert "UTF-8" in through("text", "rows.csv", b"z,x\n1,Andr\xe9\n", "--format", "jsonl", code=1)


@pytest.mark.parametrize(
    ("name", "content", "out"),
    [
        ("rows.csv", "", ""),
        ("rows.csv", "\n\n", ""),
        ("rows.csv", "z,x", "z,x,y,error\n"),
        ("rows.csv", "\nz,x\n\n", "z,x,y,error\n"),
        ("rows.jsonl", "", ""),
        ("rows.jsonl", "\n \n", ""),
        ("rows", "", ""),
    ],
)
def test_nothing_to_do(predict: Cli, tmp_path: Path, name: str, content: str, out: str) -> None:
    """It is no failure, as with jq and csvkit, but it is said."""
    (tmp_path / name).write_text(content)
    ran = predict("below_100", "--file", tmp_path / name)
    assert (ran.code, ran.out) == (0, out)
    assert ran.err == f"{tmp_path / name} has no rows, so nothing was predicted\n"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("out.xlsx", ".xlsx cannot be written, only .csv, .tsv, .tab, .jsonl, .ndjson; with --format"),
        ("out.txt", ".txt cannot be written"),
        ("out.parquet", ".parquet cannot be written, only .csv, .tsv, .tab, .jsonl, .ndjson; with --format"),
        ("out.csv.gz", "the output is not compressed: name it out.csv"),
    ],
)
def test_an_ending_that_cannot_be_written_is_refused(
    predict: Cli, tmp_path: Path, name: str, why: str
) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / name
    rows.write_text("x\n1\n")
    ran = predict("below_100", "--file", rows, "-o", out)
    assert ran.code == 2
    assert f"{out}: {why}" in ran.err
    assert not out.exists()
    if not name.endswith(".gz"):
        assert predict("below_100", "--file", rows, "-o", out, "--format", "csv").code == 0
        assert out.read_text() == "x,y,error\n1,1,\n"


@pytest.mark.parametrize("name", ["out", "out.CSV"])
def test_a_name_without_an_ending_is_written_as_the_input(predict: Cli, tmp_path: Path, name: str) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / name
    rows.write_text("x\n1\n")
    assert predict("below_100", "--file", rows, "-o", out).code == 0
    assert out.read_text() == "x,y,error\n1,1,\n"


def test_cells_are_the_same_with_and_without_an_answer(through: Cli) -> None:
    """Rows with an answer had numbers, the others texts."""
    out = through("below_100", "rows.csv", "x,z\n1,007\n200,007\nabc,1\n", "--format", "jsonl", code=1)
    good, failed, unreadable = objects_of(out)
    assert good == {"x": 1, "z": "007", "y": 1}
    assert (failed["x"], failed["z"]) == (200, "007")
    assert (unreadable["x"], unreadable["z"]) == ("abc", "1"), "what is no number stays as it is"
    one = through("below_100", "rows.csv", "x\n200\n", "--format", "jsonl", code=1)
    assert objects_of(one)[0]["x"] == 200


def test_names_that_clash(through: Cli) -> None:
    out = through("below_100", "rows.csv", "x,y,y_answer,error\n1,a,b,c\n")
    assert out == "x,y,y_answer,error,y_answer_answer,error_answer\n1,a,b,c,1,\n"
    out = through("below_100", "rows.jsonl", '{"x": 1, "y": 2}\n{"x": 100, "error": 3}\n', code=1)
    first, second = objects_of(out)
    assert first == {"x": 1, "y": 2, "y_answer": 1}
    assert second["error"] == 3
    assert "out of data bounds" in second["error_answer"]
    out = through("lead_scoring", "c.csv", LEADS.replace("id", "probabilities.1").replace("7,", "p,"))
    assert "label,probabilities_answer.0,probabilities_answer.1,error" in out


def test_columns_need_not_be_unique(through: Cli) -> None:
    assert through("below_100", "rows.csv", "x,,\n1,a,b\n") == "x,,,y,error\n1,a,b,1,\n"


def test_vectors_in_columns_of_their_own(through: Cli) -> None:
    names = [f"x.{i}" for i in range(64)]
    out = through("mlp", "rows.csv", f"{','.join(names)}\n{','.join(['0.5'] * 64)}\n")
    (row,) = rows_of(out)
    as_list = through("mlp", "list.csv", f'x\n"{[0.5] * 64}"\n')
    (other,) = rows_of(as_list)
    for i in range(8):
        assert float(row[f"y.{i}"]) == pytest.approx(float(other[f"y.{i}"]), rel=1e-5, abs=1e-6)
    assert list(other) == ["x", *(f"y.{i}" for i in range(8)), "error"]


@pytest.mark.parametrize(
    ("model", "cell", "out"),
    [
        ("matrix", "[[1, 2], [3, 4]]", {"y": "[[1.0, 2.0], [3.0, 4.0]]"}),
        ("open", "[1, 2, 3]", {"y": "[2.0, 4.0, 6.0]"}),
        ("open", "4", {"y": "[8.0]"}),
        ("any_rank", "[1, 2]", {"y": "[2.0, 4.0]"}),
        ("scalar", "2", {"y": "4.0"}),
        ("vector", "[1, 2, 3, 4]", {"y.0": "2.0", "y.1": "4.0", "y.2": "6.0", "y.3": "8.0"}),
        ("one_row", "[1, 2, 3]", {"y.0": "2.0", "y.1": "4.0", "y.2": "6.0"}),
        ("words", '["a", "b"]', {"y.0": "a", "y.1": "b"}),
        ("text", "[1]", {"y": "[1]"}),
        ("flags", "TRUE", {"y": "true"}),
        ("halves", "nan", {"y": "NaN"}),
        ("halves", "0.1", {"y": "0.1"}),
        ("halves", "", {"y": "NaN"}),
        ("doubles", " ", {"y": "NaN"}),
        ("doubles", "<NA>", {"y": "NaN"}),
        ("doubles", "NaT", {"y": "NaN"}),
        ("text", "", {"y": ""}),
        ("bytes8", "2.0", {"y": "2"}),
        ("several", "[[1, 2, -3]]", {"double.2": "-6.0", "total": "0.0", "positive.0": "true"}),
    ],
)
def test_every_kind_of_value(
    through: Cli, tmp_path: Path, model: str, cell: str, out: dict[str, str]
) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["x"], [cell]])
    (row,) = rows_of(through(model, "rows.csv", buffer.getvalue()))
    assert row.items() >= {"x": cell, "error": "", **out}.items()


def test_columns_in_the_order_of_the_model_do_not_matter(through: Cli) -> None:
    out = through("triples", "rows.csv", "x.2,z,x.0,x.1\n3,?,1,2\n")
    assert out == "x.2,z,x.0,x.1,y.0,y.1,y.2,error\n3,?,1,2,2.0,4.0,6.0,\n"


@pytest.mark.parametrize(
    ("model", "header", "why"),
    [
        ("below_100", "a,b", 'no column for input "x" INT64[N,1]; the columns are: "a", "b"'),
        ("triples", "x.0,x.1", 'no column for input "x" FP32[N,3], nor columns "x.0" to "x.2"; the'),
        ("below_100", "x,x", 'there are 2 columns "x"'),
        ("below_100", '"x', "the header, in line 1: unexpected end of data"),
    ],
)
def test_a_header_that_does_not_fit(predict: Cli, tmp_path: Path, model: str, header: str, why: str) -> None:
    path, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    path.write_text(f"{header}\n1,2\n")
    out.write_text("precious")
    ran = predict(model, "--file", path, "-o", out)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"Error: {path}: {why}")
    assert ran.err.count("\n") == 1
    assert out.read_text() == "precious"


def test_csv_to_json(through: Cli) -> None:
    out = through("triples", "rows.csv", "x,z\n'',\n\"[1, 2, 3]\",a\n", "--format", "jsonl", code=1)
    bad, good = objects_of(out)
    assert (bad["x"], bad["z"]) == ("''", "")
    assert "it is not a number" in bad["error"]
    assert good == {"x": [1, 2, 3], "z": "a", "y": [2.0, 4.0, 6.0]}


def test_json_to_csv(through: Cli, tmp_path: Path) -> None:
    lines = '{"x": 1, "z": {"a": "ü"}}\n{"z": null, "x": 2}\n{"x": 3, "w": 1}\n{"z": "\\ud800", "x": 4}\n'
    out = tmp_path / "out.CSV"
    assert through("below_100", "rows.ndjson", lines, "--output", out, code=1) == ""
    rows = list(csv.reader(io.StringIO(out.read_text(encoding="utf-8"))))
    assert rows[:3] == [["x", "z", "y", "error"], ["1", '{"a": "ü"}', "1", ""], ["2", "", "2", ""]]
    assert rows[3] == ["3", "", "", 'no column for "w": the columns are the names in the first row']
    assert rows[4] == ["4", "\\ud800", "4", ""]


def test_json_to_csv_without_a_first_row(through: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert through("below_100", "rows.jsonl", "nothing\n", "-o", out, code=1) == ""
    assert not out.exists()


def test_columns_of_one_name_are_nothing_for_json(predict: Cli, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,a,a\n1,2,3\n")
    ran = predict("below_100", "--file", path, "--format", "jsonl")
    assert (ran.code, ran.out) == (1, "")
    assert "two columns have the same name" in ran.err


def test_the_format_of_a_file_without_a_suffix_is_seen(through: Cli) -> None:
    assert through("below_100", "rows", '\n{"x": 1}\n') == '{"x": 1, "y": 1}\n'
    assert through("below_100", "rows", "x\n1\n") == "x,y,error\n1,1,\n"


def test_the_output_may_not_be_the_input(predict: Cli, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x\n1\n")
    (tmp_path / "same").symlink_to(path)
    ran = predict("below_100", "--file", path, "-o", tmp_path / "same")
    assert ran.code == 2
    assert path.read_text() == "x\n1\n"


def test_some_outputs_of_a_version(through: Cli) -> None:
    out = through("several", "rows.csv", "x.0,x.1,x.2\n1,2,3\n", "--outputs", "total")
    assert out == "x.0,x.1,x.2,total,error\n1,2,3,6.0,\n"
    out = through("triples", "rows.csv", 'x\n"[1,2,3]"\n', "--version", "1")
    assert '"[1,2,3]",1.0,2.0,3.0,' in out


def test_a_model_without_inputs(through: Cli) -> None:
    assert through("constant", "rows.csv", "z\na\n") == "z,y.0,y.1,y.2,error\na,1.0,2.0,3.0,\n"


@pytest.mark.parametrize(("file", "output"), [("nowhere.csv", "-"), (".", "-"), ("rows.csv", "no/out.csv")])
def test_files_that_cannot_be_opened(
    predict: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("x\n1\n")
    ran = predict("below_100", "--file", file, "--output", output)
    assert ran.code == 1
    assert ran.err.startswith(f"Error: {file if output == '-' else output}: ")
    assert ran.err.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk(predict: Cli, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x\n" + "1\n" * 5000)
    ran = predict("below_100", "--file", path, "--output", "/dev/full")
    assert (ran.code, ran.err) == (1, "Error: No space left on device\n")


@pytest.mark.alone
def test_rows_that_time_out(through: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    # Most of them are rejected first, and each would wait for seconds before it is sent again.
    monkeypatch.setattr(streaming, "_LONGEST_WAIT_SECONDS", 0.01)
    rows = rows_of(through("slow", "rows.csv", "x\n" + "1\n" * 50, "--timeout", "0.0005", code=1))
    assert len(rows) == 50
    assert all(row["error"] and not row["y"] for row in rows)


def test_a_full_queue_is_waited_for(cli: Cli, models: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x\n" + "".join(f"{i}\n" for i in range(60)))
    env = {"PENSTOCK_BATCHING__QUEUE_ROWS": "4", "PENSTOCK_BATCHING__MAX_ROWS": "2"}
    with running_server(models / "slow" / "1" / "model.onnx", env=env) as small:
        ran = cli("predict", "model", "--file", path, "--target", small.target)
        with Client(small.target) as client:
            results = client.predict_stream("model", ({"x": i} for i in range(60)), errors="return")
            refused = [each for each in results if isinstance(each, Exception)]
    assert refused  # or else nothing was tested
    assert (ran.code, ran.err) == (0, "")
    assert [row["y"] for row in rows_of(ran.out)] == [f"{i}.0" for i in range(60)]


def test_the_server_goes_away(cli: Cli, models: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    with running_server(models / "slow" / "1" / "model.onnx", exit_code=None) as dying:
        path.write_text("x\n" + "1\n" * 100_000)
        stop = threading.Event()

        def kill() -> None:
            while not (out.exists() and out.stat().st_size > 1000):
                if stop.wait(0.01):
                    return
            dying.process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        ran = cli("predict", "model", "--file", path, "-o", out, "--target", dying.target)
        stop.set()
        killer.join()
    assert ran.code == 1
    assert ran.err.startswith(f"Error: {dying.target}: ")
    assert ran.err.count("\n") == 1
    written = rows_of(out.read_text())
    assert len(written) > 10
    assert f"; {len(written):,} rows were written before" in ran.err
    assert {row["y"] for row in written} == {"1.0"}
