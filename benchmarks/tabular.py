"""Tables as people have them: a file beside a loop of their own, many columns beside one vector.

    python -m benchmarks.tabular [--rounds 5] [--rows 200000] [--streamed 10000] [--json FILE]
                                 [--only NAME]...

`penstock score` scores a CSV file, its start included. The loops send the same rows 256 at a time with the
client. One reads and writes the file with the csv module, its start included; one with pandas, without its
start; one has the columns in memory and writes nothing. Rows of 60 columns are dicts of Python's floats, sent
over one stream; the vector is one list of as many. Server and load have a core each. All take turns. Printed
are the medians, and of the ratios within a round the median, the lowest and the highest; CPU is that of the
sending process.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks import machine
from benchmarks.rounds import progress
from benchmarks.servers import ROOT, started

SCRIPT = Path(sys.executable).with_name("penstock")
WIDTH = 60
BASES = {"score": ("loop, csv", "loop, pandas", "loop, in memory"), f"{WIDTH} columns": ("one vector",)}
"""What is compared, and with what."""

IN_MEMORY = """
import csv, sys
import numpy as np
from penstock_client import Client
with open(sys.argv[2]) as file:
    rows = list(csv.DictReader(file))
columns = {"lead_source": np.array([each["lead_source"] for each in rows], object)}
columns["number_of_courses_viewed"] = np.array([int(each["number_of_courses_viewed"]) for each in rows])
columns["annual_income"] = np.array([each["annual_income"] for each in rows], np.float32)
print("ready", flush=True)
input()
with Client(sys.argv[1]) as client:
    for at in range(0, len(rows), 256):
        client.predict("lead_scoring", {name: each[at : at + 256] for name, each in columns.items()})
"""
WITH_CSV = """
import csv, itertools, sys
from penstock_client import Client
with Client(sys.argv[1]) as client, open(sys.argv[2]) as file, open(sys.argv[3], "w") as output:
    rows, writer = csv.reader(file), csv.writer(output)
    writer.writerow([*next(rows), "label", "p0", "p1"])
    while chunk := list(itertools.islice(rows, 256)):
        _, sources, counts, incomes = zip(*chunk)
        inputs = {"lead_source": list(sources)}
        inputs["number_of_courses_viewed"] = [int(each) for each in counts]
        inputs["annual_income"] = [float(each) for each in incomes]
        answer = client.predict("lead_scoring", inputs)
        answers = zip(chunk, answer["label"].tolist(), answer["probabilities"].tolist())
        writer.writerows([*row, label, *both] for row, label, both in answers)
"""
WITH_PANDAS = """
import sys
import pandas as pd
from penstock_client import Client
print("ready", flush=True)
input()
with Client(sys.argv[1]) as client, open(sys.argv[3], "w") as output:
    for number, chunk in enumerate(pd.read_csv(sys.argv[2], chunksize=256)):
        answer = client.predict("lead_scoring", chunk, extra="ignore")
        chunk["label"] = answer["label"]
        chunk[["p0", "p1"]] = answer["probabilities"]
        chunk.to_csv(output, index=False, header=not number)
"""
STREAM = f"""
import random, sys
from penstock_client import Client
values = [[random.random() for _ in range({WIDTH})] for _ in range(int(sys.argv[3]))]
rows = {{
    "vector": lambda: ({{"x": each}} for each in values),
    "columns": lambda: (dict(zip(names, each)) for each in values),
}}[sys.argv[2]]
names = [f"c{{i}}" for i in range({WIDTH})]
with Client(sys.argv[1]) as client:
    model = sys.argv[2]
    assert len(list(client.predict_stream(model, list(rows())[:100]))) == 100
    made = list(rows())
    print("ready", flush=True)
    input()
    assert sum(1 for _ in client.predict_stream(model, made)) == len(made)
"""


def models(folder: Path) -> Path:
    """The bundled model, and two that add up 60 numbers."""
    (folder / "lead_scoring").symlink_to(ROOT / "examples/models/lead_scoring")
    names = [f"c{i}" for i in range(WIDTH)]
    ones = numpy_helper.from_array(np.ones((WIDTH, 1), np.float32), "w")
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])
    add = helper.make_node("MatMul", ["x", "w"], ["y"])
    join = helper.make_node("Concat", names, ["x"], axis=1)
    for model, nodes, widths in (
        ("vector", [add], {"x": WIDTH}),
        ("columns", [join, add], dict.fromkeys(names, 1)),
    ):
        inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", w]) for n, w in widths.items()]
        graph = helper.make_graph(nodes, model, inputs, [output], [ones])
        (folder / model / "1").mkdir(parents=True)
        opset = [helper.make_opsetid("", 17)]
        onnx.save(
            helper.make_model(graph, opset_imports=opset, ir_version=8), folder / model / "1/model.onnx"
        )
    return folder


def write_rows(path: Path, count: int) -> None:
    """A CSV file of leads."""
    draw = random.Random(1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "lead_source", "number_of_courses_viewed", "annual_income"])
        for i in range(count):
            source = draw.choice(["paid_ads", "organic", "referral"])
            writer.writerow([i, source, draw.randrange(9), round(draw.gauss(60000, 9000), 2)])


def run(command: Sequence[object], core: int, has_start: bool) -> tuple[float, float]:
    """Runs a process to its end.

    Args:
        command: what is run.
        core: the core that it may use.
        has_start: whether it says when it is ready, and waits for a line then.

    Returns:
        Its wall time and its CPU time, from when it was ready on, in seconds.
    """
    words = [*machine.on_cores(core), *map(str, command)]
    before, since = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        own = 0.0
        if has_start:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            own, since = machine.cpu_seconds(process.pid), time.perf_counter()
        process.communicate("\n" if has_start else None)
    seconds = time.perf_counter() - since
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used - own


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tabular", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the file")
    parser.add_argument("--streamed", type=int, default=10_000, help="rows of a stream")
    parser.add_argument("--only", action="append", metavar="NAME", help="what to measure, as it is printed")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    server_core, core = machine.cores()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        file, output = root / "rows.csv", root / "out.csv"
        write_rows(file, arguments.rows)
        (root / "models").mkdir()
        serve = [SCRIPT, "serve", models(root / "models"), "--port", "0", "--ops-port", "0", "--no-http"]
        with started(serve, [server_core]) as server:
            target, streamed = server.target, arguments.streamed
            python = [sys.executable, "-c"]
            score = [SCRIPT, "score", "lead_scoring", file, "-o", output, "--restart", "--target", target]
            lines: dict[str, tuple[Sequence[object], bool]] = {
                "score": (score, False),
                "loop, csv": ([*python, WITH_CSV, target, file, output.with_name("loop.csv")], False),
                "loop, in memory": ([*python, IN_MEMORY, target, file], True),
                "loop, pandas": ([*python, WITH_PANDAS, target, file, output.with_name("loop.csv")], True),
                "one vector": ([*python, STREAM, target, "vector", streamed], True),
                f"{WIDTH} columns": ([*python, STREAM, target, "columns", streamed], True),
            }
            for name in arguments.only or ():
                if name not in lines:
                    parser.error(f"--only {name}: expected one of {', '.join(lines)}")
            lines = {name: each for name, each in lines.items() if name in (arguments.only or lines)}
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
            for number in range(arguments.rounds):
                progress(f"round {number + 1} of {arguments.rounds}")
                for name, (command, has_start) in lines.items():
                    found[name].append(run(command, core, has_start))
    show(found, arguments.rows, streamed)
    if arguments.json:
        arguments.json.write_text(json.dumps(found))


def show(found: dict[str, list[tuple[float, float]]], rows: int, streamed: int) -> None:
    """Prints the medians and the ratios."""
    for name, figures in found.items():
        seconds, cpu = (statistics.median(each) for each in zip(*figures, strict=True))
        count = streamed if name in ("one vector", f"{WIDTH} columns") else rows
        print(f"{name:<16} {seconds:7.2f} s  {count / seconds:10,.0f} rows/s  CPU {cpu:6.2f} s")
    for name, bases in BASES.items():
        for base in bases:
            if name not in found or base not in found:
                continue
            for place, what in enumerate(("time", "CPU")):
                ratios = [a[place] / b[place] for a, b in zip(found[name], found[base], strict=True)]
                low, high = min(ratios), max(ratios)
                print(f"{name} over {base}: {what} {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
