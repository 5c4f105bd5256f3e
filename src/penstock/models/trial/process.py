"""The server's handle of the process that tries models: starts it, asks it, and ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from penstock.config import TrialConfig
from penstock.core.blocked_signals import blocked
from penstock.core.errors import ModelLoadError
from penstock.core.memory import available_bytes, resident_bytes
from penstock.models.opened import Candidate
from penstock.models.trial.learned import Learned
from penstock.models.trial.messages import Ready, Refused, Tried, Try
from penstock.models.trial.run_notes import clear_note, create_page, read_note

COMMAND = (sys.executable, "-P", "-m", "penstock.models.trial")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that may be sent to all processes of a server. Only the server acts on them, and ends the child."""
START_SECONDS = 60.0
STARTS = 2  # how often it is started, if it ends before it begins to try a model
LOOK_SECONDS = 0.02  # how often its memory is looked at
EXIT_SECONDS = 5.0  # for the child to end, once it has closed its connection
LARGE_BYTES = 1 << 30
"""A child that holds more memory than this after a trial is replaced: it is not the next model's."""
AVAILABLE_SHARE = 0.9
"""How much of the memory that is left a trial may take, if the settings do not say."""
LAST_BYTES = 4096  # of what the child wrote to standard error


class CannotTry(Exception):
    """There is no process to try models in; says why."""


class TrialProcess:
    """Tries models in a child process, which is started when it is needed and used until it ends.

    Not for several threads at once.

    Args:
        config: the bounds in time and memory.
        opener: what opens model files in the child, as "module:name".
    """

    def __init__(self, config: TrialConfig, opener: str) -> None:
        self._config = config
        self._opener = opener
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """The id of the child process; None while there is none."""
        return self._child.pid if self._child else None

    def doing(self) -> str:
        """What the child does with a model, in words that follow "when"; "" if that is not known."""
        return self._child.note() if self._child else ""

    def start(self) -> None:
        """Starts the child process, if there is none yet.

        Raises:
            CannotTry: it does not start.
        """
        self._running()

    def learn(self, candidate: Candidate) -> Learned:
        """Tries a model.

        Raises:
            ModelLoadError: it cannot be served: it cannot be loaded, it ended the process, or it took more
                time or memory than it may.
            CannotTry: the child does not start.
        """
        answer = self._answer(candidate)
        if isinstance(answer, Refused):
            raise ModelLoadError(answer.reason) from (RuntimeError(answer.cause) if answer.cause else None)
        assert isinstance(answer, Tried)
        return answer.learned

    def close(self) -> None:
        """Ends the child process, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _running(self) -> _Child:
        """The child, which is started again if it was killed before it was ready."""
        reason = ""
        for _ in range(STARTS):
            if self._child is not None:
                break
            reason = self._start()
        if self._child is None:
            raise CannotTry(reason)
        return self._child

    def _start(self) -> str:
        """Starts the child; why it ended before it was ready, or "".

        Raises:
            CannotTry: it cannot be started, or is not ready in time.
        """
        try:
            self._child = child = _Child(self._opener)
            ready = child.answer(START_SECONDS, sys.maxsize)
        except (OSError, _Stopped) as error:
            self.close()
            raise CannotTry(f"it cannot be started: {error}") from error
        except _Ended:
            said, code = child.said(), child.wait()
            self.close()
            return f"it ended {_how(code)} before it was ready, {STARTS} times{f': {said}' if said else ''}"
        assert isinstance(ready, Ready)
        return ""

    def _answer(self, candidate: Candidate) -> object:
        """What the child says of a model."""
        for _ in range(STARTS):
            child = self._running()
            try:
                answer = child.tries(candidate, self._config.seconds, self._most_bytes(child))
            except _Stopped as stopped:
                note = child.note()
                self.close()
                raise ModelLoadError(
                    f"{candidate.path} {stopped} when {note or 'it was loaded'}; {stopped.advice}"
                ) from None
            except _Ended:
                note, code, said = child.note(), child.wait(), child.said()
                self.close()
                if note:
                    raise _ended(candidate.path, note, code) from (RuntimeError(said) if said else None)
                continue  # it ended before it began with this model, which has no part in it
            if child.resident_bytes() > LARGE_BYTES:
                self.close()
            return answer
        raise CannotTry(f"it ended {STARTS} times before it tried a model")

    def _most_bytes(self, child: _Child) -> int:
        if self._config.memory_bytes:
            return self._config.memory_bytes
        left = available_bytes()
        return child.resident_bytes() + int(left * AVAILABLE_SHARE) if left else sys.maxsize


class _Ended(Exception):
    """The child has ended."""


class _Stopped(Exception):
    """The child goes beyond a bound, in words that follow the file's name.

    Attributes:
        advice: what the operator can do.
    """

    def __init__(self, words: str, advice: str = "") -> None:
        super().__init__(words)
        self.advice = advice


class _Child:
    """One child process.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, opener: str) -> None:
        self._page = create_page()
        self._errors: IO[bytes] = _memory_file()
        self._connection, theirs = Pipe()
        command = [*COMMAND, opener, str(self._page), str(os.getpid())]
        try:
            with theirs, blocked(SIGNALS):
                self._process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=self._errors,
                    stderr=self._errors,
                    pass_fds=(self._page,),
                )
        except BaseException:
            self._release()
            raise
        self.pid = self._process.pid

    def tries(self, candidate: Candidate, seconds: float, most_bytes: int) -> object:
        """Lets it try a model; see `answer`. From the beginning of the trial on, it has a note."""
        clear_note(self._page)
        try:
            self._connection.send(Try(candidate))
        except OSError:
            raise _Ended from None
        return self.answer(seconds, most_bytes)

    def answer(self, seconds: float, most_bytes: int) -> object:
        """Its next message.

        Args:
            seconds: the longest to wait.
            most_bytes: the most memory that it may take meanwhile.

        Raises:
            _Ended: it has ended.
            _Stopped: it takes longer, or more memory.
        """
        end = time.monotonic() + seconds
        try:
            while not self._connection.poll(LOOK_SECONDS):
                if time.monotonic() > end:
                    raise _Stopped(f"took longer than {seconds:g} s", TIME_ADVICE)
                if self.resident_bytes() > most_bytes:
                    raise _Stopped(f"took more than {most_bytes:,} bytes of memory", MEMORY_ADVICE)
            return self._connection.recv()
        except (EOFError, OSError):
            raise self._closed() from None

    def _closed(self) -> _Ended | _Stopped:
        """What has become of it, once it has closed its connection."""
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return _Stopped("stopped answering", "its process closed the connection and did not end")
        return _Ended()

    def resident_bytes(self) -> int:
        """The memory that it takes."""
        return resident_bytes(self.pid)

    def note(self) -> str:
        """What the model is doing, or did last."""
        return read_note(self._page)

    def wait(self) -> int:
        """Its exit code, once it has ended; negative for a signal."""
        return self._process.wait()

    def said(self) -> str:
        """The end of what it wrote to standard error."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(size - LAST_BYTES, 0))
        return self._errors.read().decode(errors="replace").strip()

    def close(self) -> None:
        """Ends it. It has nothing to finish."""
        self._process.kill()
        self._process.wait()
        self._release()

    def _release(self) -> None:
        self._connection.close()
        self._errors.close()
        os.close(self._page)


TIME_ADVICE = "a slow model needs more: set trial.seconds"
MEMORY_ADVICE = "a large model needs more: set trial.memory_bytes"


def _ended(path: Path, note: str, code: int) -> ModelLoadError:
    why = ", which the kernel sends if memory runs out" if code == -signal.SIGKILL else ""
    return ModelLoadError(f"{path} ended the process that tried it, {_how(code)}{why}, when {note}")


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    with suppress(ValueError):
        return f"by {signal.Signals(-code).name}"
    return f"by signal {-code}"


def _memory_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("penstock-trial-errors", os.MFD_CLOEXEC), "w+b")
    return TemporaryFile()
