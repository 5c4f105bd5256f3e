"""`penstock score`: scores files, and goes on where an earlier run ended."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import click

from penstock.cli.arguments import NamedPath, wanted_outputs
from penstock.cli.target import said, with_target
from penstock.core.garbage import paused
from penstock.core.names import are, many

if TYPE_CHECKING:
    from penstock.scoring.job import Job, Plan
    from penstock.scoring.sources import FileFormat

FORMATS: list[FileFormat] = ["csv", "tsv", "jsonl", "parquet", "arrow"]
PATIENCE_SECONDS = 600.0
ASKING_SECONDS = 30.0


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL] FILE...")
@click.option(
    "--model",
    "model_file",
    type=click.Path(path_type=Path, exists=True),
    help="Score with this model file, without a server; MODEL is left out.",
)
@click.option("--output", "-o", default="-", help="The file to write.  [standard output]")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="How to write.  [by the suffix of the output, without one as the input]",
)
@click.option(
    "--input-format",
    "input_form",
    type=click.Choice(FORMATS),
    help="How to read.  [by the suffix of each file]",
)
@click.option(
    "--rejected",
    type=NamedPath(),
    help="Rows without an answer, with their reasons.  [OUTPUT.rejected.jsonl]",
)
@click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="How often the checkpoint is written.",
)
@click.option("--restart", is_flag=True, help="Begin again, and replace the output.")
@click.option("--outputs", help="Outputs to return, as a,b.  [all]")
@click.option("--version", default="", help="A version number or a label.  [the model's default]")
@click.option(
    "--priority",
    type=int,
    default=-1,
    show_default=True,
    help="Below 0 runs after other requests, above before.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help="Timeout of a request in seconds.  [no limit]",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=PATIENCE_SECONDS,
    show_default=True,
    help="How many seconds a server that is gone is waited for.",
)
@with_target
def score(  # noqa: PLR0913 - the flags
    names: tuple[str, ...],
    model_file: Path | None,
    output: str,
    form: FileFormat | None,
    input_form: FileFormat | None,
    rejected: Path | None,
    checkpoint_seconds: float,
    restart: bool,
    outputs: str | None,
    version: str,
    priority: int,
    timeout: float | None,
    patience: float,
    target: str,
) -> None:
    """Score every row of files with MODEL, and write the rows with the outputs beside them.

    \b
      penstock score lead_scoring leads.csv -o scored.csv
      penstock score lead_scoring 'data/*.parquet' -o scored.parquet
      penstock score --model model.onnx leads.csv -o scored.csv

    A FILE is a path, a pattern such as 'data/*.csv', or an address such as s3://bucket/rows.parquet, in CSV,
    TSV, JSON Lines (each also as .gz), Parquet or Arrow. The rows come out in the order of the files. Rows
    that have no answer go to a file of their own, and the exit code is 1.

    A run that ends early - by Ctrl-C, a crash, a server that stays away - goes on where it ended when the
    same command is given again: OUTPUT.checkpoint says how far it came. No row is lost or written twice. A
    server that restarts is waited for. All rows are scored by the version that was asked for at the
    beginning.
    """  # noqa: D301 - click needs the real character
    with ExitStack() as stack:
        if model_file is not None:
            from penstock.cli.score.local import local_server

            target, model = stack.enter_context(local_server(model_file))
            files = names
        else:
            model, files = (names[0], names[1:]) if names else ("", ())
        if not files:
            raise click.UsageError("name a model and a file" if model_file is None else "name a file")
        with paused():  # looking through what is imported would take a tenth of the time of the start
            from penstock.scoring.sending import Request

            limit = math.inf if timeout is None else timeout
            request = Request(model, version, wanted_outputs(outputs), limit, priority, patience)
            plan = _plan(files, output, form, input_form, rejected, request)
        _run(target, replace(plan, restart=restart, save_seconds=checkpoint_seconds))


def _plan(  # noqa: PLR0913 - the flags
    files: tuple[str, ...],
    output: str,
    form: FileFormat | None,
    input_form: FileFormat | None,
    rejected: Path | None,
    request: object,
) -> Plan:
    """What the flags ask for.

    Raises:
        click.ClickException: a file cannot be read.
        click.UsageError: a file to write is an input or has two tasks, or rejected rows have no file.
    """
    from penstock.row_files.fields import Invalid
    from penstock.scoring.files import check_paths
    from penstock.scoring.job import Plan
    from penstock.scoring.sending import Request
    from penstock.scoring.sources import STANDARD, sources

    assert isinstance(request, Request)
    if "" in files:
        raise click.UsageError('the name of a FILE is empty; "-" is standard input')
    try:
        found = sources(files, input_form)
    except Invalid as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror or error}") from None
    target = None if output == STANDARD else _file_to_write(output, form)
    rejects = _file_for_rejected(rejected, target)
    try:
        check_paths([each.name for each in found], target, rejects, rejected is not None)
    except Invalid as error:
        raise click.UsageError(str(error)) from None
    if rejected is not None:
        _check_ending(rejected)
    return Plan(found, target, form, rejects, request)


def _file_for_rejected(named: Path | None, output: Path | None) -> Path:
    """The file for rows without an answer: the one that the user named, or one beside the output.

    Raises:
        click.UsageError: there is neither, or it is standard output.
    """
    from penstock.scoring.sources import STANDARD

    if named is None:
        if output is None:
            raise click.UsageError(
                "without --output, name a file for rows without an answer: --rejected FILE"
            )
        return output.with_name(f"{output.name}.rejected.jsonl")
    if str(named) == STANDARD:
        raise click.UsageError("--rejected -: rows without an answer need a file, in which a run can go on")
    return named


def _check_ending(rejected: Path) -> None:
    """Checks that a file for rejected rows is not named as one of another format.

    Raises:
        click.UsageError: it is.
    """
    from penstock.scoring.sources import format_of

    if format_of(str(rejected)) not in (None, "jsonl"):
        raise click.UsageError(
            f"--rejected {rejected}: rows without an answer are written as JSON Lines; let it end in .jsonl"
        )


def _file_to_write(output: str, form: FileFormat | None) -> Path:
    """The file that the rows are written to.

    Raises:
        click.UsageError: a run could not go on in it, or its ending tells no format and no flag does.
    """
    from penstock.row_files.fields import Invalid
    from penstock.scoring.sources import not_compressed, written_format

    if "://" in output:
        raise click.UsageError(
            f"{output}: the output is a file of this machine: a run could not go on in another one"
        )
    if not output:
        raise click.UsageError('the name of --output is empty; "-" is standard output')
    target = Path(output)
    if not target.name:
        raise click.UsageError(f"{output} is a folder; name a file to write")
    try:
        not_compressed(output, ", so that a run can go on in it")
        if form is None and not target.is_dir():
            written_format(output, FORMATS)
    except Invalid as error:
        raise click.UsageError(str(error)) from None
    return target


def _run(target: str, plan: Plan) -> None:
    from penstock.cli.interruptible import interruptible
    from penstock.cli.score.watching import ended_by_signals, note, shown, waiting_note
    from penstock.row_files.fields import Invalid
    from penstock.scoring.job import Job
    from penstock.scoring.one_model import OtherModel
    from penstock_client import Client, PenstockError

    job: Job | None = None
    try:
        with Client(target, timeout=ASKING_SECONDS) as client:
            info = client.model(plan.request.model, plan.request.version)
            if info.kept_state is not None:
                raise Invalid(f"{info.name} has a state: its rows are steps; use penstock predict --file")
            _check_outputs(plan, [spec.name for spec in info.outputs])
            job = Job(plan, client, info, waiting_note)
            if job.is_done:
                note(f"already done: {_written(plan, job)}; --restart begins again")
            elif job.resumed:
                verb = "is" if job.resumed == 1 else "are"
                note(f"going on after {many(job.resumed, 'row', ',')} that {verb} done")
            since = monotonic()
            with ended_by_signals(job) as came, shown(job):
                interruptible(job.run)
            seconds = monotonic() - since
    except (PenstockError, Invalid, OtherModel, OSError) as error:
        if isinstance(error, BrokenPipeError) and plan.output is None:
            raise  # the reader of standard output has gone, as `head` does
        raise _failed(target, plan, job, error) from None
    _end(plan, job, seconds, came)


def _check_outputs(plan: Plan, known: list[str]) -> None:
    from penstock.row_files.fields import Invalid

    unknown = [f'"{name}"' for name in plan.request.outputs or () if name not in known]
    if unknown:
        raise Invalid(f"unknown output {', '.join(unknown)}; outputs: {', '.join(known)}")


def _end(plan: Plan, job: Job, seconds: float, came: list[int]) -> None:
    """Says how the run ended, and ends the process with its exit code."""
    import sys

    from penstock.cli import SIGNAL_OFFSET
    from penstock.cli.score.times import duration
    from penstock.cli.score.watching import note

    if came:
        note(_done(plan, job))
        raise SystemExit(SIGNAL_OFFSET + came[0])
    if not job.done and not job.is_done:
        note(f"{_input(plan)} no rows, so nothing was scored")
    rows = job.done - job.resumed
    if sys.stderr.isatty():
        rate = rows / max(seconds, 1e-9)
        note(f"{many(job.done, 'row', ',')}; {rows:,} in {duration(seconds)}, {rate:,.0f} rows/s")
    if job.rejected:
        raise click.ClickException(
            f"{job.rejected:,} of {job.done:,} rows have no answer; their reasons are in {plan.rejects}"
        )


def _input(plan: Plan) -> str:
    """What was read, and "has" or "have"."""
    if len(plan.sources) > 1:
        return f"the {len(plan.sources)} files have"
    name = plan.sources[0].name
    return f"{'standard input' if name == '-' else name} has"


def _failed(target: str, plan: Plan, job: Job | None, error: Exception) -> click.ClickException:
    from penstock.row_files.fields import Invalid
    from penstock_client import PenstockError

    if isinstance(error, PenstockError):
        text = said(target, error, plan.request.model)
    elif isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        text = f"{name}{error.strerror or error}"
    else:
        text = str(error)
    if job is None:
        return click.ClickException(text)
    if isinstance(error, Invalid):  # the same files would end the run in the same place again
        return click.ClickException(f"{text}\n{are(job.done, 'row', ',')} done" if job.done else text)
    return click.ClickException(f"{text}\n{_done(plan, job)}")


def _written(plan: Plan, job: Job) -> str:
    """Where the rows of a finished run are."""
    text = f"{are(job.done - job.rejected, 'row', ',')} in {plan.output}"
    return f"{text} and {job.rejected:,} in {plan.rejects}" if job.rejected else text


def _done(plan: Plan, job: Job) -> str:
    """How much is done, and how it goes on."""
    text = f"{are(job.done, 'row', ',')} done"
    return f"{text}; the same command goes on from there" if plan.checkpoint is not None else text
