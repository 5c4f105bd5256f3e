"""How a process ended, for the log and for messages."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from penstock.processes.worker_process import WorkerProcess


def how(code: int) -> dict[str, object]:
    """How a process ended, for the log."""
    if code >= 0:
        return {"exit_code": code}
    try:
        return {"signal": signal.Signals(-code).name}
    except ValueError:  # most real-time signals have no name
        return {"signal": str(-code)}


def unready(worker: WorkerProcess, code: int) -> str:
    """The error for a process that ended before it was ready."""
    running = f" while it loaded {', '.join(worker.was_running)}" if worker.was_running else ""
    return f"process {worker.number} ended before it was ready{running} ({in_words(how(code))})"


def in_words(facts: Mapping[str, object]) -> str:
    """Facts about an end as one line."""
    return ", ".join(f"{key.replace('_', ' ')} {_text(value)}" for key, value in facts.items())


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
