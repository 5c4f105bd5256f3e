"""Labels of classes: read from files, and held against the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.core.errors import ModelLoadError
from penstock.core.tensors import DataType
from penstock.models.class_labels import ClassLabels, read_class_labels
from support.work import spec

OUTPUTS = {
    "y": spec("y", ("N", 3)),
    "open": spec("open", ("N", "C")),
    "text": spec("text", ("N", 3), DataType.BYTES),
}


def test_a_line_is_a_label(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("low\nmittel größer\nhigh\n", encoding="utf-8")
    expected = ClassLabels("a.txt", ["low", "mittel größer", "high"])
    assert read_class_labels(tmp_path, {"y": "a.txt"}, OUTPUTS) == {"y": expected}
    assert read_class_labels(tmp_path, {"open": "a.txt"}, OUTPUTS) == {"open": expected}
    assert read_class_labels(tmp_path, {}, OUTPUTS) == {}


@pytest.mark.parametrize(
    ("output", "text", "words"),
    [
        ("z", b"a\nb\nc\n", "names output z, which does not exist; the model has y, open, text"),
        ("y", b"a\nb\n", "output y FP32[N,3] has 3 classes, a.txt names 2"),
        ("text", b"a\nb\nc\n", "output text BYTES[N,3] cannot have class labels"),
        ("y", b"\xff\xff", "cannot read a.txt"),
        ("y", None, "cannot read a.txt"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, output: str, text: bytes | None, words: str) -> None:
    if text is not None:
        (tmp_path / "a.txt").write_bytes(text)
    with pytest.raises(ModelLoadError) as refused:
        read_class_labels(tmp_path, {output: "a.txt"}, OUTPUTS)
    assert words in str(refused.value)
