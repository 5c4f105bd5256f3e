"""All kinds of requests at once, many of them wrong, late or given up: each ends once."""

from __future__ import annotations

from collections import Counter

from server import kit
from support import chaos, zoo

SETTINGS = {
    "slow": "[batching]\nqueue_rows = 30\n",
    "sums": '[sequence]\nstate = { sum = "sumN" }\n',
}
REQUESTS = 3000
MODELS = {"fails": zoo.fails_on(100), "slow": zoo.slow(2), "sums": zoo.running_sum()}


def test_every_request_ends_once_and_nothing_is_left(serve) -> None:
    running = serve(MODELS, settings=SETTINGS, env={"PENSTOCK_BREAKER__FAILURES": "0"})
    callers = chaos.run(running.target, REQUESTS)
    assert [each.problems for each in callers] == [[]] * len(callers)
    ends = sum((each.ends for each in callers), Counter())
    assert ends.total() == REQUESTS
    assert {"OK", "INTERNAL", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "CANCELLED"} <= {
        code for _, code in ends
    }
    kit.wait_until(lambda: kit.is_idle(running.ops), "nothing waits or runs")
    seen = kit.Metrics(running.ops)
    for name in ("queue_rows", "queue_bytes", "running_batches", "streams_open", "sequences"):
        assert seen.sum(name) == 0, name
    assert chaos.disagreements(ends, seen) == []
    assert {each["event"] for each in kit.problems(running)} == {"model failed"}
