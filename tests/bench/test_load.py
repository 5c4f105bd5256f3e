"""Every mode, protocol and loop against real servers: what was asked is what they saw."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from penstock_bench import results
from penstock_bench.codecs import Ask
from penstock_bench.fleet import Measured
from penstock_bench.pacing import Load
from penstock_bench.tally import Tally
from penstock_bench.worker import codec_of
from server.kit import metric
from support import zoo
from support.oip_server import OipServer
from support.servers import RunningServer

if TYPE_CHECKING:
    from conftest import Bench

MODES = ["unary", "stream", "multiplexed", "merged"]
QUANTILES = ["mean", "min", "p50", "p90", "p99", "p999", "max"]


def predictions(server: RunningServer) -> float:
    return metric(server.ops, "requests_total")


def check(level: dict[str, Any], requests: int) -> None:
    """What holds for every level whose requests were all answered."""
    assert (level["requests"], level["answered"], level["failed"]) == (requests, requests, 0)
    assert (level["unfinished"], level["unsent"], level["errors"]) == (0, 0, {})
    latency = level["latency"]
    assert list(latency) == QUANTILES
    assert 0 < latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p999"]
    assert latency["p999"] <= latency["max"] <= 30
    assert sum(level["histogram_counts"]) == requests
    assert level["requests_per_second"] == pytest.approx(requests / level["seconds"])
    assert 0 < level["generator"]["cpu_seconds_per_request"] < 1


@pytest.mark.parametrize("mode", MODES)
def test_a_number_of_requests(bench: Bench, server: RunningServer, mode: str) -> None:
    before = predictions(server)
    run = bench("triples", "--mode", mode, "--concurrency", "1,16", "--requests", 100, "--rows", 3)
    assert (run.code, run.err) == (0, "")
    levels = run.json["levels"]
    assert [level["concurrency"] for level in levels] == [1, 16]
    for level in levels:
        check(level, 100)
        assert level["rows_per_second"] == pytest.approx(3 * level["requests_per_second"])
        assert level["server"]["queue_mean_seconds"] >= 0
        assert level["server"]["compute_mean_seconds"] > 0
        assert level["server"]["average_batch_rows"] >= 3
    asked = 1 + 2 * 100  # and the one that shows that it works
    if mode == "merged":
        assert 0 < predictions(server) - before <= asked
    else:
        assert predictions(server) - before == asked


def test_processes_share_the_load(bench: Bench, server: RunningServer) -> None:
    before = predictions(server)
    run = bench("triples", "--concurrency", "1,5", "--requests", 101, "--processes", 2)
    assert run.code == 0
    for level in run.json["levels"]:
        check(level, 101)
    assert predictions(server) - before == 2 + 2 * 101


@pytest.mark.parametrize(
    ("mode", "arrivals"),
    [("unary", "uniform"), ("stream", "poisson"), ("multiplexed", "uniform"), ("merged", "uniform")],
)
def test_a_fixed_rate(bench: Bench, mode: str, arrivals: str) -> None:
    flags = ["--poisson"] if arrivals == "poisson" else []
    run = bench("triples", "--mode", mode, "--rate", 200, "--duration", 0.5, *flags)
    assert run.code == 0
    level = run.level
    assert (level["rate"], level["concurrency"], level["arrivals"]) == (200, None, arrivals)
    assert level["answered"] == level["requests"]
    assert level["generator"]["send_lag"]["p50"] >= 0
    if arrivals == "uniform":
        assert level["requests"] + level["unsent"] == 100
    else:  # twelve standard deviations
        assert 100 - 120 <= level["requests"] + level["unsent"] <= 100 + 120
        assert level["requests"] > 0


@pytest.mark.parametrize(
    ("due", "answered", "behind"), [(820, 819, False), (1180, 1176, False), (1000, 500, True)]
)
def test_random_arrivals_are_held_against_what_came(due: int, answered: int, behind: bool) -> None:
    tally = Tally(ok=due, answered_in_window=answered, window_seconds=1.0)
    for _ in range(due):
        tally.latency.add(0.3 if behind else 0.002)
    load = Load(rate=1000, arrivals="poisson", duration=1.0)
    notes = results.level(Measured(load, tally, [], interrupted=False)).generator.notes
    assert any(f"{answered} of {due:,} requests a second" in note for note in notes) is behind


def test_a_time_and_a_warm_up(cli: Bench, server: RunningServer) -> None:
    before = predictions(server)
    flags = ["--target", server.target, "--json", "--warmup", 0.3, "--duration", 0.4]
    level = cli("triples", *flags, "--concurrency", 4).level
    assert level["seconds"] == pytest.approx(0.4)
    assert 0 < level["requests"] < predictions(server) - before - 1
    assert level["answered"] == level["requests"]
    assert level["requests_per_second"] > 0


def test_inputs_come_from_a_file(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "leads.csv"
    path.write_text("lead_source,number_of_courses_viewed,annual_income\npaid_ads,2,79276\nevents,1,5\n")
    run = bench("lead_scoring", "--file", path, "--requests", 10, "--concurrency", 2, "--outputs", "label")
    assert run.code == 0
    check(run.level, 10)
    assert run.json["inputs"] == {
        "source": str(path),
        "distinct": 2,
        "rows_per_request": 1,
        "bytes_per_request": pytest.approx((4 + 8 + 8 + 4 + 4 + 6 + 8 + 4) / 2),
        "seed": None,
    }


@pytest.mark.parametrize(("mode", "model"), [("unary", "identity_bytes"), ("multiplexed", "identity_bf16")])
def test_texts_and_short_floats_travel(bench: Bench, mode: str, model: str) -> None:
    check(bench(model, "--mode", mode, "--requests", 5, "--concurrency", 1).level, 5)


def test_a_version(bench: Bench) -> None:
    run = bench("triples", "--version", 1, "--requests", 5, "--concurrency", 1)
    assert (run.json["version"], run.code) == ("1", 0)


@pytest.mark.parametrize(("mode", "protocol"), [("unary", "auto"), ("stream", "oip")])
def test_open_inference(cli: Bench, oip: OipServer, mode: str, protocol: str) -> None:
    flags = ["--target", oip.target, "--json", "--mode", mode, "--protocol", protocol]
    run = cli("echo", *flags, "--requests", 50, "--concurrency", 4, "--warmup", 0, "--rows", 2)
    assert (run.code, run.err) == (0, "")
    assert (run.json["protocol"], run.json["inputs"]["distinct"]) == ("oip", 16)
    check(run.level, 50)
    assert run.level["server"] == {
        "queue_mean_seconds": pytest.approx(0.001),
        "queue_p99_seconds": None,
        "compute_mean_seconds": pytest.approx(0.002),
        "compute_p99_seconds": None,
        "average_batch_rows": pytest.approx(2, rel=0.1),
    }
    assert len(oip.requests) == 51
    assert len({request.raw_input_contents[0] for request in oip.requests}) == 16
    assert {(request.inputs[0].datatype, *request.inputs[0].shape) for request in oip.requests} == {
        ("FP32", 2, 3)
    }


def test_open_inference_without_statistics(cli: Bench, oip: OipServer) -> None:
    oip.keeps_statistics = False
    flags = ["--target", oip.target, "--json", "--requests", 5, "--concurrency", 1, "--warmup", 0]
    assert cli("echo", *flags).level["server"] is None


@pytest.mark.parametrize(("mode", "code"), [("unary", "RESOURCE_EXHAUSTED"), ("stream", "UNKNOWN")])
def test_open_inference_with_errors(cli: Bench, oip: OipServer, mode: str, code: str) -> None:
    oip.refuse = 5
    flags = ["--target", oip.target, "--json", "--mode", mode, "--warmup", 0]
    run = cli("echo", *flags, "--requests", 99, "--concurrency", 4)
    assert run.code == 1
    level = run.level
    assert (level["answered"], level["failed"], level["errors"]) == (79, 20, {code: 20})
    assert level["error_examples"] == {code: "not this one"}
    assert sum(level["histogram_counts"]) == 79


@pytest.mark.parametrize("mode", ["unary", "stream"])
def test_a_stall_is_in_the_latencies_of_an_open_loop(cli: Bench, oip: OipServer, mode: str) -> None:
    oip.stall_at, oip.stall_seconds = 50, 0.5
    flags = ["--target", oip.target, "--json", "--mode", mode, "--rate", 200, "--duration", 1, "--warmup", 0]
    run = cli("echo", *flags)
    assert run.code == 0
    latency = run.level["latency"]
    # Half of the second stands still: its hundred requests wait up to half a second, each its part of it.
    assert latency["max"] >= 0.45
    assert latency["p90"] >= 0.3


def test_a_stall_is_seen_even_where_nothing_is_sent_during_it(cli: Bench, oip: OipServer) -> None:
    oip.stall_at, oip.stall_seconds = 20, 0.5
    flags = ["--target", oip.target, "--json", "--rate", 100, "--duration", 1, "--warmup", 0]
    level = cli("echo", *flags, "--max-in-flight", 1).level
    # One request found the server standing still, and yet all those that should have been sent count.
    assert level["latency"]["p90"] >= 0.3
    assert level["generator"]["send_lag"]["max"] >= 0.4
    assert any("--max-in-flight" in note for note in level["generator"]["notes"])


@pytest.mark.parametrize("mode", MODES)
def test_requests_that_fail_are_counted_by_code(bench: Bench, mode: str) -> None:
    flags = ["--choices", "x:5,150", "--distinct", 64, "--requests", 64, "--concurrency", 8]
    run = bench("below_100", "--mode", mode, *flags)
    assert run.code == 1
    level = run.level
    assert level["answered"] + level["failed"] == 64
    assert list(level["errors"]) == ["INTERNAL"]
    assert level["error_examples"]["INTERNAL"]
    assert 10 < level["failed"] < 54  # each with an even chance, always the same ones


@pytest.mark.parametrize("mode", ["unary", "stream"])
def test_requests_that_take_too_long(bench: Bench, mode: str) -> None:
    flags = ["--timeout", 0.3, "--concurrency", 64, "--requests", 100]
    run = bench("slow", "--mode", mode, *flags)
    assert run.code == 1
    assert set(run.level["errors"]) <= {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    assert run.level["answered"] + run.level["failed"] == 100


def check_broken(level: dict[str, Any]) -> None:
    """What holds where a server went away after some answers."""
    assert level["answered"] >= 20
    assert set(level["errors"]) <= {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}, level["error_examples"]
    assert level["errors"]["UNAVAILABLE"] > 0
    assert level["failed"] < 10_000  # it does not hammer at a closed port


@pytest.mark.parametrize("mode", ["unary", "stream"])
def test_a_server_that_goes_away(cli: Bench, oip: OipServer, mode: str) -> None:
    oip.stop_at = 50
    flags = ["--target", oip.target, "--mode", mode, "--json", "--duration", 1.5, "--warmup", 0]
    run = cli("echo", *flags, "--concurrency", 4, "--timeout", 5)
    assert run.code == 1
    check_broken(run.level)


def test_a_server_that_goes_away_from_the_client(
    cli: Bench, tmp_path: Path, own_server: Callable[[Path], RunningServer]
) -> None:
    own = own_server(zoo.repository(tmp_path, {"triples": zoo.scale(2)}))

    def kill() -> None:
        end = time.monotonic() + 30
        while predictions(own) < 50 and time.monotonic() < end:
            time.sleep(0.02)
        own.process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    flags = ["--target", own.target, "--mode", "multiplexed", "--json", "--duration", 2, "--warmup", 0]
    run = cli("triples", *flags, "--concurrency", 4, "--timeout", 5)
    killer.join()
    assert run.code == 1
    check_broken(run.level)


@pytest.mark.parametrize("protocol", ["penstock", "oip"])
def test_garbage_is_an_error_and_no_answer(protocol: Any) -> None:
    codec = codec_of(protocol, Ask("m"))
    outcomes = [codec.answer(b"\xff\xff"), *codec.answers(b"\xff\xff")]
    assert [outcome.code for outcome in outcomes] == ["UNKNOWN", "UNKNOWN"]
    assert codec.answer(b"").code == "UNKNOWN"  # a message, and without a single output
