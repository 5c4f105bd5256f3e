"""The output of `penstock --version`, from the metadata of packages; imports nothing large."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from penstock import __version__

LIBRARIES = ("grpcio", "onnxruntime")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def versions() -> Iterator[str]:
    """Penstock's version; then the version and the tested range of each main library."""
    yield f"penstock, version {__version__}"
    tested = _tested()
    for library in LIBRARIES:
        yield f"{library} {_installed(library)} (tested with {tested.get(library, 'no particular range')})"


def _installed(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _tested() -> dict[str, str]:
    """The range of each library that Penstock depends on, such as ">=1.74,<1.86"."""
    try:
        wanted = requires("penstock") or []
    except PackageNotFoundError:  # a checkout that is not installed
        return {}
    ranges = {}
    for requirement in wanted:
        text, _, marker = requirement.partition(";")
        name = _NAME.match(text)
        if name is not None and "extra" not in marker:
            parts = text[name.end() :].strip(" ()").replace(" ", "").split(",")
            ranges[name[0].lower()] = ",".join(sorted(parts, key=_lower_bound_first))
    return ranges


def _lower_bound_first(part: str) -> tuple[bool, bool, str]:
    return not part.startswith(">"), not part.startswith("<"), part
