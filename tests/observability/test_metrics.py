"""The metrics say exactly what happened, in the format that Prometheus reads."""

from __future__ import annotations

import random
import re
import sys
import time
import timeit
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import Event, Lock, Thread

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from penstock.core import errors
from penstock.core.request import Request, Run
from penstock.observability.counters import ROWS, SECONDS, CostLine, Gauges
from penstock.observability.metrics import Metrics, ModelMetrics

Key = tuple[str, frozenset[tuple[str, str]]]


def code_of(error: errors.RequestError) -> str:
    return type(error).__name__.upper()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(code_of)


def add(metrics: Metrics, name: str = "m", version: str = "1", **values: int) -> ModelMetrics:
    waiting, running = values.get("waiting", 0), values.get("running", 0)
    return metrics.model(
        name,
        version,
        lambda: Gauges(waiting, 100 * waiting, running),
        sha256="ab",
        batched=True,
    )


def request(arrived: float = 0.0, rpc: str = "Predict") -> Request:
    return Request({}, [], 1, None, rpc, arrived)


def samples(metrics: Metrics) -> dict[Key, float]:
    text = metrics.render()[1].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> Key:
    return f"penstock_{name}", frozenset(labels.items())


def of_model(name: str, **labels: str) -> Key:
    return key(name, model="m", version="1", **labels)


def done(
    batch: list[Request], rows: int, started: float, finished: float
) -> tuple[list[Request], Run, float]:
    """What an observer is told of a batch."""
    return batch, Run(started, started, finished, rows, {}), finished


def histogram(bounds: tuple[float, ...], values: list[float], name: str, **labels: str) -> dict[Key, float]:
    """What a histogram must show for `values`, counted one by one."""
    edges = {f"{bound:g}" if bound < 0.0001 else str(bound): bound for bound in bounds}
    shown = {
        of_model(f"{name}_bucket", le=edge, **labels): sum(value <= bound for value in values)
        for edge, bound in edges.items()
    }
    shown[of_model(f"{name}_bucket", le="+Inf", **labels)] = len(values)
    shown[of_model(f"{name}_count", **labels)] = len(values)
    shown[of_model(f"{name}_sum", **labels)] = sum(values)
    return shown


def test_all_numbers_equal_a_recount(metrics: Metrics) -> None:
    chance = random.Random(7)
    model = add(metrics)
    waits, computes, sizes = [], [], []
    totals: dict[str, list[float]] = {"Predict": [], "PredictStream": []}
    for _ in range(300):
        started = chance.uniform(0, 100)
        # Values on the bounds themselves are what a wrong comparison would get wrong.
        compute = chance.choice([0.0, *SECONDS, 20.0, chance.lognormvariate(-6, 3)])
        rpcs = [chance.choice(list(totals)) for _ in range(chance.randint(0, 9))]
        batch = [request(started - chance.lognormvariate(-6, 3), rpc) for rpc in rpcs]
        rows = chance.choice([*map(int, ROWS), 3, 5000])
        model.batch_done(*done(batch, rows, started, started + compute))
        computes.append(started + compute - started)
        sizes.append(rows)
        for each in batch:
            waits.append(started - each.arrived)
            totals[each.rpc].append(waits[-1] + computes[-1])
    expected = histogram(SECONDS, waits, "queue_seconds")
    expected |= histogram(SECONDS, computes, "compute_seconds")
    expected |= histogram(ROWS, list(map(float, sizes)), "batch_rows")
    for rpc, values in totals.items():
        expected |= histogram(SECONDS, values, "request_seconds", rpc=rpc)
        expected[of_model("requests_total", rpc=rpc, code="OK")] = len(values)
    expected[of_model("batches_total")] = 300
    expected[of_model("rows_total")] = sum(sizes)
    seen = samples(metrics)
    assert {each: seen[each] for each in expected} == pytest.approx(expected, rel=1e-12)
    counted = {each for each in seen if each[0].endswith(("_bucket", "k_requests_total"))}
    assert counted <= set(expected)


def test_values_on_a_bound_belong_to_its_bucket(metrics: Metrics) -> None:
    model = add(metrics)
    model.batch_done(*done([], 1, 0.0, 0.0005))
    model.batch_done(*done([], 2, 0.0, 0.00050001))
    seen = samples(metrics)
    assert seen[of_model("compute_seconds_bucket", le="0.0005")] == 1
    assert seen[of_model("compute_seconds_bucket", le="0.001")] == 2
    assert seen[of_model("batch_rows_bucket", le="1.0")] == 1


def test_the_buckets_fit_from_50_microseconds_to_10_seconds() -> None:
    assert (SECONDS[0], SECONDS[-1]) == (0.00005, 10.0)
    assert list(SECONDS) == sorted(set(SECONDS))
    assert list(ROWS) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


SHUT_OFF = errors.Unavailable("s")
SHUT_OFF.shut_off = True
FAILURES = [
    errors.QueueFull("q"),
    errors.QueueFull("q"),
    errors.MessageTooLarge("m"),
    errors.AnswerTooLarge("m"),
    errors.Exhausted("x"),
    errors.DeadlineExpired("d"),
    errors.RequestCancelled("r"),
    errors.RequestCancelled("r"),
    errors.InvalidRequest("i"),
    errors.ModelFailed("f"),
    errors.Unavailable("u"),
    SHUT_OFF,
]


def check_failures(seen: dict[Key, float], **labels: str) -> None:
    codes = Counter(map(code_of, FAILURES))
    for code, number in codes.items():
        assert seen[key("requests_total", rpc="Predict", code=code, **labels)] == number
    rejected = {
        "queue_full": 2,
        "message_too_large": 1,
        "exhausted": 1,
        "breaker_open": 1,
    }
    for reason, number in rejected.items():
        assert seen[key("rejected_total", reason=reason, **labels)] == number
    assert seen[key("expired_total", **labels)] == 1
    assert seen[key("cancelled_total", **labels)] == 2


def test_failures_are_counted_by_code_and_reason(metrics: Metrics) -> None:
    model = add(metrics)
    for error in FAILURES:
        model.failed("Predict", error)
    seen = samples(metrics)
    check_failures(seen, model="m", version="1")
    assert seen[key("expired_total", model="", version="")] == 0
    assert not [name for name, _ in seen if name == "penstock_request_seconds_count"]


def test_requests_for_unknown_models_have_no_model(metrics: Metrics) -> None:
    for error in FAILURES:
        metrics.failed("Predict", error)
    metrics.failed("Predict", errors.NotFound("no model 'made up by the caller'"))
    seen = samples(metrics)
    check_failures(seen, model="", version="")
    assert "made up" not in metrics.render()[1].decode()
    assert not [name for name, labels in seen if name.startswith("penstock_rows")]


def test_gauges_and_infos(metrics: Metrics) -> None:
    add(metrics, waiting=7, running=2)
    metrics.calls_in_flight = lambda: 11
    metrics.answer_bytes = lambda: 4096
    metrics.server(version="1.2", transport="reactor", grpcio="1.85", onnxruntime="1.31")
    seen = samples(metrics)
    assert seen[of_model("queue_rows")] == 7
    assert seen[of_model("running_batches")] == 2
    assert seen[key("calls_in_flight")] == 11
    assert seen[key("answer_bytes")] == 4096
    assert seen[of_model("model_info", sha256="ab", batched="true")] == 1
    info = key("server_info", version="1.2", transport="reactor", grpcio="1.85", onnxruntime="1.31")
    assert seen[info] == 1
    assert any(name == "process_resident_memory_bytes" for name, _ in seen)
    assert any(name == "python_info" for name, _ in seen)


def test_what_happens_to_a_model_itself(metrics: Metrics) -> None:
    counts = metrics.model(
        "m", "1", lambda: Gauges(hung_runs=2, breaker_open=1, costs={0: CostLine(0.5, 0.25, 1.5)})
    )
    for event in ("hung", "hung", "opened"):
        counts.on_event(event, seconds=1.0)
    text = metrics.render()[1].decode()
    for line in (
        'penstock_hung_runs{model="m",version="1"} 2.0',
        'penstock_breaker_open{model="m",version="1"} 1.0',
        'penstock_run_base_seconds{elements="0",model="m",version="1"} 0.5',
        'penstock_run_row_seconds{elements="0",model="m",version="1"} 0.25',
        'penstock_run_spread{elements="0",model="m",version="1"} 1.5',
        'penstock_model_events_total{event="hung",model="m",version="1"} 2.0',
        'penstock_model_events_total{event="closed",model="m",version="1"} 0.0',
    ):
        assert line in text


def test_streams(metrics: Metrics) -> None:
    metrics.stream_opened()
    metrics.stream_opened()
    metrics.stream_closed()
    metrics.stream_received(2, 64)
    metrics.stream_sent(3, 60)
    seen = samples(metrics)
    assert seen[key("streams_open")] == 1
    assert seen[key("stream_messages_total", direction="received")] == 2
    assert seen[key("stream_messages_total", direction="sent")] == 3
    assert seen[key("stream_requests_total")] == 64
    assert seen[key("stream_results_total")] == 60


def test_a_forgotten_model_leaves_nothing(metrics: Metrics) -> None:
    add(metrics).batch_done(*done([request()], 1, 1.0, 2.0))
    add(metrics, "other", "2")
    metrics.forget("m", "1")
    metrics.forget("m", "1")
    metrics.forget("never", "1")
    shown = {dict(labels).get("model") for _, labels in samples(metrics)}
    assert shown == {None, "", "other"}


def test_a_copy_that_replaces_another_goes_on_counting(metrics: Metrics) -> None:
    old = add(metrics, waiting=3, running=1)
    old.batch_done(*done([request()], 1, 1.0, 2.0))
    new = metrics.model("m", "1", lambda: Gauges(4, 400, 1), sha256="cd", batched=False)
    new.batch_done(*done([request()], 1, 1.0, 2.0))
    seen = samples(metrics)
    assert seen[of_model("batches_total")] == 2
    assert seen[of_model("queue_rows")] == 7
    assert seen[of_model("running_batches")] == 2
    assert seen[of_model("model_info", sha256="cd", batched="false")] == 1
    metrics.forget("m", "1")
    seen = samples(metrics)
    assert seen[of_model("batches_total")] == 2
    assert seen[of_model("queue_rows")] == 4


def test_two_servers_in_one_process_share_nothing(metrics: Metrics) -> None:
    add(metrics)
    assert of_model("rows_total") not in samples(Metrics(code_of))


def test_names_follow_the_conventions(metrics: Metrics) -> None:
    add(metrics).batch_done(*done([request()], 1, 1.0, 2.0))
    for family in parse(metrics.render()[1].decode()):
        assert re.fullmatch(r"(penstock|process|python)_[a-z_]+", family.name)
        assert family.documentation.endswith((".", "seconds", "bytes", "descriptors", "information"))
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name


def test_openmetrics_is_given_to_who_asks(metrics: Metrics) -> None:
    add(metrics).batch_done(*done([request()], 1, 1.0, 2.0))
    plain, text = metrics.render("text/plain")
    assert plain.startswith("text/plain; version=")
    assert next(iter(parse(text.decode())))
    kind, text = metrics.render("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(text.decode())}
    assert families["penstock_requests"].type == "counter"
    assert families["penstock_queue_seconds"].type == "histogram"
    assert families["penstock_model"].type == "info"


def counters(seen: dict[Key, float]) -> Iterator[tuple[Key, float]]:
    ends = ("_total", "_bucket", "_count")
    return ((each, value) for each, value in seen.items() if each[0].endswith(ends))


@pytest.fixture
def _threads_alternate_quickly() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def check_moment(seen: dict[Key, float], before: dict[Key, float]) -> None:
    """What holds at any time: counters never go down, and what one lock guards is of one moment."""
    assert not [each for each, value in counters(before) if seen[each] < value]
    assert seen.get(of_model("queue_seconds_count"), 0) == 2 * seen[of_model("batches_total")]


@pytest.mark.usefixtures("_threads_alternate_quickly")
def test_four_threads_lose_nothing_and_counters_never_go_down(metrics: Metrics) -> None:
    model, stop = add(metrics), Event()
    rounds = {"A": 0, "B": 0, "C": 0, "D": 0}

    def work(rpc: str) -> None:
        batch = [request(0.0, rpc), request(0.5, rpc)]
        while not stop.is_set():
            model.batch_done(*done(batch, 2, 1.0, 1.25))
            model.failed(rpc, errors.QueueFull("q"))
            metrics.stream_received(1, 2)
            rounds[rpc] += 1

    threads = [Thread(target=work, args=(rpc,)) for rpc in rounds]
    for thread in threads:
        thread.start()
    seen: dict[Key, float] = {}
    try:
        for _ in range(40):
            before, seen = seen, samples(metrics)
            check_moment(seen, before)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    before, seen = seen, samples(metrics)
    check_moment(seen, before)
    assert seen[of_model("batches_total")] == sum(rounds.values()) > 100
    for rpc, number in rounds.items():
        assert seen[of_model("requests_total", rpc=rpc, code="OK")] == 2 * number
        assert seen[of_model("requests_total", rpc=rpc, code="QUEUEFULL")] == number
        assert seen[of_model("request_seconds_sum", rpc=rpc)] == pytest.approx(number * (1.25 + 0.75))
    assert seen[of_model("rejected_total", reason="queue_full")] == sum(rounds.values())
    assert seen[key("stream_requests_total")] == 2 * sum(rounds.values())


@pytest.mark.usefixtures("_threads_alternate_quickly")
def test_models_come_and_go_while_metrics_are_read(metrics: Metrics) -> None:
    stop = Event()

    versions = [str(number) for number in range(200)]

    def work(name: str) -> None:
        while not stop.is_set():
            for version in versions:
                add(metrics, name, version)
            for version in versions:
                metrics.forget(name, version)

    threads = [Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            metrics.render()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {dict(labels).get("model") for _, labels in samples(metrics)} == {None, ""}


def ratio(function: Callable[[], object], floor: Callable[[], object], number: int) -> float:
    """How many times the CPU of another function a function takes.

    Of many rounds the least counts, since other programs can only make it more; both take turns.
    """
    rounds = [
        [timeit.timeit(each, number=number, timer=time.thread_time) for each in (function, floor)]
        for _ in range(40)
    ]
    return min(each[0] for each in rounds) / min(each[1] for each in rounds)


@pytest.mark.parametrize("size", [1, 32])
def test_counting_a_batch_costs_next_to_nothing(metrics: Metrics, size: int) -> None:
    """No more than the same numbers cost in a plain dictionary and lists, and a third for the machine."""
    model = add(metrics)
    batch = [request(-0.001 * number) for number in range(size)]
    what = done(batch, size, 0.0, 0.001)
    assert ratio(partial(model.batch_done, *what), partial(counted_plainly, *what), 2000 // size) < 1.33


LOCK = Lock()
NUMBERS: dict[str, float] = dict.fromkeys("abcdefghijklmn", 0.0)
TIMES = [0] * (len(SECONDS) + 1)


def counted_plainly(requests: Sequence[Request], run: Run, answered: float) -> None:
    """The least that counting a batch can take: a lock, a sum for each number, a place for each time."""
    with LOCK:
        for each in NUMBERS:
            NUMBERS[each] += run.rows
        for limits, value in ((SECONDS, run.finished - run.started), (ROWS, run.rows)):
            TIMES[bisect_left(limits, value)] += 1
        for one in requests:
            waited, count = run.started - one.arrived, one.count
            TIMES[bisect_left(SECONDS, waited)] += count
            NUMBERS["a"] += waited * count
            TIMES[bisect_left(SECONDS, waited + answered)] += count
            NUMBERS["b"] += waited * count
