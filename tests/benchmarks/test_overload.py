"""What `benchmarks.overload` makes of what it measures, and the queue and the load that it measures with."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from benchmarks import overload_measures as measures
from benchmarks import overload_page as page
from benchmarks.overload_measures import Bench, Record
from benchmarks.programs import fifo_server
from penstock.core.errors import QueueFull
from penstock.core.request import Request
from penstock.scheduling.cost import RunCost, RunCosts
from penstock.scheduling.queue.limits import QueueLimits

IN_TIME: Record = (0.1, 0.01, 0, 0.009)
TOO_LATE: Record = (0.2, 0.06, 0, 0.058)
IN_DOUBT: Record = (0.3, 0.06, 0, 0.049)  # the load was held up: it may have come long before
REFUSED: Record = (0.4, 0.002, 8, 0.001)
TIMED_OUT: Record = (0.5, 0.052, 4, 0.051)


def test_goodput_counts_what_came_in_time() -> None:
    figure = measures.ends([IN_TIME, TOO_LATE, IN_DOUBT, REFUSED, TIMED_OUT] * 10, 5)
    assert (figure["offered"], figure["in_time"], figure["late"]) == (10, 2, 10)
    assert figure["p50_ms"] == pytest.approx(60)
    assert figure["refused"] == pytest.approx(0.4)
    assert figure["refusal_ms"] == pytest.approx(27)
    assert figure["codes"] == {"8": 10, "4": 10}


def test_of_few_answers_there_are_no_latencies() -> None:
    figure = measures.ends([*[IN_TIME] * 19, REFUSED], 1)
    assert (figure["p50_ms"], figure["p99_ms"], figure["in_time"]) == (None, None, 19)


def test_normal_again_means_several_in_a_row() -> None:
    normal, slow = [(0.1 * at, True) for at in range(30)], (0.5, False)
    assert measures._recovered(normal) == 0
    assert measures._recovered([*normal[:5], slow, *normal[6:]]) == pytest.approx(600)
    assert measures._recovered(normal[:9]) is None


def a_request(**more: Any) -> Request:
    return Request({}, (), 1, "key", "Predict", 0.0, **more)


def a_queue(rows: int = 3) -> fifo_server.FirstComeQueue:
    return fifo_server.FirstComeQueue(QueueLimits(rows), RunCosts(RunCost(0.004)))


def test_the_plain_queue_heeds_the_order_only() -> None:
    queue = a_queue()
    requests = [a_request(priority=priority) for priority in (-1, 0, 1)]
    for request in requests:
        queue.put(request, 0.0)
    with pytest.raises(QueueFull):
        queue.put(a_request(), 0.0)
    assert queue.discard(requests[1])
    assert queue.take(1, 9.0).batch == [requests[0]]
    assert queue.take(8, 9.0).batch == [requests[2]]
    assert (queue.rows, queue.take(8, 9.0).batch, queue.oldest()) == (0, [], math.inf)


@pytest.fixture
def results() -> dict[str, Any]:
    figure = measures.ends([IN_TIME, REFUSED] * 20, 20) | {"goodput": 0.5}
    none = measures.ends([REFUSED], 1) | {"goodput": 0.0}
    latency = {"p50_ms": 1.0, "p99_ms": 2.0, "failed": 0}
    facts = {"machine": "a machine", "date": "today", "commit": "abc", "versions": {"Python": "3"}}
    facts |= {"command": "python", "rounds": 2, "seconds": 1.0, "busy": 0.1}
    return {
        "facts": facts,
        "best": {"penstock": [2.0, 1.0, 3.0], "fifo": [2.0]},
        "failed": [],
        "levels": {"penstock": {"0.5": [figure, figure]}, "fifo": {"0.5": [none, none]}},
        "burst": {"penstock": {"": [{"recovery_ms": 5.0, "calm_p99_ms": 9.0}]},
                  "fifo": {"": [{"recovery_ms": None, "calm_p99_ms": 9.0}]}},
        "priority": {"penstock": {"": [{"alone": latency, "beside": latency}]}},
    }  # fmt: skip


def test_tables_hold_the_medians(results: dict[str, Any]) -> None:
    lines = page.plain(results).splitlines()
    [ours] = [line for line in lines if line.startswith("Penstock") and "0.5 x" in line]
    assert ours.split()[3:] == ["2", "1", "50%", "10", "10", "50%", "2", "0", "RESOURCE_EXHAUSTED"]
    assert any("not within 2 s" in line for line in lines)


def test_the_page_is_written_between_its_markers(results: dict[str, Any]) -> None:
    text = page.renewed("# Scheduling\n\nProse.\n", "\n".join(page._measured(results, ["overload-p99"])))
    assert text.startswith("# Scheduling\n\nProse.\n\n## Measured\n\n" + page.BEGIN)
    assert "| Penstock | 0.5 x | 2 | 1 | 50% |" in text
    assert "pictures/overload-p99-dark.png" in text
    again = page.renewed(text + "\nMore prose.\n", "other")
    assert "| Penstock |" not in again
    assert again.endswith(f"other\n{page.END}\n\nMore prose.\n")
    with pytest.raises(ValueError, match="must hold"):
        page.renewed(page.BEGIN, "")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    if shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
        pytest.skip("the benchmarks need taskset and two cores")
    folder = tmp_path_factory.mktemp("overload")
    measures.make_models(folder / "models")
    with ExitStack() as stack:
        yield Bench(folder, 0.3, stack)


def test_who_is_refused_and_who_times_out_is_told_apart(bench: Bench) -> None:
    """Far more than it can do: some is in time, and all others hear of it by a code."""
    figure = measures.at_rate(bench, "penstock", 1000)
    assert figure["codes"].keys() <= {"4", "8"}
    assert figure["codes"].get("8", 0) > 0
    assert figure["refused"] > 0.3


def test_a_plain_queue_times_out_only(bench: Bench) -> None:
    figure = measures.at_rate(bench, "fifo", 700)
    assert set(figure["codes"]) == {"4"}


def test_calls_in_flight_bring_a_rate(bench: Bench) -> None:
    assert 10 < measures.best_rate(bench, "penstock") < 2000


def test_arrivals_are_random_and_the_same_every_time() -> None:
    program = "import sys, json; sys.path.insert(0, 'benchmarks/programs'); from paced import arrivals\n"
    program += "print(json.dumps([arrivals([(100, 1), (1000, 1)], seed) for seed in (0, 0, 1)]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, again, other = json.loads(done.stdout)
    assert first == again != other
    assert first == sorted(first)
    assert sum(due < 1 for due in first) == pytest.approx(100, abs=40)
    assert sum(due >= 1 for due in first) == pytest.approx(1000, abs=130)
