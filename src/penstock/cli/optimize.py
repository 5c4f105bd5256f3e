"""`penstock optimize`: makes faster or smaller variants of a model, compares them, and writes the best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.arguments import ModelFolder, NamedPath
from penstock.cli.output import say
from penstock.core.names import many

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.optimizing.source import Source
    from penstock.optimizing.verdicts import Comparison, Report

NAMES = ("graph", "fp16", "int8-dynamic", "int8-static")
NOTHING_GOOD = 1
MUCH_NOISE = 0.1


@click.command()
@click.argument("path", type=NamedPath(), metavar="MODEL")
@click.option(
    "--sample",
    type=NamedPath(),
    help="Real rows: a .csv, .jsonl or .npz file.  [sample.file of model.toml]",
)
@click.option("--variant", "names", type=click.Choice(NAMES), multiple=True, help="Try only this one.  [all]")
@click.option(
    "--max-difference",
    type=click.FloatRange(min=0),
    default=0.01,
    show_default=True,
    help="Largest accepted difference of an output: of numbers as a part of the largest one, of labels and "
    "texts the share of rows that differ.",
)
@click.option("--allow-slower", is_flag=True, help="Accept variants that are slower, if they are smaller.")
@click.option("--to", type=ModelFolder(), help="The model's folder to write to.  [MODEL's own]")
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def optimize(  # noqa: PLR0913 - the flags
    path: Path,
    sample: Path | None,
    names: tuple[str, ...],
    max_difference: float,
    allow_slower: bool,
    to: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make faster variants of MODEL, compare each with it on real rows, and write the best as a new version.

    MODEL is an .onnx file, the folder of a version, or that of a model, whose newest version is taken.

    A variant is refused if its answers differ by more than --max-difference, if it is slower at 1, 8 or 32
    rows, or if it gains nothing. Golden rows go along, with the difference in their tolerance. Ends with exit
    code 1 if all are refused.
    """
    from penstock.cli.loading import progress
    from penstock.core.errors import StartupError
    from penstock.optimizing.source import find
    from penstock.optimizing.variants import VARIANTS
    from penstock.optimizing.verdicts import Limits, compared
    from penstock.optimizing.writing import described, write

    try:
        source = find(path, sample)
        folder = to or (source.folder if source.number else None)
        if folder is None and not dry_run:
            raise click.UsageError(f"{path} lies in no folder of a model: say where to write with --to")
        limits = Limits(max_difference, allow_slower)
        chosen = [VARIANTS[name] for name in names or NAMES]
        with progress() as shown, compared(source, chosen, limits, shown.update) as found:
            best = found.best
            written = write(source, found, best, folder) if best and folder and not dry_run else None
    except StartupError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        import json

        best_name, place = best.name if best else None, str(written) if written else None
        say(json.dumps({**described(found), "best": best_name, "written": place}, ensure_ascii=False) + "\n")
    else:
        say("".join(f"{line}\n" for line in _lines(source, found, written)))
    if best is None:
        raise SystemExit(NOTHING_GOOD)


HEADER = ("", "size", "1 row", "8 rows", "32 rows", "difference", "same top", "batched")


def _lines(source: Source, found: Comparison, written: Path | None) -> Iterator[str]:
    reports = (found.original, *found.variants)
    version = f" version {source.number}" if source.number else ""
    yield f"{source.name}{version}, on {many(found.rows, 'row')} of {source.requests_file}"
    yield ""
    yield from _table([HEADER, *(_cells(each) for each in reports)])
    yield ""
    if found.noise > MUCH_NOISE:
        yield f"this machine is busy: times that differ by less than {found.noise:.0%} count as the same"
    for each in reports:
        if each.batching is not None and not each.batching.enabled:
            yield f"{each.name}: rows run alone: {each.batching.reason}"
    for each in found.variants:
        yield f"{each.name}: {f'refused: {each.refused}' if each.refused else _good(each)}"
    if written is not None and found.best is not None:
        yield f"written: {found.best.name} as {written}"


def _good(report: Report) -> str:
    return "good" if report.golden is None else f"good; {report.golden}"


def _cells(report: Report) -> tuple[str, ...]:
    from penstock.optimizing.verdicts import in_words

    times = [in_words(each) for each in report.seconds] or ["-"] * 3
    difference, same = "-", "-"
    if report.differences:
        difference = f"{report.worst.size:.2g}"
        same = f"{report.same_top:.1%}" if report.same_top is not None else "-"
    batched = "-" if report.batching is None else "yes" if report.batching.enabled else "no"
    size = f"{report.size_bytes / 1e6:.3g} MB" if report.size_bytes else "-"
    return (report.name, size, *times, difference, same, batched)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *padded])
