"""How the requests of a model are run, as its settings say: in which batches, and what failures lead to."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_uint32
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How a model's requests are batched.

    Attributes:
        batched: whether requests run together at all.
        max_rows: the most rows of a batch of several requests.
        max_delay_seconds: how long a request may be held back to fill a batch; 0 for never.
        queue_rows: the most rows that may wait.
        queue_bytes: the most bytes of messages that may wait.
        runs_in_parallel: how many runs of this model may go on at the same time.
        weight: the model's share of the runner threads, relative to other models.
        cores: how many cores a run works on.
        inline: whether quick runs may be made by the threads that take calls.
        max_answer_bytes: the largest answer.
    """

    batched: bool
    max_rows: int
    max_delay_seconds: float
    queue_rows: int
    queue_bytes: int
    runs_in_parallel: int
    weight: float = 1.0
    cores: int = 1
    inline: bool = True
    max_answer_bytes: int = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Isolation:
    """How failures and hanging runs of a model are kept from affecting other requests, models and processes.

    Attributes:
        failures: failed batches in a row after which the model is tried with `works`; 0 for never.
        open_seconds: for how long requests are rejected at first if the model fails on every input.
        hung_seconds: after how long a run counts as hanging; 0 for never.
        works: whether the model still runs on input that worked when it was loaded.
        recorded: is set to the number of batches being run (see `penstock.core.run_recorder`).
    """

    failures: int = 0
    open_seconds: float = 1.0
    hung_seconds: float = 0.0
    works: Callable[[], bool] = lambda: False
    recorded: c_uint32 = field(default_factory=c_uint32)
