"""Shows on a terminal which model is being loaded, and for how long; shows nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Progress:
    """The display of the progress; this base class shows nothing."""

    def update(self, text: str) -> None:
        """Shows what the server is doing now."""

    def abandon(self) -> None:
        """Restores the terminal before the process ends at once; may be called from any thread."""


class _OnTerminal(Progress):
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bar
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.description}", markup=False)
        self._console = Console(stderr=True)
        self.bar = Bar(SpinnerColumn(), text, TimeElapsedColumn(), console=self._console, transient=True)
        self._task = self.bar.add_task("starting", total=None)

    def update(self, text: str) -> None:
        self.bar.update(self._task, description=text, refresh=True)  # however short the step is

    def abandon(self) -> None:
        with suppress(OSError):
            self._console.show_cursor(True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Shows the progress until the `with` statement ends, then removes it.

    Until then `sys.stderr` is replaced by a file that writes above the progress line.
    """
    if not sys.stderr.isatty():
        yield Progress()
        return
    shown = _OnTerminal()
    with shown.bar:
        yield shown
