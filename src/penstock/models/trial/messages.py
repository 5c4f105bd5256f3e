"""The messages between a server and the process that tries models for it, sent over a socket pair."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.models.opened import Candidate
from penstock.models.trial.learned import Learned


@dataclass(frozen=True, slots=True)
class Ready:
    """From the child: its libraries are loaded."""


@dataclass(frozen=True, slots=True)
class Try:
    """To the child: try this model."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Tried:
    """From the child: what was learned."""

    learned: Learned


@dataclass(frozen=True, slots=True)
class Refused:
    """From the child: the model cannot be served.

    Attributes:
        reason: the message for the operator.
        cause: the whole message of ONNX Runtime, for the log; "" if there is no more.
    """

    reason: str
    cause: str = ""
