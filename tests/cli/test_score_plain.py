"""Rows of CSV that need no parser come out as if each cell had been parsed and written on its own."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import pytest

from penstock.row_files.fields import Field
from penstock.row_files.lines import Lines
from penstock.row_files.readers import PlainRows, source
from penstock.scoring.chunk import Chunk, Scored
from penstock.scoring.outputs import OutputColumns
from penstock.scoring.run import Stopping, run
from penstock.scoring.sending import Request, Sender
from penstock.scoring.text_files import TextChunk, text_chunks, text_lines
from penstock.scoring.writers import row_writer
from penstock_client import Client, Prediction, TensorInfo
from penstock_client._inputs import InputSpec

Kind = Literal["csv", "tsv"]

INPUTS = (
    TensorInfo("text", "BYTES", ("N", 1)),
    TensorInfo("number", "FP32", ("N", 1)),
    TensorInfo("count", "INT64", ("N", 1)),
    TensorInfo("is_new", "BOOL", ("N", 1)),
    TensorInfo("v", "FP32", ("N", 2)),
)
OUTPUTS = (
    TensorInfo("label", "INT64", ("N",)),
    TensorInfo("shares", "FP32", ("N", 2)),
    TensorInfo("said", "BYTES", ("N", 1)),
)
COLUMNS = ["id", "text", "number", "count", "is_new", "v.0", "v.1", "note"]
TYPICAL = ["7", "organic", "59664.78", "3", "true", "0.5", "-2", "ok"]
ODD = {
    "text": ["", " ", 'a"b', '"a,b"', '"two\nlines"', '"two\r\nlines"', "ü€", "\u2028", "\x0b", "NA", "a\tb"],
    "number": [
        *("", "NA", "nan", "1e5", "1E-30", "1e-45", "1e39", "1_000", "+1", ".5", "5.", " 2 ", "-0", "-0.0"),
        *("Infinity", "-inf", "0x10", "True", "16777217", "123456789012345678901234567890", "\u0661", "one"),
        '"1.5"',
    ],
    "count": [
        *("", "null", "2.0", "2.5", "007", "+3", "-0", " 4 ", "1_0", "TRUE", "1e3", "x"),
        *("9223372036854775807", "9223372036854775808", "-9223372036854775809"),
    ],
    "is_new": ["1", "0", "yes", "No", "TRUE", "", "maybe", " false "],
    "v.0": ["", "1e5", "NaN", "x", "1e-7"],
    "v.1": ["", "-0", "3", '"4"'],
    "note": ["", "  ", '""', '"x""y"', "a b", "'", "\\", "=1+1", "\x85", "#"],
    "id": ["", "id", '"7"', "\ufeff7", "0007"],
}
WIDTHS = ["", ",", "7", "7,organic", ",,,,,,,,,,,", '"never closed', '7,"a"b,1,1,1,1,1,1', " "]
"""Lines that are no rows of these columns."""


class Model:
    """A model whose answers tell what it was sent, in place of a client."""

    def predict(self, model: str, inputs: Mapping[str, Any], **_: Any) -> Prediction:
        """Answers that differ with every bit of a row's inputs."""
        sent = [InputSpec(info).encode(inputs[info.name]) for info in INPUTS]
        count = sent[0][0][0]
        marks = [0] * count
        for (shape, raw), info in zip(sent, INPUTS, strict=True):
            assert shape[0] == count
            rows: list[bytes] = []
            if info.datatype == "BYTES":
                texts = np.asarray(inputs[info.name]).reshape(-1).tolist()
                rows = [text.encode() for text in texts]
            else:
                size = len(raw) // count
                rows = [raw[at : at + size] for at in range(0, len(raw), size)]
            marks = [zlib.crc32(row, mark) for row, mark in zip(rows, marks, strict=True)]
        scales = [
            (1.0, 1e-9, 1e20, np.nan, np.inf, 0.0, 1.0, 1.0)[mark % 8] if mark % 5 == 0 else 1.0
            for mark in marks
        ]
        share = np.array([mark / 2**32 for mark in marks])
        outputs = {
            "label": np.array(marks, np.int64),
            "shares": np.stack([share * scales, 1 - share], 1).astype(np.float32),
            "said": np.array(
                [text if m % 3 else f"{text}!" for text, m in zip(texts, marks, strict=True)], object
            ),
        }
        outputs["said"] = outputs["said"].reshape(-1, 1)
        return Prediction("m", "1", "", outputs, b"")


@dataclass
class Found:
    """What became of a file.

    Attributes:
        text: the output.
        rejected: the rows without an answer: their numbers, lines and reasons.
        plain: how many rows needed no parser.
    """

    text: str
    rejected: list[tuple[int, int, str]] = field(default_factory=list)
    plain: int = 0


def scored(data: bytes, kind: Kind, is_quick: bool, size: int, wanted: int, with_error: bool) -> Found:
    """Scores a file, with or without the quick way."""
    lines: Any = Lines(io.BytesIO(data)) if is_quick else text_lines(io.BytesIO(data))
    reader = source(lines, kind)
    fields = [Field(info) for info in INPUTS]
    stream = io.StringIO()
    answers = [OutputColumns(info) for info in OUTPUTS[:wanted]]
    writer = row_writer(stream, kind, reader, fields, answers, with_error)
    stopping, found, done = Stopping(), Found(""), 0
    sender = Sender(cast(Client, Model()), Request("m"), lambda _: None, stopping)

    def write(chunk: Chunk, answer: Scored, is_idle: bool) -> None:
        nonlocal done
        assert isinstance(chunk, TextChunk)
        found.plain += 0 if chunk.plain is None else len(chunk)
        errors = writer.chunk(chunk, answer, with_failed=with_error)
        for place, why in sorted(errors.items()):
            found.rejected.append((done + place, chunk.rows()[place].line, why))
        done += len(chunk)

    assert run(text_chunks(reader, fields, size, True), sender.score, write, size, stopping)
    found.text = stream.getvalue()
    return found


def files(draw: random.Random, kind: Kind) -> Iterator[bytes]:
    """Files of rows, of which some cells, lines, ends of lines and bytes are odd."""
    for number in range(80):
        oddness = (0.0, 0.002, 0.02, 0.3)[number % 4]
        end = draw.choice(["\n", "\n", "\r\n", "\r"] if oddness else ["\n", "\r\n"])
        lines = [",".join(COLUMNS)]
        for _ in range(draw.randrange(120)):
            cells = [
                draw.choice(ODD[name]) if draw.random() < oddness else typical
                for name, typical in zip(COLUMNS, TYPICAL, strict=True)
            ]
            lines.append(",".join(cells) if draw.random() >= oddness / 4 else draw.choice(WIDTHS))
        text = end.join(lines) + draw.choice([end, "", end * 2])
        if oddness and draw.random() < 0.2:
            text = text.replace(end, "\n", draw.randrange(20))
        data = (b"\xef\xbb\xbf" if draw.random() < 0.3 else b"") + text.encode()
        if oddness and draw.random() < 0.2:
            data = data.replace(b"organic", draw.choice([b"\xff\xfe", b"a\0b", b"\xe2\x82"]), 3)
        yield data.replace(b",", b"\t") if kind == "tsv" else data


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("with_error", [False, True])
def test_both_ways_give_the_same_bytes_and_refusals(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, with_error: bool
) -> None:
    draw = random.Random(f"{kind}{with_error}")
    plain = odd = 0
    for number, data in enumerate(files(draw, kind)):
        monkeypatch.setattr("penstock.row_files.lines.BLOCK_BYTES", draw.choice([1, 7, 100, 1 << 16]))
        size, wanted = draw.choice([2, 3, 16, 256]), number % 4
        quick, slow = (scored(data, kind, each, size, wanted, with_error) for each in (True, False))
        assert quick.text == slow.text, data
        assert quick.rejected == slow.rejected, data
        assert slow.plain == 0
        plain += quick.plain
        odd += quick.text.count("\n") - quick.plain
    assert plain > 500
    assert odd > 500


def test_a_file_without_anything_odd_needs_no_parser() -> None:
    row = (",".join(TYPICAL) + "\r\n").encode()
    data = (",".join(COLUMNS) + "\r\n").encode() + 600 * row
    quick = scored(data, "csv", True, 256, 3, False)
    assert (quick.plain, quick.rejected) == (600, [])
    assert quick.text.count("\n") == 601
    assert "\r" not in quick.text


def test_an_odd_row_costs_the_parser_for_its_chunk_only() -> None:
    rows = [",".join(COLUMNS), *[",".join(TYPICAL)] * 1000]
    rows[300] = rows[300].replace("organic", '"an embedded\nline"')
    quick = scored("\n".join(rows).encode(), "csv", True, 256, 3, False)
    assert quick.plain == 1000 - 256
    assert quick.text.count("\n") == 1001 + 2  # in the cell, and in the answer that repeats it


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("block", [1, 2, 3, 64, 1 << 16])
def test_lines_are_those_of_a_text_file(monkeypatch: pytest.MonkeyPatch, end: str, block: int) -> None:
    monkeypatch.setattr("penstock.row_files.lines.BLOCK_BYTES", block)
    draw = random.Random(end)
    for _ in range(50):
        parts = [draw.choice(["a", "bc", "", "\x0b", "é", "\x85", "\r", "\n", "x" * 40]) for _ in range(30)]
        data = b"\xef\xbb\xbf" + end.join(parts).encode() + b"\xff"
        assert list(Lines(io.BytesIO(data))) == list(text_lines(io.BytesIO(data)))


def test_lines_that_are_looked_at_are_not_taken() -> None:
    lines = Lines(io.BytesIO(b"a\nb\nc"))
    assert lines.ahead(2) == ["a\n", "b\n"]
    assert next(iter(lines)) == "a\n"
    lines.skip(1)
    assert lines.ahead(9) == ["c"]
    assert list(lines) == ["c"]
    assert lines.ahead(9) == []


def test_the_rows_of_plain_lines_know_their_lines() -> None:
    rows = PlainRows(5, ["a", "b"], ["1,2", "3,"], ",")
    assert rows.columns() == [["1", "3"], ["2", ""]]
    assert [(row.line, row.values) for row in rows.rows()] == [(5, ["1", "2"]), (6, ["3", ""])]
