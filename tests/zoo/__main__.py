"""Serves the models of the zoo and compares every answer: `python -m tests.zoo`, or `make zoo`."""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
from pathlib import Path

from tests.zoo.bare import bare
from tests.zoo.fetch import FOLDER, fetch, missing
from tests.zoo.packages import ZooModel, listed
from tests.zoo.report import Result, line, page, summary
from tests.zoo.serve import ALONE, Served, measured, serve

PAGE = Path(__file__).parents[2] / "docs/zoo.md"
STARTS = 3
"""Measured starts of a model with and without batching."""


def main() -> int:
    """The command; returns the exit code."""
    arguments = _arguments()
    models = [each for each in listed() if arguments.only in each.name]
    left_out = fetch(models)
    absent = missing(models)
    models = [each for each in models if each not in absent]
    results = []
    for place, model in enumerate(models, 1):
        if sys.stderr.isatty():
            print(f"\r\033[K{place}/{len(models)} {model.name}", end="", file=sys.stderr, flush=True)
        results.append(_result(model))
        if arguments.verbose:
            print(line(results[-1]), flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    print(summary(results, left_out), end="")
    if arguments.write:
        PAGE.write_text(page(results, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    if arguments.keep:
        arguments.keep.write_bytes(pickle.dumps(results))
    return 0 if all(each.right for each in results) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="models whose names hold TEXT")
    parser.add_argument("--verbose", action="store_true", help="print a line for each model")
    parser.add_argument("--write", action="store_true", help="write docs/zoo.md")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="pickle the results, to compare two runs")
    arguments = parser.parse_args()
    if arguments.write and arguments.only:
        parser.error("the page is about all models: --write without --only")
    return arguments


def _result(model: ZooModel) -> Result:
    found = bare(model, FOLDER)
    if found.reason:
        return Result(model, found, Served())
    with tempfile.TemporaryDirectory() as folder:
        result = Result(model, found, serve(model, found, FOLDER, Path(folder)))
        # Their requests and answers are large, and no longer needed.
        if model.compare and not result.served.failed:
            for number in range(STARTS):
                for starts, settings in ((result.as_found, ""), (result.without, ALONE)):
                    scratch = Path(folder) / f"{number}-{len(settings)}"
                    starts.append(measured(model, found, FOLDER, scratch, settings))
    found.requests.clear()
    found.alone.clear()
    return result


if __name__ == "__main__":
    sys.exit(main())
