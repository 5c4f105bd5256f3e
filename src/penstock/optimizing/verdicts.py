"""Compares the variants of a model with the original, and says of each whether it may take its place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.tensors import Array
from penstock.models.golden_rows import Runnable, as_served
from penstock.models.model import Batching
from penstock.models.opened import Opened
from penstock.optimizing import golden
from penstock.optimizing.golden import GoldenFound
from penstock.optimizing.measuring import SIZES, Answers, Difference, Timed, answers, differences, seconds
from penstock.optimizing.source import Source, loaded, requests_of
from penstock.optimizing.variants import Variant, make

ORIGINAL, AGAIN = "original", "original again"
LEAST_NOISE = 0.05
"""Times that differ by less than this are the same."""
SMALLER = 0.9


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant may lose.

    Attributes:
        difference: the largest accepted difference of an output; see `Difference.size`.
        allow_slower: whether it may take more time, for its size.
        noise: by how much times must differ to be different.
    """

    difference: float
    allow_slower: bool = False
    noise: float = LEAST_NOISE


@dataclass(slots=True)
class Report:
    """What is known of a variant, or of the original.

    Attributes:
        name: the variant's; "original" for the original.
        file: the model file; it lies in a folder that is removed at the end.
        size_bytes: of the file, external data included.
        batching: whether its rows may share a batch, and why; None if it could not be loaded.
        seconds: how long the rows of `SIZES` take, as the server would run them.
        differences: of each output from the original's.
        golden: how it answers the golden rows; None if there are none, or it was refused before.
        refused: why it may not take the original's place; "" if it may.
    """

    name: str
    file: Path
    size_bytes: int = 0
    batching: Batching | None = None
    seconds: Sequence[float] = ()
    differences: Sequence[Difference] = field(default_factory=list)
    golden: GoldenFound | None = None
    refused: str = ""

    @property
    def worst(self) -> Difference:
        """The output that is farthest from the original's."""
        return max(self.differences, key=lambda each: each.size)

    @property
    def same_top(self) -> float | None:
        """The smallest agreement of an output; None if no output has any."""
        return min((each.same_top for each in self.differences if each.same_top is not None), default=None)

    def times(self, original: Report) -> float:
        """The time it takes, as a part of the original's: the geometric mean over the sizes."""
        ratios = [mine / its for mine, its in zip(self.seconds, original.seconds, strict=True)]
        return float(prod(ratios) ** (1 / len(ratios)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that was found.

    Attributes:
        original: the original's report.
        variants: those of the variants.
        rows: how many real rows they were compared on.
        noise: by how much times must differ to be different: twice as much as those of the original
            differed from themselves, and at least `LEAST_NOISE`.
    """

    original: Report
    variants: Sequence[Report]
    rows: int
    noise: float

    @property
    def best(self) -> Report | None:
        """The fastest variant that may take the original's place; of equally fast ones the smallest."""
        good = [each for each in self.variants if not each.refused]
        return min(good, key=lambda e: (round(e.times(self.original), 2), e.size_bytes), default=None)


@contextmanager
def compared(
    source: Source,
    variants: Sequence[Variant],
    limits: Limits,
    progress: Callable[[str], None] = lambda doing: None,
) -> Iterator[Comparison]:
    """Makes the variants and compares each with the original; their files exist within the `with` statement.

    Args:
        source: the original.
        variants: what is made of it.
        limits: what a variant may lose. Their noise becomes what is measured, if that is more.
        progress: told what is being done.

    Raises:
        ModelLoadError: the original or the sample cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-optimize-") as scratch:
        progress(f"running {ORIGINAL}")
        batching, opened, runnable = _loaded(source, source.path)
        requests = requests_of(opened)
        golden.check_original(runnable, source.path.parent)
        try:
            truth = answers(opened.backend, requests)
        except ModelFailed as error:
            raise ModelLoadError(f"the model fails on a row of {source.requests_file}: {error}") from error
        size = source.path.stat().st_size + sum(each.stat().st_size for each in beside(source.path))
        original = Report(ORIGINAL, source.path, size, batching)
        timed = {name: Timed(opened.backend, requests, batching.enabled) for name in (ORIGINAL, AGAIN)}
        reports = []
        for variant in variants:
            progress(f"making {variant.name}")
            report = Report(variant.name, Path(scratch) / variant.name / "model.onnx")
            reports.append(report)
            timing = _made(source, variant, report, requests, truth, limits.difference)
            if timing is not None:
                timed[variant.name] = timing
        progress("measuring times")
        found = seconds(timed)
        for report in (original, *reports):
            report.seconds = found.get(report.name, ())
        pairs = zip(found[ORIGINAL], found[AGAIN], strict=True)
        noise = max(limits.noise, *(2 * (max(pair) / min(pair) - 1) for pair in pairs))
        for report in reports:
            report.refused = report.refused or why_refused(report, original, replace(limits, noise=noise))
        yield Comparison(original, reports, len(requests), noise)


def beside(path: Path) -> Sequence[Path]:
    """The files that hold the external data of a model."""
    from penstock.backends import onnx_file

    return [path.parent / name for name in onnx_file.beside(path, onnx_file.external_files(path))]


def _loaded(source: Source, path: Path) -> tuple[Batching, Opened, Runnable]:
    learned, opened = loaded(source, path)
    batching = learned.batching
    return batching, opened, as_served(opened, learned.max_rows if batching.enabled else 1)


def _made(  # noqa: PLR0913 - what is compared
    source: Source,
    variant: Variant,
    report: Report,
    requests: Sequence[Mapping[str, Array]],
    truth: Answers,
    limit: float,
) -> Timed | None:
    """Makes and loads a variant, and fills in its report; None if it is refused already."""
    report.file.parent.mkdir()
    try:
        make(variant, source.path, report.file, requests)
        report.size_bytes = report.file.stat().st_size + sum(e.stat().st_size for e in beside(report.file))
        report.batching, opened, runnable = _loaded(source, report.file)
        backend = opened.backend
        found = answers(backend, requests)
        report.golden = golden.compared(runnable, source.path.parent, limit, report.file.parent)
    except (ModelLoadError, ModelFailed) as error:
        text = str(error).replace(str(report.file), "the variant").replace(str(source.path), "the model")
        report.refused = text
        return None
    report.differences = differences(list(backend.signature.outputs.values()), truth, found)
    return Timed(backend, requests, report.batching.enabled)


def why_refused(report: Report, original: Report, limits: Limits) -> str:
    """Why a variant that was measured may not take the original's place; "" if it may."""
    worst = report.worst
    if report.golden is not None and report.golden.refused:
        return report.golden.refused
    if worst.size > limits.difference:
        return (
            f"{worst.output} differs by {worst.size:.2g} in row {worst.row}, more than {limits.difference:g}"
        )
    slower = _slower(report, original, limits.noise)
    if slower and not limits.allow_slower:
        return slower
    faster = any(
        mine * (1 + limits.noise) < its for mine, its in zip(report.seconds, original.seconds, strict=True)
    )
    if not faster and report.size_bytes > original.size_bytes * SMALLER:
        return "it gains nothing: neither faster nor smaller"
    return ""


def _slower(report: Report, original: Report, noise: float) -> str:
    """At how many rows it is slower, and why; "" if it is not."""
    alone = ""
    if original.batching and original.batching.enabled and report.batching and not report.batching.enabled:
        alone = f"; its rows run alone: {report.batching.reason}"
    for rows, mine, its in zip(SIZES, report.seconds, original.seconds, strict=True):
        if mine > its * (1 + noise):
            many = f"{rows} rows take" if rows > 1 else "1 row takes"
            return f"slower: {many} {in_words(mine)} instead of {in_words(its)}{alone}"
    return ""


def in_words(duration: float) -> str:
    """A time with its unit."""
    return f"{duration * 1e3:.3g} ms" if duration >= 1e-3 else f"{duration * 1e6:.3g} µs"
