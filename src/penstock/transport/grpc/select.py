"""Chooses the transport: the reactor if it works with this grpcio, else the portable one."""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.errors import StartupError
from penstock.transport.grpc.call import Transport


def choose(wanted: str, warn: Callable[[BaseException], None]) -> type[Transport]:
    """The transport to use.

    Args:
        wanted: "reactor", "portable", or "auto" for the reactor if its self-test passes.
        warn: called with the reason if "auto" falls back to the portable transport.

    Raises:
        StartupError: the reactor was asked for by name, and does not work with this grpcio.
    """
    if wanted != "portable":
        try:
            return _tested_reactor()
        except Exception as error:  # of any kind: the module is private to grpcio
            if wanted == "reactor":
                raise StartupError(
                    f"the reactor does not work with this release of grpcio ({error!r}); "
                    "transport = portable does"
                ) from error
            warn(error)
    from penstock.transport.grpc.portable import Portable

    return Portable


def _tested_reactor() -> type[Transport]:
    from penstock.transport.grpc.reactor import Reactor
    from penstock.transport.grpc.self_test import self_test

    self_test()
    return Reactor
