"""Why a file cannot be read as a model or as its weights, in words for error messages."""

from __future__ import annotations

import os
import stat
from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def why_no_file(path: Path) -> str:
    """Why a path is not a file, in words that follow its name; "" if it is a file.

    Does not open the file.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if path.is_symlink():
            return f"is a link to {os.readlink(path)}, which is not there"
        return "is not there"
    except (OSError, ValueError) as error:
        return _cannot_be_read(error)
    if stat.S_ISDIR(mode):
        return "is a folder"
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    return ""


def why_unusable(path: Path) -> str:
    """As `why_no_file`, for a file that cannot be read or holds nothing to load as well."""
    reason = why_no_file(path)
    if reason:
        return reason
    try:
        with path.open("rb", buffering=0) as file:
            beginning = file.read(len(LFS_POINTER))
    except OSError as error:
        return _cannot_be_read(error)
    if not beginning:
        return "is empty"
    if beginning == LFS_POINTER:
        return "is a Git LFS pointer instead of the file itself: run `git lfs pull`"
    return ""


def _cannot_be_read(error: OSError | ValueError) -> str:
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"
