"""100,000 requests of all kinds at once: each ends once, and the server holds no more than before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from server import kit
from server.test_chaos import MODELS, SETTINGS
from soak.held import growth
from support import chaos, zoo
from support.servers import running_server

WARM_UP, MEASURED = 20_000, 100_000
MOST_BYTES = 12e6

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def test_every_request_of_many_ends_once(
    tmp_path: Path, transport: str, record_property: Callable[[str, object], None]
) -> None:
    path = zoo.repository(tmp_path, MODELS)
    for name, settings in SETTINGS.items():
        (path / name / "model.toml").write_text(settings)
    ends: Counter[tuple[str, str]] = Counter()
    with running_server(path, "--transport", transport, env={"PENSTOCK_BREAKER__FAILURES": "0"}) as running:

        def load(requests: int) -> None:
            for caller in chaos.run(running.target, requests, seed=requests):
                assert caller.problems == []
                ends.update(caller.ends)

        _, grown = growth(running, load, WARM_UP, MEASURED, record_property)
        assert ends.total() == WARM_UP + MEASURED
        assert grown < MOST_BYTES
        seen = kit.Metrics(running.ops)
        assert [seen.sum(name) for name in ("queue_rows", "queue_bytes", "sequences")] == [0, 0, 0]
        assert chaos.disagreements(ends, seen) == []
