"""How far a run has come, in a file beside its output: a run that was killed goes on from there."""

from __future__ import annotations

import json
import os
from contextlib import suppress
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
        sha256: of that version; "" if the server did not tell it.
        stamp: the size and the time of change of a finished output; "" while there are rows left.
    """

    job: dict[str, Any]
    rows: int = 0
    rejected: int = 0
    output: int = 0
    rejects: int = 0
    version: str = ""
    sha256: str = ""
    stamp: str = ""

    @property
    def model(self) -> str:
        """The version in words."""
        return f"version {self.version} with SHA-256 {self.sha256 or 'unknown'}"

    def is_by(self, version: str, sha256: str) -> bool:
        """Whether this version of the model may go on."""
        is_known = self.sha256 and sha256
        return self.version == version and (self.sha256 == sha256 or not is_known)

    def save(self, path: Path) -> None:
        """Writes it, all or nothing: whenever the process ends, the file has the last or the new state."""
        beside = path.with_name(f"{path.name}.new")
        with open(beside, "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, **asdict(self)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)


def load(path: Path, is_foreign: bool = False) -> Checkpoint | None:
    """The checkpoint in a file; None if there is none.

    Args:
        path: the file.
        is_foreign: whether a file that is none belongs to somebody else and is never replaced.

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
        if is_foreign:
            raise Invalid(f"{path} exists, and no run of penstock score made it; move it away") from None
        raise Invalid(f"{path} is not a checkpoint of this version; --restart begins again") from None


def remove(path: Path) -> None:
    """Deletes a checkpoint, and no other file of that name."""
    with suppress(Invalid):
        if load(path) is not None:
            path.unlink()


def stamp_of(output: Path) -> str:
    """The size and the time of change of an output; "" if there is none."""
    try:
        found = os.stat(output)
    except FileNotFoundError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs between two jobs, for a message; "" if nothing does."""
    names = [name for name in new if old.get(name) != new[name]]
    return ", ".join(_told(name, old.get(name), new[name]) for name in names)


def _told(name: str, then: Any, now: Any) -> str:
    if name != "input" or not isinstance(then, list):
        return f"{name} ({then!r} then, {now!r} now)"
    before, after = [each[0] for each in then], [each[0] for each in now]
    if before != after:
        return f"input ({', '.join(before)} then, {', '.join(after)} now)"
    changed = [one[0] for one, other in zip(now, then, strict=True) if one != other]
    return f"{', '.join(changed)} changed in between"
