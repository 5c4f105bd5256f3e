"""A large Parquet file: the rate and the memory of `penstock score` while it runs.

    python -m benchmarks.ten_million [--rows 10000000] [--json FILE]

The file has five columns, for the four inputs of a model of floats. Server and `penstock score` have a core
each. Every second its rows, from the checkpoint, and the memory of both are read. Printed are the rates of
the tenths of the run, the peaks, and the time that putting the parts of the output together takes. The
temporary folder needs about 250 MB for each million rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks import machine
from benchmarks.rounds import progress
from benchmarks.servers import Server, started

SCRIPT = Path(sys.executable).with_name("penstock")
COLUMNS = ("a", "b", "c", "d")
GROUP_ROWS = 1 << 20
SECONDS = 1.0
TENTHS = 10
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment of a run.

    Attributes:
        seconds: since its start.
        rows: that are done.
        bytes: the memory of `penstock score`.
        server_bytes: that of the server.
    """

    seconds: float
    rows: int
    bytes: int
    server_bytes: int


def write_model(folder: Path) -> None:
    """A model that adds up four columns of floats."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in COLUMNS]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])]
    graph = helper.make_graph([helper.make_node("Sum", [*COLUMNS], ["y"])], "sum", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "sum" / "1").mkdir(parents=True)
    onnx.save(made, folder / "sum" / "1" / "model.onnx")


def write_rows(path: Path, count: int) -> None:
    """A Parquet file with a number for each row, and the columns of the model."""
    import pyarrow
    import pyarrow.parquet

    draw = np.random.default_rng(1)
    fields = [("id", pyarrow.int64()), *[(name, pyarrow.float32()) for name in COLUMNS]]
    schema = pyarrow.schema(fields)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, count, GROUP_ROWS):
            progress(f"writing the file: {start:,} of {count:,} rows")
            size = min(GROUP_ROWS, count - start)
            columns = [
                np.arange(start, start + size),
                *draw.standard_normal((len(COLUMNS), size), np.float32),
            ]
            writer.write_table(pyarrow.table(list(map(pyarrow.array, columns)), schema))


def watched(command: list[str], rows: int, server: Server) -> list[Sample]:
    """Runs `penstock score` to its end.

    Args:
        command: the command; its last argument is the output.
        rows: how many rows there are.
        server: that it asks.

    Raises:
        SystemExit: it failed.
    """
    checkpoint, found, done = Path(f"{command[-1]}.checkpoint"), list[Sample](), 0
    since = time.perf_counter()
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            with suppress(FileNotFoundError):  # it has not begun, or has just ended
                done = json.loads(checkpoint.read_bytes())["rows"]
            seconds = time.perf_counter() - since
            memory = machine.resident_bytes(process.pid), server.resident_bytes()
            found.append(Sample(seconds, done, *memory))
            left = f", {(rows - done) * seconds / done:.0f} s left" if done else ""
            progress(f"{done:,} of {rows:,} rows, {memory[0] / MEGABYTE:.0f} MB{left}")
            time.sleep(SECONDS)
    if process.returncode:
        raise SystemExit(f"penstock score ended with {process.returncode}")
    progress("")
    return [*found, Sample(time.perf_counter() - since, rows, 0, 0)]


def show(samples: list[Sample], rows: int) -> None:
    """Prints what a run took."""
    end = samples[-1]
    print(f"{rows:,} rows in {end.seconds:.1f} s, start and end included: {rows / end.seconds:,.0f} rows/s")
    last = next(each for each in samples if each.rows == samples[-2].rows)
    at = Sample(0.0, 0, 0, 0)
    for tenth in range(1, TENTHS + 1):
        goal = rows * tenth / TENTHS
        to = next((each for each in samples[:-1] if each.rows >= goal), last)
        peak = max(each.bytes for each in samples if at.seconds <= each.seconds <= to.seconds)
        if to.rows > at.rows:
            rate = (to.rows - at.rows) / (to.seconds - at.seconds)
            print(f"  up to {to.rows:>12,} rows: {rate:10,.0f} rows/s  {peak / MEGABYTE:6.0f} MB")
        at = to if to.rows > at.rows else at
    peaks = max(each.bytes for each in samples), max(each.server_bytes for each in samples)
    print(f"  the rest, with putting the output together: {end.seconds - at.seconds:.1f} s")
    print(f"peak of penstock score {peaks[0] / MEGABYTE:.0f} MB, of the server {peaks[1] / MEGABYTE:.0f} MB")


def check(output: Path, rows: int) -> None:
    """Checks that the output has every row once, in order, with its answer.

    Raises:
        SystemExit: it has not.
    """
    import pyarrow.parquet

    at = 0
    for batch in pyarrow.parquet.ParquetFile(output).iter_batches(GROUP_ROWS):
        ids = batch.column("id").to_numpy()
        total = np.sum([batch.column(name).to_numpy() for name in COLUMNS], axis=0)
        is_right = np.allclose(batch.column("y").to_numpy(), total, atol=1e-5)
        if not is_right or not (ids == np.arange(at, at + len(ids))).all():
            raise SystemExit(f"the output is wrong after row {at:,}")
        at += len(ids)
    if at != rows:
        raise SystemExit(f"the output has {at:,} rows of {rows:,}")


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ten_million", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the file")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    server_core, core = machine.cores()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        file, output = root / "rows.parquet", root / "out.parquet"
        write_rows(file, arguments.rows)
        write_model(root / "models")
        serve = [SCRIPT, "serve", root / "models", "--port", "0", "--ops-port", "0", "--no-http"]
        with started(serve, [server_core]) as server:
            score = [SCRIPT, "score", "sum", file, "--target", server.target, "-o", output]
            command = [*machine.on_cores(core), *map(str, score)]
            samples = watched(command, arguments.rows, server)
        check(output, arguments.rows)
    show(samples, arguments.rows)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in samples]))


if __name__ == "__main__":
    main()
