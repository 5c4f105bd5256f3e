"""The messages between the supervisor and a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.config import Config
from penstock.observability.families import Family


@dataclass(frozen=True, slots=True)
class Assignment:
    """The first message to a worker: its number, models, settings and cores.

    Attributes:
        number: of the worker, from 1.
        config: the settings; the port is the one to share.
        path: an .onnx file or a repository.
        cores: how many processors it has to itself.
        announced: whether the other workers serve already; then its health is SERVING from the first.
        ops_address: "host:port" of operations, which the supervisor serves for all workers.
        processors: how many all workers may use together, in words.
        split: how the processors are divided among the workers, in words.
        models: the models to load, as a worker reported them (`Ready`): then the folder is not searched, and
            those that cannot be loaded any more are reported while the others are served. None for what is at
            `path` now.
        run_page: the file descriptor of the page on which it writes down which models are being run; see
            `penstock.core.run_recorder`.
    """

    number: int
    config: Config
    path: Path
    cores: int
    announced: bool
    ops_address: str
    processors: str
    split: str
    models: bytes | None = None
    run_page: int | None = None


@dataclass(frozen=True, slots=True)
class Announce:
    """To a worker: all workers are ready, so health is SERVING."""


@dataclass(frozen=True, slots=True)
class MetricsRequest:
    """To a worker: send your metrics.

    Attributes:
        number: which the answer repeats.
        for_page: whether what the page shows besides is wanted, too.
    """

    number: int
    for_page: bool = False


@dataclass(frozen=True, slots=True)
class Leave:
    """To a worker: another one has taken its place. It ends without refusing a call."""


@dataclass(frozen=True, slots=True)
class Stop:
    """To a worker: all workers stop. It may come while the worker leaves, which then ends sooner."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it takes calls.

    Attributes:
        summary: what `penstock serve` prints.
        models: the models that it was to load, pickled: the supervisor does not import what describes them.
    """

    summary: str
    models: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """From a worker: it cannot start.

    Attributes:
        reason: why, in words.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Hung:
    """From a worker: which of its models hang now.

    Attributes:
        models: their names; empty once all runs have ended.
        is_stuck: whether a run hangs on a thread that takes calls, so that none are taken there.
        is_blocked: whether these runs keep the whole process from being ready.
    """

    models: frozenset[str]
    is_stuck: bool
    is_blocked: bool


@dataclass(frozen=True, slots=True)
class MetricsReport:
    """From a worker: its metrics.

    Attributes:
        number: of the request; 0 for the last report, which a worker sends unasked just before it ends.
        families: all metrics.
        models: JSON of every version of every model, if that was wanted.
        errors: the recent errors, the newest first, if they were wanted.
    """

    number: int
    families: tuple[Family, ...]
    models: Sequence[str] = ()
    errors: Sequence[Mapping[str, Any]] = ()
