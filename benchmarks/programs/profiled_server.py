"""A server whose polling thread is profiled while the file FILE.on exists.

    python benchmarks/programs/profiled_server.py FILE serve MODELS ...

Runs in the environment of any checkout. FILE.began is made when the profile begins. FILE is written, as
cProfile does, once FILE.on is removed and the polling thread has something to do.
"""

from __future__ import annotations

import cProfile
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REACTORS = ("penstock.transport.grpc.reactor", "penstock.transport.reactor")
"""Where the reactor is, and where it was in earlier builds."""
WATCHED_SECONDS = 0.05


class Profiled:
    """Profiles the thread that calls `look`.

    Args:
        file: where the profile is written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._profile = cProfile.Profile()
        self._wanted = self._on = False

    def watch(self) -> None:
        """Looks for FILE.on again and again, on a thread of its own: the polling thread should do no more."""
        switch = self._file.with_suffix(".on")
        while True:
            self._wanted = switch.exists()
            time.sleep(WATCHED_SECONDS)

    def look(self) -> None:
        """Begins or ends, if FILE.on has come or gone."""
        if self._wanted and not self._on:
            self._on = True
            self._file.with_suffix(".began").touch()
            self._profile.enable()
        elif self._on and not self._wanted:
            self._on = False
            self._profile.disable()
            part = self._file.with_suffix(".part")
            self._profile.dump_stats(part)
            os.replace(part, self._file)


def main() -> None:
    """Serves."""
    profiled = Profiled(Path(sys.argv.pop(1)))
    threading.Thread(target=profiled.watch, daemon=True).start()
    reactor = _reactor()
    serve = reactor._serve

    def serving(self: Any) -> None:
        idle: Callable[[], bool] = self._idle

        def looking() -> bool:
            profiled.look()
            return idle()

        self._idle = looking
        serve(self)

    reactor._serve = serving
    from penstock.cli import main as command

    command()


def _reactor() -> Any:
    for name in REACTORS:
        try:
            return importlib.import_module(name).Reactor
        except ModuleNotFoundError:
            continue
    raise SystemExit(f"no reactor in {', '.join(REACTORS)}")


if __name__ == "__main__":
    main()
