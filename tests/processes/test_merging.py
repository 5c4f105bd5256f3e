"""How the metrics of several processes become one."""

from __future__ import annotations

import json

from penstock.observability.families import Family
from penstock.processes.merging import merged, merged_errors, merged_models, summed

CPU = "process_cpu_seconds"


def counter(value: float, code: str = "OK") -> Family:
    return Family(
        "penstock_requests", "", "counter", (("penstock_requests_total", (("code", code),), value),)
    )


def gauge(name: str, value: float) -> Family:
    return Family(name, "", "gauge", ((name, (), value),))


def histogram(*buckets: float) -> Family:
    name = "penstock_queue_seconds"
    edges = ("0.1", "+Inf")
    samples = [(f"{name}_bucket", (("le", e),), n) for e, n in zip(edges, buckets, strict=True)]
    return Family(name, "", "histogram", (*samples, (f"{name}_count", (), buckets[-1])))


def info(version: str) -> Family:
    return Family("penstock_model", "", "info", (("penstock_model_info", (("sha256", version),), 1.0),))


def cpu(seconds: float) -> Family:
    return Family(CPU, "", "counter", ((f"{CPU}_total", (), seconds),))


def values(families: tuple[Family, ...]) -> dict[tuple, float]:
    return {(name, *labels): value for each in families for name, labels, value in each.samples}


def test_what_is_counted_is_added_up() -> None:
    result = merged(
        [("1", [counter(3), histogram(1, 4)]), ("2", [counter(4), counter(5, "NOT_FOUND"), histogram(2, 2)])]
    )
    assert values(result) == {
        ("penstock_requests_total", ("code", "OK")): 7,
        ("penstock_requests_total", ("code", "NOT_FOUND")): 5,
        ("penstock_queue_seconds_bucket", ("le", "0.1")): 3,
        ("penstock_queue_seconds_bucket", ("le", "+Inf")): 6,
        ("penstock_queue_seconds_count",): 6,
    }
    assert [each.name for each in result] == ["penstock_requests", "penstock_queue_seconds"]


def test_our_gauges_are_added_up_and_facts_are_not() -> None:
    result = merged(
        [
            ("1", [gauge("penstock_queue_rows", 2), info("a")]),
            ("2", [gauge("penstock_queue_rows", 3), info("a"), info("b")]),
        ]
    )
    assert values(result) == {
        ("penstock_queue_rows",): 5,
        ("penstock_model_info", ("sha256", "a")): 1,
        ("penstock_model_info", ("sha256", "b")): 1,
    }


def test_of_estimates_the_largest_counts() -> None:
    """A run takes no longer where several processes make it."""
    names = ("penstock_run_base_seconds", "penstock_run_row_seconds", "penstock_run_spread")
    sources = [
        (str(number), [gauge(name, value) for name in names]) for number, value in enumerate((1, 3, 2))
    ]
    assert values(merged(sources)) == {(name,): 3 for name in names}


def test_what_tells_of_a_process_names_it() -> None:
    """And where one took another's place: the new one's memory, the processor time of both."""
    memory = "process_resident_memory_bytes"
    sources = [
        ("1", [gauge(memory, 10), cpu(5)]),
        ("2", [gauge(memory, 20), cpu(6)]),
        ("1", [gauge(memory, 30), cpu(7)]),
    ]
    assert values(merged(sources)) == {
        (memory, ("process", "1")): 30,
        (memory, ("process", "2")): 20,
        (f"{CPU}_total", ("process", "1")): 12,
        (f"{CPU}_total", ("process", "2")): 6,
    }


def test_of_those_that_ended_only_what_they_counted_is_left() -> None:
    left = summed(
        summed((), [counter(3), gauge("penstock_queue_rows", 9), info("a"), cpu(1)]), [counter(4), cpu(2)]
    )
    assert values(left) == {("penstock_requests_total", ("code", "OK")): 7, (f"{CPU}_total",): 3}
    assert summed((), ()) == ()


def model(name: str, version: str = "1", **fields: object) -> str:
    known = {"name": name, "version": version, "trouble": "", "batched": True, "reason": "row-wise"}
    return json.dumps({**known, **fields})


def test_each_model_is_shown_once_with_what_is_wrong_in_some_processes() -> None:
    alone = {"batched": False, "reason": "seen on live requests"}
    first = [model("a"), model("b", "2"), model("b", "10")]
    second = [model("a", **alone), model("b", "2", trouble="a run hangs"), model("b", "10", trouble="x")]
    third = [model("a"), model("b", "2"), model("b", "10", trouble="x"), model("new")]
    shown = [json.loads(text) for text in merged_models([first, second, third])]
    assert [(each["name"], each["version"]) for each in shown] == [
        ("a", "1"), ("b", "2"), ("b", "10"), ("new", "1"),
    ]  # fmt: skip
    assert (shown[0]["batched"], shown[0]["reason"]) == (False, "seen on live requests (in 1 of 3 processes)")
    assert [each["trouble"] for each in shown] == [
        "", "a run hangs (in 1 of 3 processes)", "x (in 2 of 3 processes)", "",
    ]  # fmt: skip
    assert merged_models([[model("a", **alone)]] * 2) == [model("a", **alone)]
    assert merged_models([]) == []


def test_the_newest_errors_of_all_processes_are_kept() -> None:
    sources = [
        [{"at": at, "process": number} for at in range(10 + number, number, -2)] for number in range(3)
    ]
    assert [each["at"] for each in merged_errors(sources, 5)] == [12, 11, 10, 10, 9]
