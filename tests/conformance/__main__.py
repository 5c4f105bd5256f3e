"""Runs every conformance case against a real server: `python -m tests.conformance`, or `make conformance`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import onnx

from tests.conformance import cases, suite
from tests.conformance.cases import LIGHT, Case
from tests.conformance.growth import growth
from tests.conformance.page import page
from tests.conformance.protocols import METHODS, connect, listed
from tests.conformance.reference import Judged
from tests.conformance.report import Run, summary
from tests.conformance.serving import lay_out, serving
from tests.conformance.surroundings import surroundings
from tests.conformance.variants import Variant

PAGE = Path(__file__).parents[2] / "docs/conformance.md"
SHOWN = 50
ORDINARY_ROW = 1 << 16


def main() -> int:
    """The command; returns the exit code."""
    arguments = _arguments()
    why = cases.missing()
    if why is not None:
        print(why, file=sys.stderr)
        return 2
    found = [case for case in cases.all_cases() if arguments.only in case.name]
    with tempfile.TemporaryDirectory() as folder, surroundings():
        run = _run(found, Path(folder), arguments.growth)
    print(summary(run), end="")
    if arguments.write:
        PAGE.write_text(page(run), encoding="utf-8")
    failures = run.failures()
    for line in failures[:SHOWN]:
        print(f"FAILED {line}")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose names hold TEXT")
    parser.add_argument("--write", action="store_true", help="write docs/conformance.md, with starts")
    parser.add_argument("--growth", action="store_true", help="measure starts with more and more models")
    arguments = parser.parse_args()
    if arguments.write and arguments.only:
        parser.error("the page is about all cases: --write without --only")
    arguments.growth |= arguments.write
    return arguments


def _run(found: Sequence[Case], folder: Path, with_growth: bool) -> Run:
    run = Run(suite.judge_all(found, _progress))
    judged = suite.served(run.judged)
    with _serving(folder / "cases", _models(judged)) as (target, channel):
        run.passages = [suite.pass_through(target, channel, name, judged, _progress) for name in METHODS]
    variants = suite.variants_of(judged, folder, _progress)
    models = [*variants, *suite.mixers_of(folder), *suite.unseen()]
    with _serving(folder / "rows", {each.name: each.model for each in models}) as (_, channel):
        run.shared = suite.share(channel, models, listed(channel), _progress)
    if with_growth:
        small = [each for each in judged if each.case.kind != LIGHT]
        run.starts = {
            "the cases as they are": growth(_models(small), folder),
            "with an open first axis": growth(_models_of(variants), folder),
            "the cases and the networks": growth(_models(judged), folder)[-1:],
        }
    return run


@contextmanager
def _serving(
    folder: Path, models: Mapping[str, Path | onnx.ModelProto]
) -> Iterator[tuple[str, grpc.Channel]]:
    with serving(lay_out(folder, models)) as server, connect(server.target) as channel:
        yield server.target, channel


def _models(judged: Sequence[Judged]) -> dict[str, Path]:
    return {each.case.name: each.case.path for each in judged}


def _models_of(variants: Sequence[Variant]) -> dict[str, onnx.ModelProto]:
    """Those of ordinary rows: three with large ones take as long as all others."""
    size = {each.name: max(len(raw.data) for row in each.rows for raw in row.values()) for each in variants}
    return {each.name: each.model for each in variants if size[each.name] <= ORDINARY_ROW}


def _progress(title: str, things: Sequence[suite.T]) -> Iterator[suite.T]:
    """A line that counts, on a terminal; nothing in a pipe."""
    shown = sys.stderr.isatty()
    for place, thing in enumerate(things, 1):
        if shown and (place % 20 == 0 or place == len(things)):
            print(f"\r\033[K{title} {place}/{len(things)}", end="", file=sys.stderr, flush=True)
        yield thing
    if shown:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
