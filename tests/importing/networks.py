"""Networks as cases: models that are not fitted here, but made with weights of a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from importing.data import table


class Made(NamedTuple):
    """A network that was saved, and rows for it.

    Attributes:
        path: of the file or the folder.
        sample: the rows that it is imported with.
        fresh: others.
        answer: what the original gives for rows, by output.
    """

    path: Path
    sample: Any
    fresh: Any
    answer: Callable[[Any], Mapping[str, Any]]


class Network(NamedTuple):
    """One network.

    Attributes:
        name: what it is.
        make: makes and saves it in a folder.
    """

    name: str
    make: Callable[[Path], Made]


def numbers(rows: int, seed: int, columns: int = 4) -> Any:
    """A table of columns of numbers."""
    found = table(rows, seed)[["a", "c", "d", "zero"]]
    more = np.random.default_rng(seed + 100).normal(0, 1, (rows, max(0, columns - 4)))
    return found.assign(**{f"n{i}": more[:, i] for i in range(columns - 4)}).iloc[:, :columns]


def lists(rows: int, seed: int, *shape: int) -> Any:
    """A table with one column `values` of lists of numbers."""
    import pandas as pd

    made = np.random.default_rng(seed).normal(0, 1, (rows, *shape)).astype(np.float32)
    return pd.DataFrame({"values": list(made)})


def whole(rows: int, seed: int, columns: int, below: int) -> Any:
    """A table of columns of whole numbers from 0 on."""
    import pandas as pd

    made = np.random.default_rng(seed).integers(0, below, (rows, columns))
    return pd.DataFrame(made, columns=[f"word{i}" for i in range(columns)])


def stacked(frame: Any) -> Any:
    """The rows of one column of lists as an array, or all columns as one."""
    if len(frame.columns) == 1 and not np.isscalar(frame.iloc[0, 0]):
        return np.stack([np.asarray(each, np.float32) for each in frame.iloc[:, 0]])
    return frame.to_numpy(np.float32)


def write(frame: Any, folder: Path) -> Path:
    """The sample as a file: JSON Lines where it has lists, CSV otherwise."""
    if all(np.isscalar(each) for each in frame.iloc[0]):
        frame.to_csv(folder / "sample.csv", index=False)
        return folder / "sample.csv"
    import json

    names = list(frame.columns)
    lines = [
        json.dumps({name: np.asarray(row[name]).tolist() for name in names}) for _, row in frame.iterrows()
    ]
    (folder / "sample.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "sample.jsonl"
