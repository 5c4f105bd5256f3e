"""`penstock predict`: sends one request, or the rows of a file, to a server and prints the answers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import click

from penstock.cli.arguments import wanted_outputs
from penstock.cli.target import said, with_target

if TYPE_CHECKING:
    from penstock.cli.predict.files import FileOptions
    from penstock.cli.predict.streaming import RowRequest
    from penstock_client import Client, ModelInfo, Sequence

ONE_TIMEOUT_SECONDS = 30.0


@click.command()
@click.argument("model")
@click.argument("values", nargs=-1, metavar="[INPUT=VALUE]...")
@click.option("--file", "path", help="Predict every row of a .csv, .tsv or .jsonl file; - for stdin.")
@click.option("--output", "-o", help="Write the rows of --file here.  [standard output]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "tsv", "jsonl"]),
    help="How to write the rows of --file.  [by the suffix of --output, without one as the input]",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first row of --file that fails.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--outputs", help="Outputs to return, as a,b.  [all]")
@click.option("--version", default="", help="A version number or a label.  [the model's default]")
@with_target
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help=f"Timeout of a prediction in seconds.  [{ONE_TIMEOUT_SECONDS:.0f}; with --file no limit]",
)
@click.option(
    "--sequence",
    "id",
    metavar="ID",
    help="The sequence of this step (models with a state).",
)
@click.option(
    "--start", is_flag=True, help="This is the first step of --sequence: the sequence begins again."
)
@click.option("--end", is_flag=True, help="This is the last step of --sequence: its state is dropped.")
def predict(  # noqa: PLR0913 - the flags
    model: str,
    values: tuple[str, ...],
    path: str | None,
    output: str | None,
    form: Literal["csv", "tsv", "jsonl"] | None,
    fail_fast: bool,
    as_json: bool,
    outputs: str | None,
    version: str,
    target: str,
    timeout: float | None,
    id: str | None,
    start: bool,
    end: bool,
) -> None:
    """Send requests for MODEL to a running server and print the answers.

    \b
      penstock predict iris x='[5.1, 3.5, 1.4, 0.2]' --json
      penstock predict lead_scoring --file leads.csv -o scored.csv

    A VALUE is read according to the model's signature: a number (null for a missing one), true or false, a
    text, a JSON list (x='[1, 2, 3]'; lists of rows too), or the name of a file with an array or JSON
    (x=@x.npy, x=@x.json). A text that starts with @ is written with two.

    A CSV file has a header with the names of the inputs; the values of a vector x are in columns x.0,
    x.1, ... or in one column as a JSON list. A JSON Lines file has an object on every line. All columns
    are kept, in their order, and the outputs follow: vectors as y.0, y.1, ... in CSV. An output that has
    the name of a column is called <name>_answer. A row that fails has no answer; the reason is in the column
    "error", and the exit code is 1. A file without rows is no failure; it is said.

    For a model with a state, send one step of a --sequence per call, or many with --file: all lines are
    steps of one sequence, the file's own or --sequence. --start marks the first line as the first step, --end
    the last line as the last one. A sequence that a file starts ends with it.
    """  # noqa: D301 - click needs the real character
    file = _file_options(path, values, output, form, fail_fast, as_json)
    given = _pairs(values)
    request = _row_request(model, version, outputs, timeout, file, _sequence(id, start, end))
    _run(target, request, given, file, as_json)


def _file_options(  # noqa: PLR0913 - the flags
    path: str | None,
    values: tuple[str, ...],
    output: str | None,
    form: Literal["csv", "tsv", "jsonl"] | None,
    fail_fast: bool,
    as_json: bool,
) -> FileOptions | None:
    """The flags for a file.

    Raises:
        click.UsageError: they cannot be combined.
    """
    if "" in (path, output):
        raise click.UsageError('--file and --output need a name; "-" is standard input or output')
    if path is None:
        alone = {"--output": output, "--format": form, "--fail-fast": fail_fast}
        for flag in (flag for flag, given in alone.items() if given):
            raise click.UsageError(f"{flag} needs --file")
        return None
    if values:
        raise click.UsageError("give either values or --file")
    if as_json:
        raise click.UsageError("--json is for a single prediction; with --file use --format jsonl")
    if output is not None and _same(path, output):
        raise click.UsageError("--output is the input file itself")
    from penstock.cli.predict.files import FORMATS, STANDARD, FileOptions
    from penstock.row_files.fields import Invalid
    from penstock.scoring.sources import not_compressed, written_format

    try:
        if output is not None and output != STANDARD:
            not_compressed(output)
            if form is None:
                written_format(output, FORMATS)
    except Invalid as error:
        raise click.UsageError(str(error)) from None
    return FileOptions(path, output or STANDARD, form, fail_fast)


def _same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


SHARED = (("penstock-sequences", "shared"),)
"""Metadata: each command is a caller of its own, but several may send the steps of one sequence."""


def _pairs(values: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.UsageError(f"expected INPUT=VALUE, got {value!r}")
        if name in pairs:
            raise click.UsageError(f'input "{name}" is given twice')
        pairs[name] = text
    return pairs


def _sequence(id: str | None, start: bool, end: bool) -> Sequence | None:
    """The step of a sequence that the flags describe.

    Raises:
        click.UsageError: it has no id.
    """
    if id is None:
        for flag in (flag for flag, given in {"--start": start, "--end": end}.items() if given):
            raise click.UsageError(f"{flag} needs --sequence")
        return None
    if not id:
        raise click.UsageError("--sequence needs an id that is not empty")
    from penstock_client import Sequence

    return Sequence(id, start, end)


def _row_request(  # noqa: PLR0913 - the flags
    model: str,
    version: str,
    outputs: str | None,
    timeout: float | None,
    file: FileOptions | None,
    sequence: Sequence | None,
) -> RowRequest:
    from penstock.cli.predict.streaming import RowRequest

    wanted = wanted_outputs(outputs)
    default = ONE_TIMEOUT_SECONDS if file is None else math.inf
    return RowRequest(model, version, wanted, default if timeout is None else timeout, sequence)


def _run(
    target: str, request: RowRequest, given: Mapping[str, str], file: FileOptions | None, as_json: bool
) -> None:
    from penstock.row_files.fields import Invalid
    from penstock_client import Client, PenstockError

    # The timeout for a file is that of each row.
    first = request.timeout if file is None else ONE_TIMEOUT_SECONDS
    try:
        with Client(target, timeout=first, metadata=SHARED if request.sequence else ()) as client:
            info = _model(client, request)
            _check_sequence(info, request.sequence, file)
            if file is None:
                _one(client, info, request, given, as_json)
            else:
                _file(client, info, request, file)
    except PenstockError as error:
        raise click.ClickException(said(target, error, request.model)) from None
    except Invalid as error:
        raise click.ClickException(str(error)) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{name}{error.strerror or error}") from None


def _model(client: Client, request: RowRequest) -> ModelInfo:
    """Asks the server for the model's description.

    Raises:
        Invalid: the model lacks a requested output.
    """
    from penstock.row_files.fields import Invalid

    info = client.model(request.model, request.version)
    known = [spec.name for spec in info.outputs]
    unknown = [f'"{name}"' for name in request.outputs or () if name not in known]
    if unknown:
        raise Invalid(f"unknown output {', '.join(unknown)}; outputs: {', '.join(known)}")
    return info


def _check_sequence(info: ModelInfo, sequence: Sequence | None, file: FileOptions | None) -> None:
    """Checks that the flags for a sequence suit the model.

    Raises:
        Invalid: the model has no state; or it has one, and a single step names no sequence.
    """
    from penstock.row_files.fields import Invalid

    if sequence is not None and info.kept_state is None:
        raise Invalid(f"{info.name} version {info.version} has no state, so --sequence cannot be used")
    if sequence is None and info.kept_state is not None and file is None:
        raise Invalid(
            f"{info.name} version {info.version} has a state: name the sequence with --sequence ID, add "
            "--start to its first step; or send all steps with --file"
        )


def _one(
    client: Client, info: ModelInfo, request: RowRequest, given: Mapping[str, str], as_json: bool
) -> None:
    from penstock.cli.predict.printing import print_json, print_table
    from penstock.row_files.fields import Field

    fields = {spec.name: Field(spec) for spec in info.inputs}
    # Unknown names are passed on: the client rejects them together with missing ones, and lists the inputs.
    inputs = {name: fields[name].argument(text) if name in fields else text for name, text in given.items()}
    prediction = client.predict(
        request.model,
        inputs,
        version=request.version,
        outputs=request.outputs,
        timeout=request.timeout,
        sequence=request.sequence,
    )
    if as_json:
        print_json(prediction)
    else:
        print_table(info, inputs, prediction)


def _file(client: Client, info: ModelInfo, request: RowRequest, options: FileOptions) -> None:
    from penstock.cli.predict.files import STANDARD, predict_file

    line = predict_file(client, info, request, options)
    if not line.rows:
        name = "standard input" if options.path == STANDARD else options.path
        click.echo(f"{name} has no rows, so nothing was predicted", err=True)
    if line.failed:
        raise click.ClickException(f'{line.failed:,} of {line.rows:,} rows failed; see their column "error"')
