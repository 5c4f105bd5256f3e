"""What the largest batch should be: throughput and the server's CPU for several bounds, on two networks.

    python -m benchmarks.max_rows

512 requests are in flight on one stream, so that there is always enough to fill a batch. How
`batching.max_rows` is chosen rests on this; see docs/decisions/0004-batching.md.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks import measures
from benchmarks.bench import running
from benchmarks.figures import Results
from benchmarks.loads import gathered
from benchmarks.subjects import SUBJECTS
from benchmarks.tables import number

BOUNDS = (8, 16, 32, 64, 128, 256)
MODELS = ("tiny_mlp", "medium_mlp")
ROWS_A_MESSAGE, IN_FLIGHT = 16, 32
ROUNDS, SECONDS = 5, 0.5


def main() -> None:
    subjects = {}
    names = {str(bound): f"penstock-{bound}-rows" for bound in BOUNDS}
    for bound, name in names.items():
        variables = {**SUBJECTS["penstock"].variables, "PENSTOCK_BATCHING__MAX_ROWS": bound}
        subjects[name] = replace(SUBJECTS["penstock"], variables=variables)
    results = Results()
    with running(subjects, SECONDS) as run:
        for counts in (False, *[True] * ROUNDS):
            for model in MODELS:
                sent = gathered(model, ROWS_A_MESSAGE, IN_FLIGHT)
                for bound, name in names.items():
                    figure = measures.stream(name, sent)(run)
                    if counts:
                        results.add(model, bound, figure)
    print("| model | max_rows | predictions a second | server CPU, µs each |\n|---|---|---|---|")
    for model, bounds in results.figures.items():
        for bound in bounds:
            rate, cpu = (number(results.median(model, bound, name)) for name in ("rate", "cpu_us"))
            print(f"| {model} | {bound} | {rate} | {cpu} |")


if __name__ == "__main__":
    main()
