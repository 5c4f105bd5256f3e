"""What the cases need of the processes that run them."""

from __future__ import annotations

import locale
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

RELEASED_ONLY = "ALLOW_RELEASED_ONNX_OPSET_ONLY"
LOCALE = "en_US.UTF-8"
"""StringNormalizer asks for it by this name, whatever locale the process is in."""


@contextmanager
def surroundings() -> Iterator[None]:
    """Until the block ends, this process and those that it starts can run the cases.

    ONNX Runtime takes operator sets that it does not call released yet, and there is a locale that knows
    letters beyond ASCII, where one can be made.
    """
    with tempfile.TemporaryDirectory() as folder:
        variables = {RELEASED_ONLY: "0"}
        if not _has_locale() and _made_locale(Path(folder)):
            variables["LOCPATH"] = folder
        with _set(variables):
            yield


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _has_locale() -> bool:
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, LOCALE)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_CTYPE, before)
    return True


def _made_locale(folder: Path) -> bool:
    """Makes the locale, with what the C library brings for that."""
    program = shutil.which("localedef")
    if program is None:
        return False
    name, _, encoding = LOCALE.partition(".")
    command = [program, "-i", name, "-f", encoding, str(folder / LOCALE)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
