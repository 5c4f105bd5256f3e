"""What `penstock bench` prints and draws, and what it refuses."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.oip_server import OipServer
from support.servers import RunningServer

if TYPE_CHECKING:
    from conftest import Bench

PNG = b"\x89PNG\r\n\x1a\n"

TOP = {
    "schema", "penstock_version", "started_at", "target", "protocol", "model", "version", "mode", "loop",
    "processes", "warmup_seconds", "timeout_seconds", "inputs", "interrupted",
    "interrupted_after_seconds", "levels_not_run", "levels",
}  # fmt: skip
LEVEL = {
    "concurrency", "rate", "arrivals", "seconds", "requests", "answered", "failed", "unfinished", "unsent",
    "errors", "error_examples", "requests_per_second", "rows_per_second", "latency",
    "histogram_edges_seconds", "histogram_counts", "server", "generator", "interrupted",
}  # fmt: skip
GENERATOR = {
    "cpu_seconds", "cpu_seconds_per_request", "busiest_loop_share", "send_lag", "limited", "notes"
}  # fmt: skip
DOCS = Path(__file__).parents[2] / "docs/bench.md"


def test_json_has_the_documented_fields(bench: Bench) -> None:
    said = bench("triples", "--requests", 5, "--concurrency", 1).json
    assert said["schema"] == 1
    assert set(said) == TOP
    [level] = said["levels"]
    assert set(level) == LEVEL
    assert set(level["generator"]) == GENERATOR
    text = DOCS.read_text()
    documented = TOP | LEVEL | GENERATOR | set(said["inputs"]) | set(level["latency"]) | set(level["server"])
    assert [name for name in documented if f"`{name}`" not in text] == []


def test_tables_and_pictures(cli: Bench, server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "latency.png"
    flags = ["--target", server.target, "--warmup", 0, "--requests", 50, "--plot", path]
    run = cli("triples", *flags, "--concurrency", "1,8")
    assert (run.code, run.err) == (0, "")
    head, about, titles, rule, first, second, space, more, *rest = run.out.splitlines()
    assert head == f"triples version 2 at {server.target}, penstock.v1, unary, closed loop"
    assert about == "16 different requests of 1 row, 12 bytes of inputs each, from 1 process"
    assert titles.split()[:6] == ["in", "flight", "requests/s", "errors", "p50", "p90"]
    assert (space, more.split()[:4]) == ("", ["in", "flight", "rows/s", "queue"])
    assert "batch" in more
    assert [line.split()[0] for line in (first, second)] == ["1", "8"]
    assert set(rule.strip()) == {"─"}
    text = "\n".join(rest)
    assert "latency by level, p50 and p99" in text
    assert "latencies at 8 in flight" in text
    assert "█" in text
    assert path.read_bytes().startswith(PNG)


def test_a_picture_of_one_level(cli: Bench, oip: OipServer, tmp_path: Path) -> None:
    oip.refuse = 2
    path = tmp_path / "a.SVG"
    flags = ["--target", oip.target, "--warmup", 0, "--requests", 9, "--rate", 100, "--plot", path]
    run = cli("echo", *flags)
    assert run.code == 1
    assert "5 RESOURCE_EXHAUSTED: not this one" in run.out
    assert path.read_bytes().startswith(b"<?xml")


def test_nothing_but_errors_has_tables_and_pictures_too(cli: Bench, oip: OipServer, tmp_path: Path) -> None:
    oip.refuse = 1
    path = tmp_path / "a.png"
    flags = ["--target", oip.target, "--warmup", 0, "--requests", 9, "--concurrency", "1,2", "--plot", path]
    run = cli("echo", *flags)
    assert run.code == 1
    assert run.out.count("9 RESOURCE_EXHAUSTED") == 2
    assert path.exists()


def test_a_generator_at_its_limit_says_so(cli: Bench, oip: OipServer) -> None:
    flags = ["--target", oip.target, "--json", "--warmup", 0, "--rate", 1_000_000, "--duration", 0.5]
    generator = cli("echo", *flags).level["generator"]
    assert generator["limited"]
    assert any("the load tool's limit, not the server's" in note for note in generator["notes"])


@pytest.mark.alone
def test_a_generator_with_time_to_spare_does_not(cli: Bench, oip: OipServer) -> None:
    oip.stall_at, oip.stall_seconds = 2, 0.5
    flags = ["--target", oip.target, "--json", "--warmup", 0, "--concurrency", 1, "--requests", 10]
    generator = cli("echo", *flags).level["generator"]
    assert (generator["limited"], generator["notes"]) == (False, [])
    assert generator["busiest_loop_share"] < 0.9


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--concurrency", "8", "--rate", "5"], "either --concurrency or --rate"),
        (["--duration", "1", "--requests", "5"], "either --duration or --requests"),
        (["--poisson"], "--poisson needs --rate"),
        (["--concurrency", "1,x"], "--concurrency takes numbers above 0, as 1,8,32; got '1,x'"),
        (["--concurrency", "0"], "got '0'"),
        (["--concurrency", "1.5"], "got '1.5'"),
        (["--rate", "-5"], "--rate takes numbers above 0"),
        (["--rate", "nan"], "--rate takes numbers above 0"),
        (["--rate", "5,2e9"], "--rate: at most 1,000,000,000 requests a second can be scheduled; got 2e+09"),
        (["--rate", "5,,6"], "--rate takes numbers above 0"),
        (["--mode", "smoke"], "'smoke' is not one of"),
        (["--timeout", "0"], "--timeout"),
        (["--timeout", "nan"], "--timeout is a number of seconds, not nan"),
        (["--duration", "inf"], "--duration is a number of seconds, not inf"),
        (["--processes", "0"], "--processes"),
        (["--max-in-flight", "0"], "--max-in-flight"),
        (["--max-in-flight", "5"], "--max-in-flight needs --rate"),
        (["--concurrency", ""], "--concurrency takes numbers above 0, as 1,8,32; got ''"),
        (["--rate", ""], "--rate takes numbers above 0"),
        (["--mode", "merged", "--protocol", "oip"], "--mode merged uses penstock.v1, not --protocol oip"),
        (["--mode", "multiplexed", "--protocol", "oip"], "--protocol oip"),
        (["--shape", "x"], "--shape: expected NAME:A,B"),
        (["--shape", "x:0"], "--shape: lengths are whole numbers above 0; got x:0"),
        (["--range", "x:5"], "two numbers; got x:5"),
        (["--choices", "x"], "--choices: expected NAME:A,B"),
        (["--plot", "a.bmp"], "a.bmp must end with .pdf, .png, .svg"),
        (["--file", "a.png"], "a.png must end with .csv, .jsonl, .ndjson, .npy, .npz"),
        (["--file", "a.csv", "--range", "x:0,1"], "--range is for generated inputs"),
    ],
)
def test_flags_that_do_not_go(bench: Bench, flags: list[str], said: str) -> None:
    run = bench("triples", *flags)
    assert (run.code, run.out) == (2, "")
    assert said in " ".join(run.err.split())


@pytest.mark.parametrize(
    ("model", "flags", "said"),
    [
        ("nothing", [], "NOT_FOUND"),
        ("triples", ["--version", "7"], "NOT_FOUND"),
        ("triples", ["--outputs", "z"], 'unknown output "z"; outputs: y'),
        ("triples", ["--shape", "x:1,4"], 'input "x" is FP32[N,3]; got [1, 4]'),
        ("open", [], "--shape x:1,1"),
        ("triples", ["--file", "nowhere.csv"], "nowhere.csv: No such file"),
        ("triples", ["--plot", "nowhere/a.png"], "no such folder"),
    ],
)
def test_what_cannot_be_measured(bench: Bench, model: str, flags: list[str], said: str) -> None:
    run = bench(model, *flags)
    assert (run.code, run.out) == (1, "")
    assert run.err.startswith("Error: ")
    assert said in run.err


@pytest.mark.parametrize("mode", ["unary", "multiplexed", "merged"])
def test_a_model_that_keeps_a_state_is_measured_by_streams(bench: Bench, mode: str) -> None:
    run = bench("sum", "--mode", mode)
    assert (run.code, run.out) == (1, "")
    assert run.err == (
        f"Error: sum has a state, which needs --mode stream, where each stream is a sequence; requests of "
        f"--mode {mode} name none\n"
    )
    run = bench("sum", "--mode", "stream", "--requests", 50, "--concurrency", 4)
    assert (run.code, run.level["requests"], run.level["answered"]) == (0, 50, 50)


@pytest.mark.parametrize(("model", "said"), [("echo", "--mode merged needs"), ("nothing", "unknown model")])
def test_what_cannot_be_measured_with_open_inference(
    cli: Bench, oip: OipServer, model: str, said: str
) -> None:
    run = cli(model, "--target", oip.target, "--mode", "merged")
    assert (run.code, run.out) == (1, "")
    assert said in run.err


def test_without_a_server(cli: Bench) -> None:
    with socket.socket() as taken:  # bound and not listening: no other process gets the port
        taken.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{taken.getsockname()[1]}"
        run = cli("triples", "--target", target)
    assert (run.code, run.out) == (1, "")
    assert run.err.startswith(f"Error: {target}: UNAVAILABLE")


def test_a_matplotlib_that_is_broken_is_found_out_before_the_run(tmp_path: Path) -> None:
    package = tmp_path / "matplotlib"
    package.mkdir()
    (package / "__init__.py").write_text("import a_part_that_is_gone\n")
    code = """if True:
        import sys
        sys.path.insert(0, sys.argv[1])
        from penstock.cli import main
        main(["bench", "m", "--plot", sys.argv[1] + "/a.png"])
        """
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False, timeout=60
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == (
        "Error: --plot: matplotlib is installed but cannot be loaded: No module named 'a_part_that_is_gone'\n"
    )


def test_without_matplotlib(tmp_path: Path) -> None:
    code = """if True:
        import sys
        sys.modules["matplotlib"] = None
        from penstock.cli import main
        main(["bench", "m", "--plot", sys.argv[1]])
        """
    path = tmp_path / "a.png"
    run = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False, timeout=60
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == (
        'Error: --plot needs matplotlib: pip install "./tools/bench[plot]" in the checkout of Penstock\n'
    )


@pytest.mark.parametrize(("protocol", "loads"), [("penstock", False), ("oip", True)])
def test_stubs_of_open_inference_are_loaded_for_it_only(protocol: str, loads: bool) -> None:
    code = f"""if True:
        import json, sys
        from penstock_bench import fleet, plot, report, servers, session
        from penstock_bench.codecs import Ask
        from penstock_bench.worker import codec_of
        codec_of({protocol!r}, Ask("m"))
        print(json.dumps(sorted(sys.modules)))
        """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(run.stdout)
    assert ("penstock_proto.inference.grpc_service_pb2" in loaded) is loads
    assert not {"matplotlib", "onnxruntime"} & set(loaded)
