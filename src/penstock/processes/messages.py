"""What the supervisor and a worker tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock.config import Config
from penstock.telemetry.families import Family


@dataclass(frozen=True, slots=True)
class Orders:
    """The first message to a worker: what it is to serve.

    Attributes:
        number: of the worker, from 1.
        config: the settings; the port is the one to share.
        path: an .onnx file or a repository.
        cores: how many processors it is to use.
        announced: whether the others serve already, so that it may say so, too, once it listens.
        ops_address: "host:port" of the operations of all.
        split: how the machine is shared out, for people.
    """

    number: int
    config: Config
    path: Path
    cores: int
    announced: bool
    ops_address: str
    split: str


@dataclass(frozen=True, slots=True)
class Announce:
    """To a worker: all are ready, health is SERVING."""


@dataclass(frozen=True, slots=True)
class Ask:
    """To a worker: its metrics are wanted.

    Attributes:
        number: for the answer to repeat.
    """

    number: int


@dataclass(frozen=True, slots=True)
class Leave:
    """To a worker: another has taken its place, and it is to go without refusing a call."""


@dataclass(frozen=True, slots=True)
class Stop:
    """To a worker: all are to stop. Also said while it leaves, and then it hurries."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it takes calls.

    Attributes:
        summary: what `penstock serve` prints.
    """

    summary: str


@dataclass(frozen=True, slots=True)
class Failed:
    """From a worker: it cannot start.

    Attributes:
        words: why, for people.
    """

    words: str


@dataclass(frozen=True, slots=True)
class Hung:
    """From a worker: which of its models hang now.

    Attributes:
        models: their names; none once all runs have come to an end.
        is_stuck: whether a run hangs on the thread that polls gRPC, so that it takes no calls.
    """

    models: frozenset[str]
    is_stuck: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """From a worker: its metrics.

    Attributes:
        number: of the question; 0 for the last counts, which come unasked just before its end.
        families: all metrics.
    """

    number: int
    families: tuple[Family, ...]
