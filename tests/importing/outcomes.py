"""Imports a case as the command does, and compares what was accepted on rows that were not in the sample."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import onnxruntime as ort

from importing.cases import Case
from importing.data import table
from importing.networks import Network, write
from penstock.importing import child
from penstock.importing.kinds import kind_of

ROWS, FRESH = 400, 500
LIMIT = 2e-4
"""What is accepted on fresh rows: twice the tolerance of the import, for rows that it has not seen."""


class Outcome(NamedTuple):
    """What became of a case.

    Attributes:
        result: "right", "refused" or "WRONG": accepted, and different on fresh rows.
        why: the reason of a refusal, or the difference.
        rows: how many fresh rows were compared.
    """

    result: str
    why: str
    rows: int = 0


def outcome(case: Case, folder: Path, frame: Any = None) -> Outcome:
    """Fits a case, saves it, imports it and compares it.

    Args:
        case: the case.
        folder: for its files.
        frame: the training data and sample; made if it is not given.
    """
    frame = table(ROWS, 1) if frame is None else frame
    sample = folder / "sample.csv"
    frame[list(case.columns)].to_csv(sample, index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = fitted(case, frame)
        path = _saved(model, folder / f"model{case.suffix}")
        report = child.run(job(path, sample, folder))
        if "refused" in report:
            return Outcome("refused", report["refused"])
        return _on_fresh_rows(case, model, folder / "model.onnx")


def one(group: str, library: str, place: int) -> Outcome:
    """What became of a case, found in a process of its own."""
    from importing.groups import GROUPS

    case = GROUPS[group][library].cases[place]
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        try:
            return of_network(case, folder) if isinstance(case, Network) else outcome(case, folder)
        except Exception as error:  # the rest is still worth knowing; the exit status says it
            return Outcome("FAILED", f"{type(error).__name__}: {error}")


def of_network(case: Network, folder: Path) -> Outcome:
    """Makes a network, imports it and compares it on fresh rows."""
    made = case.make(folder)
    report = child.run(job(made.path, write(made.sample, folder), folder))
    if "refused" in report:
        return Outcome("refused", report["refused"].replace(f"{folder}/", ""))
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    feeds = {each.name: _input(made.fresh[each.name], each.type) for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    wanted = made.answer(made.fresh)
    if sorted(wanted) != sorted(names):
        return Outcome("WRONG", f"the outputs are {', '.join(names)}, not {', '.join(wanted)}")
    worst = 0.0
    for name, came in zip(names, session.run(names, feeds), strict=True):
        own = np.asarray(wanted[name], np.float64).reshape(came.shape)
        worst = max(worst, float((np.abs(came - own) / np.maximum(1, np.abs(own))).max()))
    said = f"{len(made.fresh)} fresh rows, largest {worst:.1g}"
    return Outcome("right" if worst <= LIMIT else "WRONG", said, len(made.fresh))


def _input(values: Any, kind: str) -> Any:
    """The values of an input: lists, or single numbers."""
    datatype = np.int64 if "int64" in kind else np.float32
    made = np.stack([np.asarray(each, datatype) for each in values])
    return made if made.ndim > 1 else made.reshape(-1, 1)


def job(path: Path, sample: Path, folder: Path) -> dict[str, Any]:
    """The job of the child process."""
    return {
        "source": str(path),
        "sample": str(sample),
        "folder": str(folder),
        "kind": kind_of(path).name,
        "target": "",
        "drop": [],
        "vector": False,
        "tolerance": 1e-4,
        "leave_out": [],
        "na": "",
        "text": [],
    }


def fitted(case: Case, frame: Any) -> Any:
    """The estimator of a case, fitted."""
    given = frame[list(case.columns)]
    names = case.target.split(",")
    target = frame[names[0]] if len(names) == 1 else np.column_stack([frame[each] for each in names])
    if case.library == "CatBoost" and "city" in case.columns:
        given = given.assign(city=given["city"].astype(str))
    if case.fit == "categories":
        return case.make().fit(_as_categories(given), target)
    if case.fit == "array":
        return case.make().fit(given.to_numpy(), target)
    if case.fit == "series":
        return case.make().fit(given[case.columns[0]], target)
    return case.make().fit(given, target)


def _as_categories(frame: Any) -> Any:
    return frame.astype(
        {each: "category" for each in ("city", "plan", "code", "size") if each in frame.columns}
    )


def _saved(model: Any, path: Path) -> Path:
    if path.suffix == ".skops":
        import skops.io

        skops.io.dump(model, path)
    elif path.suffix == ".joblib":
        joblib.dump(model, path)
    elif path.suffix == ".txt":
        model.booster_.save_model(str(path))
    else:
        model.save_model(str(path))
    return path


def _on_fresh_rows(case: Case, model: Any, path: Path) -> Outcome:
    """Compares the file, run by ONNX Runtime itself, with the original.

    Where the original refuses rows, such as those with unknown categories, they are passed over.
    """
    frame = table(FRESH, 2, fresh=True)[list(case.columns)]
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    kinds = {each.name: each.type for each in session.get_inputs()}
    last = session.get_outputs()[-1].name
    worst, rows = 0.0, 0
    for part in _taken(case, model, frame):
        feed = {name: _tensor(part[name], "string" in kind) for name, kind in kinds.items()}
        got, expected = session.run([last], feed)[0], _expected(case, model, part)
        rows += len(part)
        if got.dtype.kind != "f":  # labels only
            worst = max(worst, float(np.any(got.astype(str).ravel() != np.ravel(expected).astype(str))))
            continue
        wanted = np.asarray(expected, np.float64).reshape(got.shape)
        worst = max(worst, float((np.abs(got - wanted) / np.maximum(1, np.abs(wanted))).max()))
    said = f"{rows} fresh rows, largest {worst:.1g}"
    return Outcome("right" if worst <= LIMIT and rows else "WRONG", said, rows)


def _taken(case: Case, model: Any, frame: Any) -> list[Any]:
    """The rows that the original takes, in as few parts as possible."""
    try:
        _expected(case, model, frame)
    except Exception:  # it refuses some of them
        half = len(frame) // 2
        if not half:
            return []
        return [*_taken(case, model, frame[:half]), *_taken(case, model, frame[half:])]
    return [frame]


def _tensor(values: Any, text: bool) -> Any:
    if not text:
        return values.to_numpy(np.float32).reshape(-1, 1)
    return np.array([[str(each)] for each in values.astype(object).where(values.notna(), "")], object)


def _expected(case: Case, model: Any, row: Any) -> Any:
    """The last output of the original, asked as its users ask it."""
    given = row[case.columns[0]] if case.fit == "series" else row.to_numpy() if case.fit == "array" else row
    given = _as_categories(given) if case.fit == "categories" else given
    if case.suffix in (".txt", ".ubj"):
        return model.predict_proba(given)[:, 1] if hasattr(model, "predict_proba") else model.predict(given)
    if hasattr(model, "predict_proba"):
        return model.predict_proba(given)
    if hasattr(model, "score_samples"):
        return model.decision_function(given)
    if hasattr(model, "cluster_centers_") or hasattr(
        getattr(model, "steps", [[0, 0]])[-1][1], "cluster_centers_"
    ):
        return model.transform(given)
    return model.predict(given)
