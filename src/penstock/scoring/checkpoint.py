"""How far a run has come, in a file beside its output: a run that was killed goes on from there."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penstock.row_files.fields import Invalid

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is done.

    Attributes:
        job: what the run is of; another job does not go on from here.
        rows: rows of the input that are done, whether scored or rejected.
        rejected: the number of these that were rejected.
        output: where the output ends: bytes, or the number of parts.
        rejects: where the file of rejected rows ends, in bytes.
        version: the model's version that scores all rows.
    """

    job: dict[str, Any]
    rows: int = 0
    rejected: int = 0
    output: int = 0
    rejects: int = 0
    version: str = ""

    def save(self, path: Path) -> None:
        """Writes it, all or nothing: whenever the process ends, the file has the last or the new state."""
        beside = path.with_name(f"{path.name}.new")
        with open(beside, "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, **asdict(self)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)


def load(path: Path) -> Checkpoint | None:
    """The checkpoint in a file; None if there is none.

    Raises:
        Invalid: it is not one.
    """
    try:
        found = json.loads(path.read_bytes())
        if found.pop("format") != FORMAT:
            raise ValueError("another format")
        return Checkpoint(**found)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Invalid(f"{path} is not a checkpoint of this version; --restart begins again") from None


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs between two jobs, for a message; "" if nothing does."""
    names = [name for name in new if old.get(name) != new[name]]
    return ", ".join(f"{name} ({old.get(name)!r} then, {new[name]!r} now)" for name in names)
