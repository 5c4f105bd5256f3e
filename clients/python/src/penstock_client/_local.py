"""What a client is bound to: the process that made it."""

from __future__ import annotations

import os
from typing import Any, NoReturn
from weakref import WeakSet

from penstock_client._errors import PenstockError

FORKED = (
    "this client was made before the process was forked, and its connection belongs to the parent: make a "
    "client in each process"
)


class _Forked:
    """Takes the place of the parts of a client that a forked process cannot use."""

    def __getattr__(self, name: str) -> NoReturn:
        raise PenstockError(FORKED)

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise PenstockError(FORKED)


class Local:
    """An object that works in the process that made it only, and says so elsewhere."""

    def __init__(self) -> None:
        _all.add(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} is a connection and cannot be pickled: make one in each process"
        )

    def forked(self) -> None:
        """Called in a forked process."""
        broken: Any = _Forked()
        self._requests = broken
        self._call = broken


_all: WeakSet[Local] = WeakSet()


def _after_fork() -> None:
    for each in list(_all):
        each.forked()


os.register_at_fork(after_in_child=_after_fork)
