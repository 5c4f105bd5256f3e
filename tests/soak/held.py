"""What a server's process holds: memory and file descriptors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server import kit
from support.servers import RunningServer


@dataclass(frozen=True)
class Held:
    """What a process holds at one moment, as it tells itself.

    Attributes:
        resident: memory, in bytes.
        files: open file descriptors.
    """

    resident: float
    files: float


def held(server: RunningServer) -> Held:
    """What the server holds, once nothing is in flight any more."""
    kit.wait_until(lambda: kit.is_idle(server.ops), "the server is idle")
    values = {each.name: each.value for each in kit.Metrics(server.ops).samples}
    return Held(values["process_resident_memory_bytes"], values["process_open_fds"])


def growth(
    server: RunningServer,
    load: Callable[[int], None],
    warm_up: int,
    measured: int,
    record: Callable[[str, object], None],
) -> tuple[Held, float]:
    """Runs a load twice, first to warm the server up.

    Args:
        server: under load.
        load: makes this number of calls, connections or predictions.
        warm_up: how many at first, which may leave something behind.
        measured: how many then.
        record: takes the figures for the report.

    Returns:
        What was held before the second time, and the bytes of resident memory that it added.
    """
    load(warm_up)
    before = held(server)
    load(measured)
    grown = held(server).resident - before.resident
    record("growth_bytes", grown)
    print(f"resident memory: {before.resident / 1e6:.1f} MB, grown by {grown / 1e6:.2f} MB")
    return before, grown
