"""What a client is bound to: the process that made it."""

from __future__ import annotations

import os
from typing import NoReturn
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
    """An object that works in the process that made it only, and says so elsewhere.

    In a forked process none of gRPC's threads run, so whatever waits for them waits for ever, and what they
    had locked stays locked. So nothing there may call into gRPC for the parent's connection, not even to
    close it, or to free what it consists of.
    """

    _unusable: tuple[str, ...] = ()
    """The attributes that raise an error in a forked process."""
    _is_forked = False

    def __init__(self) -> None:
        _all.add(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} is a connection and cannot be pickled: make one in each process"
        )

    def forked(self) -> None:
        """Called in a forked process."""
        _kept.append(vars(self).copy())
        self._is_forked = True
        for name in self._unusable:
            setattr(self, name, _Forked())


_all: WeakSet[Local] = WeakSet()
_kept: list[dict[str, object]] = []
"""The parts of the parent's objects in a forked process: freed, gRPC's would be closed, which hangs."""


def _after_fork() -> None:
    for each in list(_all):
        each.forked()


os.register_at_fork(after_in_child=_after_fork)
