"""Writes a variant as a new version of its model, in one step and over nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from penstock.core.errors import ModelLoadError
from penstock.models.repository import MODEL_FILE
from penstock.optimizing.golden import GoldenFound
from penstock.optimizing.measuring import SIZES
from penstock.optimizing.source import Source, versions
from penstock.optimizing.verdicts import ORIGINAL, Comparison, Report
from penstock.row_files.golden import FILE

REPORT_FILE = "optimized.json"
"""What was compared, beside the model that was written."""
ATTEMPTS = 100


def write(source: Source, comparison: Comparison, chosen: Report, folder: Path) -> Path:
    """Writes a variant as the version after the newest one.

    Args:
        source: the original.
        comparison: what was found.
        chosen: the variant that is written.
        folder: the model's folder; it is made if it is not there.

    Returns:
        The new version's folder.

    Raises:
        ModelLoadError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / f".optimized-{os.getpid()}"
        staged.mkdir()
        try:
            shutil.copyfile(chosen.file, staged / MODEL_FILE)
            if chosen.golden is not None:
                shutil.copyfile(chosen.file.with_name(FILE), staged / FILE)
            (staged / REPORT_FILE).write_text(_text(source, comparison, chosen), encoding="utf-8")
            return _placed(staged, folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        raise ModelLoadError(f"{folder} cannot be written: {error.strerror or error}") from error


def _placed(staged: Path, folder: Path) -> Path:
    for _ in range(ATTEMPTS):
        target = folder / str(max(versions(folder), default=0) + 1)
        try:
            staged.rename(target)  # fails if somebody has just made a version of that number
        except OSError:
            if not target.exists():
                raise
        else:
            return target
    raise ModelLoadError(f"{folder}: others keep writing versions")


def _text(source: Source, comparison: Comparison, chosen: Report) -> str:
    said = {
        "variant": chosen.name,
        "of_version": source.number,
        "sample": source.requests_file,
        **described(comparison),
    }
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def described(comparison: Comparison) -> dict[str, object]:
    """What was found, as plain data: times in seconds, sizes in bytes."""
    return {
        "rows": comparison.rows,
        "noise": comparison.noise,
        "variants": [_plain(each) for each in (comparison.original, *comparison.variants)],
    }


def _plain(report: Report) -> dict[str, object]:
    found: dict[str, object] = {"name": report.name, "size_bytes": report.size_bytes}
    if report.seconds:
        found["seconds"] = dict(zip(map(str, SIZES), report.seconds, strict=True))
    if report.batching is not None:
        found["batched"] = report.batching.enabled
        found["batching_reason"] = report.batching.reason
    if report.name != ORIGINAL:
        found["differences"] = [
            {
                "output": each.output,
                "difference": _finite(each.size),
                "row": each.row,
                "same_top": each.same_top,
            }
            for each in report.differences
        ]
        if report.golden is not None:
            found["golden"] = _golden(report.golden)
        found["refused"] = report.refused
    return found


def _golden(found: GoldenFound) -> dict[str, object]:
    return {
        "rows": found.rows,
        "differences": {name: _finite(each) for name, each in found.largest.items()},
        "other_labels": len(found.other_labels),
        "tolerance": None if found.refused else dict(found.tolerance),
    }


def _finite(number: float) -> float | str:
    return number if number != float("inf") else "infinite"
