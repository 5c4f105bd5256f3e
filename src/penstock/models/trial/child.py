"""The process that tries models, one after another, until its server closes the connection or ends."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pkgutil
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from penstock.backends.backend import Backend
from penstock.config import RuntimeConfig
from penstock.core.errors import ModelLoadError
from penstock.models.opened import Candidate, OpenBackend
from penstock.models.trial.learning import learn
from penstock.models.trial.messages import Ready, Refused, Tried, Try
from penstock.models.trial.run_notes import NotedRuns, RunNotes

PR_SET_PDEATHSIG = 1
LOOK_SECONDS = 1.0
FIRST_TO_GO = "1000"  # to the kernel, if memory runs out


def main(opener: str, page: int, parent: int) -> None:
    """Tries what the server at the other end of standard input sends.

    Args:
        opener: what opens model files, as "module:name". Besides what `OpenBackend` takes, it is given the
            processors to share out among runs as `share`.
        page: the descriptor of the page for notes.
        parent: the server's process id.
    """
    _end_with(parent)
    faulthandler.enable(all_threads=False)
    connection, notes = Connection(os.dup(0)), RunNotes(page)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    _prepare_for_crashes()
    open_file = pkgutil.resolve_name(opener)
    with suppress(EOFError, OSError):  # the server has no more models to try, or has ended
        connection.send(Ready())
        while True:
            message = connection.recv()
            assert isinstance(message, Try)
            open_backend = _noted(partial(open_file, share=message.candidate.cores), notes)
            connection.send(_answer(message.candidate, open_backend, notes))
    sys.stderr.flush()
    os._exit(0)  # a normal exit would tear ONNX Runtime down, which takes time and may crash


def _answer(candidate: Candidate, open_backend: OpenBackend, notes: RunNotes) -> Tried | Refused:
    notes.write("it was loaded")
    try:
        learned, opened = learn(candidate, open_backend)
    except ModelLoadError as error:
        return Refused(str(error), str(error.__cause__ or ""))
    notes.write("it was closed")
    opened.backend.close()
    return Tried(learned)


def _noted(open_backend: OpenBackend, notes: RunNotes) -> OpenBackend:
    def open_noted(path: Path, runtime: RuntimeConfig, runs_in_parallel: int) -> Backend:
        notes.write("it was loaded")
        backend = NotedRuns(open_backend(path, runtime, runs_in_parallel), notes)
        notes.write("it was looked at")
        return backend

    return open_noted


def _end_with(parent: int) -> None:
    """This process ends when its server does, also in the middle of a load, which no thread can interrupt."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it has ended already
        os._exit(0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(0)


def _prepare_for_crashes() -> None:
    """A crash writes no file with this process's memory. If memory runs out, this process is ended first."""
    import resource

    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
