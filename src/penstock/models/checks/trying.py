"""Runs a model on generated input, or on the real requests of a sample."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from penstock.backends.backend import Backend
from penstock.core.errors import ModelFailed
from penstock.core.tensors import Array
from penstock.models.fills import ones
from penstock.models.samples import UNKNOWN, Manner, Sample, made, manners

ON_PROCESSORS = ("CPUExecutionProvider",)
"""The providers of a model that works on processors alone."""

Clock: TypeAlias = Callable[[], float]
"""Gives the time in seconds. By default the wall's: a backend may work on several threads and devices."""


class Tried(NamedTuple):
    """A run that the model made.

    Attributes:
        manner: how its inputs were made up.
        seconds: how long it took.
    """

    manner: Manner
    inputs: dict[str, Array]
    outputs: Sequence[Array]
    seconds: float


class _Freeing:
    """Tells the backend to keep no memory for further runs; see `RunControl`."""

    is_large = True

    def stop_with(self, stop: Callable[[], None]) -> None:
        """Nothing here ends a run early."""


def try_in_turn(  # noqa: PLR0913 - what is known of a run
    backend: Backend,
    rows: int | None,
    seed: int,
    ways: Sequence[Manner],
    sample: Sample = UNKNOWN,
    clock: Clock | None = None,
) -> Tried:
    """The first run that the model makes, of inputs made up in one manner after another.

    Raises:
        ModelFailed: it fails on all of them; the last error.
    """
    now = clock or time.monotonic
    error = ModelFailed("there are no requests to try")
    for manner in ways:
        inputs = made(backend.signature, rows, seed, manner, sample)
        started = now()
        try:
            outputs = backend.run(tuple(backend.signature.outputs), inputs)
        except ModelFailed as failure:
            error = failure
            continue
        return Tried(manner, inputs, outputs, now() - started)
    raise error


def undisturbed(backend: Backend, cores: int) -> Clock | None:
    """The clock of the calling thread's own processor time, if a run needs nothing else; else None.

    Other programs make a run longer by the wall clock, and a long run more often than a short one. They
    hardly change how long a processor works on it.

    Args:
        backend: the model.
        cores: how many processors, or threads, a run works on.
    """
    return time.thread_time if cores == 1 and tuple(backend.providers) == ON_PROCESSORS else None


def runs_on_generated_input(backend: Backend, sample: Sample = UNKNOWN) -> bool:
    """Whether the model runs on any generated input for one request."""
    try:
        try_in_turn(backend, None, 1, manners(backend.signature, sample, alone=True), sample)
    except ModelFailed:
        return False
    return True


def run_example(backend: Backend, sample: Sample = UNKNOWN) -> Tried:
    """Runs the model on one request, which warms it up and can be shown as an example.

    The first that is tried is short to write down: the first request of a sample, or the same value
    everywhere.

    Returns:
        The run.

    Raises:
        ModelFailed: the model fails on all that are tried.
    """
    ways = list(manners(backend.signature, sample, alone=True))
    if not sample.requests:
        ways = [*(Manner(ones, size) for size in sorted({way.size for way in ways})), *ways]
    return try_in_turn(backend, None, 0, ways, sample)


def free_memory(backend: Backend, inputs: Mapping[str, Array]) -> None:
    """Runs the model once more, so that it keeps only the memory that such a run needs."""
    try:
        backend.run(tuple(backend.signature.outputs), inputs, _Freeing())
    except ModelFailed:
        return
