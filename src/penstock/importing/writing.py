"""Writes a version's folder: its golden rows, the profile of its sample, and where it comes from."""

from __future__ import annotations

import getpass
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from penstock.importing.table import Inputs, as_tensor
from penstock.importing.verifying import Rows, Verified
from penstock.row_files.fields import dumps
from penstock.row_files.golden import FILE, HEADER

MOST_GOLDEN = 4000
"""Most golden rows that are kept: they are run at every load."""
MOST_NUMBERS = 4_000_000
"""Most numbers in them, about 40 MB: a row may be a picture."""

CLEAR = 1e-5  # by how much the largest probability exceeds the second where it tells the label's column

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MOST_VALUES = 50


def write_golden(folder: Path, verified: Verified) -> int:
    """Writes the golden rows; the hard ones, and of the sample as many as there is room for.

    Where rows are large, of both about as many as there is room for.

    Returns:
        How many.
    """
    sample, *hard = verified.rows
    shapes = {name: {np.shape(each.inputs[name])[1:] for each in verified.rows} for name in sample.inputs}
    lists = {name for name, seen in shapes.items() if len(seen) > 1}  # of any length, one included
    extra = sum(count_of(each) for each in hard)
    count = 0
    rooms = max(1, MOST_NUMBERS // 2 // _size(sample))
    tolerance = {name: max(each, 1e-12) for name, each in verified.tolerance.of.items()}
    with (folder / FILE).open("w", encoding="utf-8") as file:
        file.write(dumps({HEADER: {"tolerance": tolerance or verified.tolerance.usual}}) + "\n")
        for rows, most in (
            (sample, min(max(MOST_GOLDEN - extra, MOST_GOLDEN // 2), rooms)),
            *((each, max(1, rooms // len(hard))) for each in hard),
        ):
            for i in range(min(count_of(rows), most)):
                inputs = _row(rows.inputs, i)
                inputs |= {name: [inputs[name]] for name in lists if not isinstance(inputs[name], list)}
                values = {**inputs, **_outputs(rows, i)}
                file.write(dumps(values) + "\n")
                count += 1
    return count


def count_of(rows: Rows) -> int:
    """How many rows there are."""
    return len(next(iter(rows.outputs.values())))


def _size(rows: Rows) -> int:
    """How many numbers and texts a row has."""
    return sum(array.size // len(array) for array in (*rows.inputs.values(), *rows.outputs.values()))


def _row(arrays: Mapping[str, Any], i: int) -> dict[str, object]:
    return {name: plain(array[i]) for name, array in arrays.items()}


def _outputs(rows: Rows, i: int) -> dict[str, object]:
    made = _row(rows.outputs, i)
    return {f"{name}_answer" if name in rows.inputs else name: value for name, value in made.items()}


def classes_of(verified: Sequence[Rows]) -> Sequence[object]:
    """The class of each column of the probabilities, as the original's answers show.

    Returns:
        In the order of the columns; empty if there are no probabilities, or if the answers do not show it.
    """
    found: dict[int, set[object]] = {}
    width = 0
    for rows in verified:
        chances = np.asarray(rows.outputs.get("probabilities", 0.0), np.float64)
        if chances.ndim != 2 or "label" not in rows.outputs:
            return ()
        width = chances.shape[1]
        best, is_clear = chances.argmax(1), np.diff(np.sort(chances), axis=1)[:, -1:].ravel() > CLEAR
        for label, column in zip(np.asarray(rows.outputs["label"])[is_clear], best[is_clear], strict=True):
            found.setdefault(int(column), set()).add(_one(label))
    shown = [found.get(column, set()) for column in range(width)]
    return [each for (each,) in shown] if all(len(each) == 1 for each in shown) else ()


def plain(value: Any) -> object:
    """A value or an array as JSON Lines has it."""
    array = np.asarray(value)
    if array.size == 1 and array.ndim <= 1:
        return _one(array.ravel()[0])
    return [plain(each) for each in array]


def _one(value: Any) -> object:
    if not isinstance(value, float | np.floating):
        return value.item() if isinstance(value, np.generic) else value
    number = float(str(value))  # with the digits of its own datatype
    if np.isnan(number):
        return "NaN"
    return number if np.isfinite(number) else "Infinity" if number > 0 else "-Infinity"


def profile(frame: Any, inputs: Inputs, outputs: Mapping[str, Any]) -> dict[str, object]:
    """What the values of the sample are like, so that those of requests can be compared with them."""
    import pandas as pd

    made: dict[str, object] = {"rows": len(frame)}
    made["inputs"] = {
        each.name: _of_values(
            pd.Series(as_tensor(frame[each.name], np.float64).ravel()) if each.shape else frame[each.name],
            each.text,
        )
        for each in inputs.columns
    }
    found = {}
    for name, values in outputs.items():
        for i, one in enumerate(np.asarray(values).reshape(len(frame), -1).T):
            text = one.dtype.kind not in "f"
            found[name if values.ndim == 1 else f"{name}.{i}"] = _of_values(pd.Series(one), text)
    made["outputs"] = found
    return made


def _of_values(values: Any, text: bool) -> dict[str, object]:
    known = values.dropna()
    made: dict[str, object] = {"missing": round(1 - len(known) / len(values), 6)}
    if text:
        counts = known.astype(str).value_counts()
        made |= {"distinct": len(counts), "values": {k: int(n) for k, n in counts.head(MOST_VALUES).items()}}
    elif len(known):
        numbers = known.astype(float)
        made |= {
            "min": float(numbers.min()),
            "max": float(numbers.max()),
            "mean": float(numbers.mean()),
            "std": float(numbers.std(ddof=0)),
            "quantiles": {str(q): float(numbers.quantile(q)) for q in QUANTILES},
        }
    return made


def sha256(path: Path) -> str:
    """Of a file, or of all files of a folder, by name."""
    digest = hashlib.sha256()
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if each.is_file():
            digest.update(each.read_bytes())
    return digest.hexdigest()


def versions(libraries: Sequence[str]) -> dict[str, str]:
    """The releases of distributions that are installed."""
    found = {}
    for each in libraries:
        try:
            found[each] = version(each)
        except PackageNotFoundError:
            continue
    return found


def manifest(  # noqa: PLR0913 - what it holds
    source: Path,
    title: str,
    sample: Path,
    rows: int,
    libraries: Sequence[str],
    verified: Verified,
    folder: Path,
) -> str:
    """`version.toml`: what the version was made from, by whom, and what was verified."""
    hard = verified.hard
    sections: dict[str, dict[str, object]] = {
        "import": {"date": datetime.now(UTC).isoformat(timespec="seconds"), "by": _user(), "what": title},
        "source": {"file": source.name, "sha256": sha256(source)},
        "sample": {"file": sample.name, "sha256": sha256(sample), "rows": rows},
        "model": {
            "sha256": sha256(folder / "model.onnx"),
            **({"classes": list(classes)} if (classes := classes_of(verified.rows)) else {}),
        },
        "versions": {
            **versions(["penstock", "onnx", "onnxruntime", "numpy", "pandas", "skl2onnx", *libraries])
        },
        "verified": {
            "sample": str(verified.sample),
            "hard_rows": str(hard) if hard else "none",
            "tolerance": verified.tolerance.usual,
            "largest": max(verified.sample.largest, hard.largest if hard else 0.0),
            "equally_probable": verified.ties,
            "not_compared": [f"{what}: {why}" for what, why in verified.not_compared.items()],
        },
    }
    lines = []
    for section, values in sections.items():
        lines += [
            f"[{section}]",
            *(f"{json.dumps(key)} = {_toml(value)}" for key, value in values.items()),
            "",
        ]
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value) if np.isfinite(value) else "inf"
    return json.dumps(value, ensure_ascii=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
