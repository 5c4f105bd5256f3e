"""Prepares models to be loaded: takes what was learned about them before, or tries them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from penstock.backends.digest import CHANGED
from penstock.backends.onnx_file import reading_once, remember
from penstock.core.errors import ModelLoadError
from penstock.models.opened import Candidate, OpenBackend, Opened, opened
from penstock.models.trial.cache import LearnedCache, differed_name
from penstock.models.trial.key import Key, key_of
from penstock.models.trial.learned import Differed, Learned, today
from penstock.models.trial.learning import learn
from penstock.models.trial.process import CannotTry, TrialProcess


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What trials are made with, besides what opens model files.

    Attributes:
        process: tries models in a child process; with None they are tried in this one.
        cache: what was learned before; None for nothing.
        runtime_version: the release of ONNX Runtime.
        no_process: called with the reason if there can be no child process, and models are tried in this one.
    """

    process: TrialProcess | None = None
    cache: LearnedCache | None = None
    runtime_version: str = ""
    no_process: Callable[[str], None] = lambda reason: None


class Prepared(NamedTuple):
    """A model that can be served.

    Attributes:
        learned: what its scheduling needs.
        opened: the model.
        why: what the verdict on its batching rests on as well; see `Batching.why`.
        keep_difference: see `Model.keep_difference`.
        forget: lets the next start try the model again.
    """

    learned: Learned
    opened: Opened
    why: tuple[str, ...] = ()
    keep_difference: Callable[[str], str] = lambda _: ""
    forget: Callable[[], None] = lambda: None


def alone_since(differed: Differed, learned: Learned, file: str) -> Learned:
    """What was learned of a model, whose requests run alone since batches changed answers.

    Args:
        differed: what was found of its batches.
        learned: what was learned at load.
        file: the name of the file that `differed` is kept in.
    """
    if not learned.batching.enabled:
        return learned
    reason = f"its batches differed from lone runs on live requests on {differed.date}: {differed.reason}"
    why = (*learned.batching.why, f"to try batches again, remove {file} in the cache folder and restart")
    return replace(learned, batching=replace(learned.batching, enabled=False, reason=reason, why=why))


class Misfit(Exception):
    """What was learned cannot have been learned of this model: a file of the cache is damaged."""


class Trials:
    """Opens models, and finds out about each what its scheduling needs.

    Args:
        open_backend: opens model files in this process.
        given: what else it works with. By default models are tried in this process, and nothing is kept.
    """

    def __init__(self, open_backend: OpenBackend, given: Collaborators) -> None:
        self._open_backend = open_backend
        self._process = given.process
        self._cache = given.cache
        self._runtime_version = given.runtime_version
        self._no_process = given.no_process

    def prepare(self, candidate: Candidate) -> Prepared:
        """Opens a model in this process, once it is known that it can be.

        Raises:
            ModelLoadError: it cannot be served.
        """
        with reading_once():
            cache = self._cache
            key = key_of(candidate, self._runtime_version) if cache else None
            if cache is None or key is None:
                return Prepared(*self._tried(candidate))
            learned, found, why = self._learned(candidate, key, cache)
        differed = cache.read_differed(key.batches)
        if differed is not None:
            learned = replace(learned, batching=learned.batching.saying(learned.batching.reason, *why))
            learned, why = alone_since(differed, learned, differed_name(key.batches)), ()
        forget = partial(cache.forget, key.text)
        return Prepared(learned, found, why, partial(_keep_difference, cache, key.batches), forget)

    def _learned(
        self, candidate: Candidate, key: Key, cache: LearnedCache
    ) -> tuple[Learned, Opened, tuple[str, ...]]:
        """What the cache has, or what a trial finds, which is then kept; see `Prepared`."""
        known = self._known(candidate, key, cache)
        if known is None:
            with cache.alone(key.text):
                known = self._known(candidate, key, cache)  # another process may have tried it meanwhile
                if known is None:
                    learned, found = self._tried(candidate)
                    found = self._unchanged(found, key)
                    cache.write(key.text, learned)
                    return learned, found, ()
        learned, found = known
        said = f"this and the costs were learned on {learned.date} and come from the cache"
        return learned, self._unchanged(found, key), (said,)

    def _known(self, candidate: Candidate, key: Key, cache: LearnedCache) -> tuple[Learned, Opened] | None:
        """What the cache has, and the model; None if there is nothing that fits the model."""
        learned = cache.read(key.text)
        if learned is None:
            return None
        try:
            return learned, self._open(candidate, learned, of_file=True)
        except Misfit:
            return None

    def _unchanged(self, found: Opened, key: Key) -> Opened:
        """The model, if its files are still those of the key.

        Raises:
            ModelLoadError: a file has changed.
        """
        changed = key.files.changed()
        if changed is None:
            return found
        found.backend.close()
        raise ModelLoadError(f"{changed} {CHANGED}")

    def end(self) -> None:
        """Ends the child process: no more models are loaded for now."""
        if self._process is not None:
            self._process.close()
        if self._cache is not None:
            self._cache.trim()

    def _tried(self, candidate: Candidate) -> tuple[Learned, Opened]:
        if self._process is not None:
            try:
                learned = self._process.learn(candidate)
            except CannotTry as error:
                self._process = None
                self._no_process(str(error))
            else:
                return learned, self._open(candidate, learned)
        return learn(candidate, self._open_backend)

    def _open(self, candidate: Candidate, learned: Learned, *, of_file: bool = False) -> Opened:
        """Opens a model with what was learned about it; what a file says of it is checked first.

        Raises:
            Misfit: the file is damaged.
            ModelLoadError: the model cannot be opened.
        """
        if learned.file is not None:
            remember(candidate.path, learned.file)
        found = opened(
            candidate,
            self._open_backend,
            learned.runs_in_parallel,
            learned.cores,
            learned.layout.row_axes_of,
        )
        if of_file:
            try:
                learned.check_model(found.states_first.signature)
            except ValueError as error:
                found.backend.close()
                raise Misfit(str(error)) from error
        if learned.changes:
            found.backend.file = replace(found.backend.file, changes=learned.changes)
        return found if found.padding is None else found._replace(padding=learned.of_padding(found.padding))


def _keep_difference(cache: LearnedCache, key: str, reason: str) -> str:
    """Keeps that a batch changed an answer, on a thread of its own: this may be the polling thread."""
    write = partial(cache.write_differed, key, Differed(today(), reason))
    threading.Thread(target=write, name="penstock-differed", daemon=True).start()
    return f"kept for later starts in {differed_name(key)} in the cache folder"
