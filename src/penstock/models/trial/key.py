"""The key of what was learned about a version: it changes with all that the result may depend on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from functools import cache
from operator import is_
from pathlib import Path
from typing import NamedTuple, TypeAlias

from penstock import __version__
from penstock.backends.digest import Stamps, digest_before_load
from penstock.config import BatchingConfig, ModelConfig, RuntimeConfig
from penstock.models.opened import Candidate

WITHOUT_EFFECT = {"versions", "labels", "weight", "class_labels", "inline"}
"""The settings of a model that do not change what a trial finds out."""
CODE = Path(__file__).parents[2]
OF_THE_CODE = ("models", "scheduling", "backends")
"""The packages whose code takes part in a trial."""


Settings: TypeAlias = tuple[ModelConfig, BatchingConfig, RuntimeConfig]


class Key(NamedTuple):
    """A key, and the files that it is made from.

    Attributes:
        text: a SHA-256 in hexadecimal.
        batches: another one, of the files of the version and of the settings that decide what a batch is. It
            stays the same with another release or processor, so that a batch that changed an answer counts.
        files: as they were when it was made.
    """

    text: str
    batches: str
    files: Stamps


def key_of(candidate: Candidate, runtime_version: str) -> Key | None:
    """The key of what is learned about a version.

    Args:
        candidate: the version.
        runtime_version: the release of ONNX Runtime.

    Returns:
        A key of the version's files, the settings, the releases of ONNX Runtime and of this server, and the
        processors; None if a file cannot be read.
    """
    found = digest_before_load(candidate.path)
    named = [_named_file(candidate.folder / name) for name in _named(candidate.settings)]
    if found is None or "" in named:
        return None
    digest, files = found
    settings = (candidate.settings, candidate.batching, candidate.runtime)
    parts = [digest, *named, *_of_all.of(settings), str(candidate.cores), _surroundings(runtime_version)]
    return Key(_sha256(parts), _sha256([digest, *_of_batches.of(settings)]), files)


def _sha256(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class _OfSettings:
    """Texts made of settings. Those of the last model are kept: most models have the same.

    Args:
        make: makes them.
    """

    def __init__(self, make: Callable[[Settings], Sequence[object]]) -> None:
        self._make = make
        self._last: tuple[Settings, Sequence[object]] | None = None

    def of(self, settings: Settings) -> Sequence[object]:
        """Equal for equal settings."""
        if self._last is None or not all(map(is_, self._last[0], settings)):
            self._last = settings, self._make(settings)
        return self._last[1]


def _all(settings: Settings) -> Sequence[object]:
    """All settings, as far as a trial depends on them."""
    return [_sha256([each.model_dump_json(exclude=WITHOUT_EFFECT) for each in settings])]


def _batches(settings: Settings) -> Sequence[object]:
    """The settings that decide what a batch is, and what counts as a difference."""
    model, batching, _ = settings
    sections = (model.sequence, model.padding)
    given = [each.model_dump(mode="json", exclude_defaults=True) for each in sections]
    return [*given, model.batching.axes, batching.exact, batching.tolerance]


_of_all, _of_batches = _OfSettings(_all), _OfSettings(_batches)


def _named(settings: ModelConfig) -> list[str]:
    """The files beside `model.toml` that a trial reads."""
    of_requests = filter(None, [settings.sample.file])
    return sorted({*settings.sequence.initial.values(), *of_requests})


def _named_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError):  # loading the model says in which way
        return ""


@cache
def _surroundings(runtime_version: str) -> str:
    """What is the same for all models, as one SHA-256."""
    return _sha256([runtime_version, code(), processor()])


@cache
def code() -> str:
    """This release, and when its code was last changed: code that is being worked on keeps its release."""
    changed = [
        (path.name, os.stat(path).st_mtime_ns)
        for package in OF_THE_CODE
        for path in sorted((CODE / package).rglob("*.py"))
    ]
    return f"{__version__} {hashlib.sha256(repr(changed).encode()).hexdigest()}"


@cache
def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The kind of the processors: ONNX Runtime chooses its code by it."""
    try:
        first = cpuinfo.read_text(errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kinds = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
    lines = [line for line in first if line.split("\t")[0].strip(": ") in kinds]
    return "\n".join([platform.machine(), *lines])
