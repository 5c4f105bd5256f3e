"""The child process: loads the original, converts it, verifies it, and writes the version's folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.core.names import many
from penstock.importing.errors import LacksColumns, Refused

if TYPE_CHECKING:
    from penstock.importing.table import Inputs

INSTALL = {
    "sklearn": "scikit-learn",
    "interpret": "interpret-core",
    "xgboost": "xgboost",
    "yaml": "mlflow",
    "keras": "keras tensorflow tf2onnx",
    "tensorflow": "tensorflow tf2onnx",
    "torch": "torch onnxscript",
    "transformers": "transformers torch onnxscript",
}
"""The distributions of a module, where its name differs or others are needed beside it."""
OWN = ("skl2onnx", "onnx", "pandas")
"""What the extra `import` has, whatever the model is."""


def main() -> None:
    """Reads a job from standard input and writes its report to the job's file."""
    job = json.load(sys.stdin)
    report = run(job)
    Path(job["report"]).write_text(json.dumps(report), encoding="utf-8")


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Does a job; a refusal is a report, too."""
    try:
        return _imported(job)
    except Refused as error:
        return {"refused": str(error)}
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in OWN:
            return {
                "refused": f"{name} is not installed here: pip install '.[import]' in Penstock's checkout"
            }
        needed = " ".join(f"'{each}'" for each in INSTALL.get(name, name).split())
        return {
            "refused": f"the model needs the module {error.name}, which is not installed here: "
            f"pip install {needed}, in the release that it was saved with"
        }


def _imported(job: dict[str, Any]) -> dict[str, Any]:
    from penstock.importing import writing
    from penstock.importing.verifying import Verifier

    source, sample, folder = Path(job["source"]), Path(job["sample"]), Path(job["folder"])
    _say(job, f"loading {source.name}")
    original = import_module(f"penstock.importing.{job['kind']}").load(source)
    _say(job, f"reading {sample.name}")
    frame, inputs = _inputs(job, original, _sample(job, original))
    _say(job, f"converting {original.title}")
    model, path = original.convert(inputs), folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    verifier = Verifier(original, inputs, path)
    _say(job, f"comparing {many(len(frame), 'row', ',')}, and rows made to be hard")
    verified = verifier.verify(frame, job["tolerance"], job["leave_out"])
    ignored = [each for each in frame.columns if each not in {one.name for one in inputs.columns}]
    report: dict[str, Any] = {
        "title": original.title,
        "ignored": ignored,
        "by_position": [each.name for each in inputs.columns] if inputs.by_position else [],
        "inputs": [str(each) for each in verifier.signature.inputs.values()],
        "outputs": [str(each) for each in verifier.signature.outputs.values()],
        "sample": str(verified.sample),
        "hard": str(verified.hard) if verified.hard else "",
        "not_compared": verified.not_compared,
        "ties": verified.ties,
        "classes": writing.classes_of(verified.rows),
        "largest": max(verified.sample.largest, verified.hard.largest if verified.hard else 0.0),
    }
    if not verified.sample.are_accepted or (verified.hard and not verified.hard.are_accepted):
        return {**report, "refused": _refusal(original, verified)}
    _say(job, "writing the version")
    report["golden"] = writing.write_golden(folder, verified)
    profile = writing.profile(frame, inputs, original.predict(inputs.as_trained(frame)))
    (folder / "profile.json").write_text(json.dumps(profile, indent=1), encoding="utf-8")
    manifest = writing.manifest(
        source, original.title, sample, len(frame), original.libraries, verified, folder
    )
    (folder / "version.toml").write_text(manifest, encoding="utf-8")
    return {**report, **_example(verified.rows[0])}


def _example(rows: Any) -> dict[str, Any]:
    """A row to call the model with, and what it gives."""
    from penstock.importing.writing import plain

    i = _whole_row(rows.inputs)
    return {
        "example": {name: plain(values[i]) for name, values in rows.inputs.items()},
        "expected": {name: plain(values[i]) for name, values in rows.outputs.items()},
        "example_row": i + 1,
    }


def _say(job: dict[str, Any], text: str) -> None:
    """Tells the parent process what is done now, if it listens."""
    if "progress" in job:
        with suppress(OSError):
            os.write(job["progress"], f"{text}\n".encode())


def _whole_row(inputs: Any) -> int:
    """The first row without missing values, or the first."""
    rows = len(next(iter(inputs.values())))
    for i in range(rows):
        values = [each for array in inputs.values() for each in array[i].ravel()]
        if all(each == each and each != "" for each in values):  # noqa: PLR0124 - NaN
            return i
    return 0


def _with_na(original: Any, inputs: Inputs, frame: Any, job: dict[str, Any]) -> Inputs:
    """The inputs, with the texts that the graph takes as missing.

    Raises:
        Refused: the sample has texts that pandas takes as missing and other programs do not, and it is
            not said which it should be; or an ONNX file should take them as missing.
    """
    from penstock.importing.onnx_file import OnnxFile
    from penstock.importing.table import NA_TEXTS, na_counts

    if isinstance(original, OnnxFile):
        if job["na"] == "missing":
            raise Refused("--na missing: an ONNX file is taken as it is, and its texts as they come")
        return inputs
    if job["na"] == "missing":
        return inputs._replace(na_texts=NA_TEXTS)
    is_csv = Path(job["sample"]).suffix.lower() in (".csv", ".tsv")
    found = na_counts(frame, inputs.columns) if is_csv and not job["na"] else {}
    if not found:
        return inputs
    lines = []
    for name, counts in found.items():
        texts = [f"{text} ({many(count, 'row', ',')})" for text, count in counts.items()]
        lines.append(f'  column "{name}": {", ".join(texts)}')
    raise Refused(
        "\n".join(
            [
                "pandas reads these texts of the sample as missing values, and requests hold them as texts:",
                *lines,
                "Say how the model takes them:",
                "  --na missing  as missing values, as a model does that was trained on what pandas.read_csv "
                "gives; the ONNX file takes them so from every client",
                "  --na text     as texts like others (read_csv with keep_default_na=False)",
            ]
        )
    )


def _sample(job: dict[str, Any], original: Any) -> Any:
    """The sample without the columns that are no inputs, with texts where the original has texts."""
    from penstock.importing import table

    path = Path(job["sample"])
    frame = _without(table.read(path), job["target"], job["drop"])
    _check_columns(frame, job["text"])
    if hasattr(original, "prepared"):  # texts of Transformers become tokens
        return original.prepared(frame)
    columns = list(frame.columns)
    frame = table.as_texts(frame, path, {*job["text"], *original.texts(columns)})
    # Only scikit-learn's encoders tell None from NaN.
    nones = original.nones(columns) if hasattr(original, "nones") else ()
    return table.with_nones(frame, set(nones))


def _inputs(job: dict[str, Any], original: Any, frame: Any) -> tuple[Any, Inputs]:
    """The sample as the original takes it, and its inputs; says which flag took a column that it lacks."""
    from penstock.importing.table import with_numbers
    from penstock.importing.verifying import check_original

    try:
        found: Inputs = original.inputs(frame, job["vector"])
    except LacksColumns as error:
        raise Refused(f"{error}{_taken(error.missing, job)}") from None
    inputs = _with_na(original, found, frame, job)
    try:
        check_original(original, inputs, frame)
    except Refused:
        numbers = with_numbers(frame)
        if numbers is frame:
            raise
        check_original(original, inputs, numbers)
        frame = numbers
    return frame, inputs


def _check_columns(frame: Any, names: Sequence[str]) -> None:
    for name in names:
        if name not in frame.columns:
            raise Refused(f'the sample has no column "{name}"; it has {", ".join(frame.columns)}')


def _without(frame: Any, target: str, drop: list[str]) -> Any:
    for name in (*([target] if target else ()), *drop):
        _check_columns(frame, [name])
        frame = frame.drop(columns=name)
    return frame


def _taken(missing: Sequence[str], job: dict[str, Any]) -> str:
    """Which flags took columns that the model needs."""
    took = [f"--target took {job['target']}"] if job["target"] in missing else []
    took += [f"--drop took {each}" for each in job["drop"] if each in missing]
    return f"; {' and '.join(took)}, which is an input of the model: leave that out" if took else ""


def _refusal(original: Any, verified: Any) -> str:
    """Why the file is not accepted: the differences, the worst row, the setting that is known to be lost."""
    from penstock.importing.known_losses import known_loss
    from penstock.importing.writing import plain

    parts = []
    for where, differences in (("the sample", verified.sample), ("rows made to be hard", verified.hard)):
        if differences is None or differences.are_accepted:
            continue
        parts.append(f"on {where} the ONNX file differs from the original: {differences}")
        for name, (expected, got) in differences.shown.items():
            parts.append(
                f"  row {differences.worst_row}  {name}: expected {plain(expected)}, got {plain(got)}"
            )
        row = _row_of(verified, differences)
        if row:
            parts.append(
                f"  row {differences.worst_row}  inputs: {json.dumps(row, ensure_ascii=False)[:400]}"
            )
    is_hard = verified.hard is not None and not verified.hard.are_accepted
    loss = known_loss(original, _row_of(verified, verified.hard) if is_hard else {})
    if loss:
        parts.append(loss)
    return "\n".join(parts)


def _row_of(verified: Any, differences: Any) -> dict[str, object]:
    """The inputs of the worst row."""
    from penstock.importing.writing import count_of, plain

    number = differences.worst_row - 1
    for rows in verified.rows[:1] if differences is verified.sample else verified.rows[1:]:
        if number < count_of(rows):
            return {name: plain(array[number]) for name, array in rows.inputs.items()}
        number -= count_of(rows)
    return {}
