"""A server that has been busy is no larger than before."""

from __future__ import annotations

import numpy as np
import pytest

from server import kit

WARM_UP, MEASURED = 5_000, 20_000
EACH = 50  # requests a message
MOST_GROWTH = 10e6  # bytes


@pytest.fixture
def transport() -> str:
    """The transport that allocates by hand."""
    return "reactor"


def resident(ops: str) -> float:
    """The server's resident memory in bytes, as it tells itself."""
    return sum(
        each.value for each in kit.Metrics(ops).samples if each.name == "process_resident_memory_bytes"
    )


def stream(channel, count: int) -> None:
    """Sends `count` requests, a tenth of which fail; all are answered, in order."""
    requests = [kit.request("identity", x=kit.rows(1, tag), tag=tag) for tag in range(EACH)]
    for tag in range(0, EACH, 10):
        requests[tag] = kit.request("identity", x=np.ones((1, 4), np.float32), tag=tag)
    results = kit.stream_all(channel, [kit.message(*requests)] * (count // EACH))
    assert [each.tag for each in results] == [*range(EACH)] * (count // EACH)
    assert sum(each.HasField("error") for each in results) == count // 10


def test_20_000_stream_requests_leave_nothing_behind(server, channel, record_property) -> None:
    for _ in range(2):
        stream(channel, WARM_UP // 2)
    before = resident(server.ops)
    assert before > 0
    for _ in range(4):  # calls that end are worth as much as requests that end
        stream(channel, MEASURED // 4)
    kit.wait_until(lambda: kit.is_idle(server.ops), "the server is idle")
    growth = resident(server.ops) - before
    record_property("growth_bytes", growth)
    print(f"resident memory: {before / 1e6:.1f} MB, grown by {growth / 1e6:.2f} MB")
    assert growth < MOST_GROWTH
