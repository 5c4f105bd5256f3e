"""`penstock predict`: asks a running server for predictions, of one row or of a whole file."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from penstock.cli.files import FileOptions
    from penstock.cli.streaming import Ask
    from penstock_client import Client, ModelInfo, PenstockError, Sequence

ONE_TIMEOUT_SECONDS = 30.0


@click.command()
@click.argument("model")
@click.argument("values", nargs=-1, metavar="[INPUT=VALUE]...")
@click.option("--file", "path", help="Predict every row of a .csv or .jsonl file; - for standard input.")
@click.option("--output", "-o", help="Write the rows of --file here.  [standard output]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl"]),
    help="How to write the rows of --file.  [by the suffix of --output, else as the input]",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first row of --file that fails.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--outputs", help="The outputs wanted, as a,b.  [all]")
@click.option("--version", default="", help="A version number or a label.  [the model's default]")
@click.option("--target", default="127.0.0.1:8001", show_default=True, help="The server, as host:port.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help=f"Seconds a prediction may take.  [{ONE_TIMEOUT_SECONDS:.0f}; with --file no limit]",
)
@click.option(
    "--sequence",
    "id",
    metavar="ID",
    help="Of a model that keeps a state: the sequence that this is a step of.",
)
@click.option("--start", is_flag=True, help="This is the first step of --sequence: it begins afresh.")
@click.option("--end", is_flag=True, help="This is the last step of --sequence: its state is dropped.")
def predict(  # noqa: PLR0913 - the flags
    model: str,
    values: tuple[str, ...],
    path: str | None,
    output: str | None,
    form: Literal["csv", "jsonl"] | None,
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
    """Ask a running server for predictions of MODEL and print them.

    \b
      penstock predict iris x='[5.1, 3.5, 1.4, 0.2]' --json
      penstock predict lead_scoring --file leads.csv -o scored.csv

    A VALUE is read as the model's signature says: a number, true or false, a text, a JSON list
    (x='[1, 2, 3]'; lists of rows too), or the name of a file with an array or JSON (x=@x.npy, x=@x.json).
    A text that starts with @ is written with two.

    A CSV file has a header with the names of the inputs; the values of a vector x stand in columns x.0,
    x.1, ... or in one column as a JSON list. A JSON Lines file has an object on every line. All columns
    are kept, in their order, and the outputs follow: vectors as y.0, y.1, ... in CSV. An output that has
    the name of a column is called <name>_answer. A row that fails has no answer; the column "error" says
    why, and the exit code is 1.

    A model that keeps a state is asked for one step of a --sequence after the other, or for many with --file:
    all lines are steps of one sequence, which is the file's own or --sequence, the first with --start and the
    last with --end. A sequence that a file starts ends with it.
    """  # noqa: D301 - click needs the real character
    with _ending_quietly():
        file = _file_options(path, values, output, form, fail_fast, as_json)
        given = _pairs(values)
        ask = _ask(model, version, outputs, timeout, file, _sequence(id, start, end))
        _run(target, ask, given, file, as_json)


def _file_options(  # noqa: PLR0913 - the flags
    path: str | None,
    values: tuple[str, ...],
    output: str | None,
    form: Literal["csv", "jsonl"] | None,
    fail_fast: bool,
    as_json: bool,
) -> FileOptions | None:
    """The flags for a file.

    Raises:
        click.UsageError: they do not go together.
    """
    if path is None:
        alone = {"--output": output, "--format": form, "--fail-fast": fail_fast}
        for flag in (flag for flag, given in alone.items() if given):
            raise click.UsageError(f"{flag} goes with --file")
        return None
    if values:
        raise click.UsageError("give either values or --file")
    if as_json:
        raise click.UsageError("--json is for a single prediction; with --file use --format jsonl")
    if output is not None and _same(path, output):
        raise click.UsageError("--output is the input file itself")
    from penstock.cli.files import STANDARD, FileOptions

    return FileOptions(path, output or STANDARD, form, fail_fast)


def _same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _pairs(values: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.UsageError(f"a value is given as INPUT=VALUE, not {value!r}")
        if name in pairs:
            raise click.UsageError(f'input "{name}" is given twice')
        pairs[name] = text
    return pairs


def _sequence(id: str | None, start: bool, end: bool) -> Sequence | None:
    """What is said of a sequence.

    Raises:
        click.UsageError: it has no id.
    """
    if id is None:
        for flag in (flag for flag, given in {"--start": start, "--end": end}.items() if given):
            raise click.UsageError(f"{flag} goes with --sequence")
        return None
    if not id:
        raise click.UsageError("--sequence takes an id, which is not empty")
    from penstock_client import Sequence

    return Sequence(id, start, end)


def _ask(  # noqa: PLR0913 - the flags
    model: str,
    version: str,
    outputs: str | None,
    timeout: float | None,
    file: FileOptions | None,
    sequence: Sequence | None,
) -> Ask:
    from penstock.cli.streaming import Ask

    wanted = None if outputs is None else [name.strip() for name in outputs.split(",") if name.strip()]
    if outputs is not None and not wanted:
        raise click.UsageError("--outputs names no output")
    default = ONE_TIMEOUT_SECONDS if file is None else math.inf
    return Ask(model, version, wanted, default if timeout is None else timeout, sequence)


def _run(target: str, ask: Ask, given: Mapping[str, str], file: FileOptions | None, as_json: bool) -> None:
    from penstock.cli.cells import Bad
    from penstock_client import Client, PenstockError

    # The timeout for a file is that of each row.
    first = ask.timeout if file is None else ONE_TIMEOUT_SECONDS
    try:
        with Client(target, timeout=first) as client:
            info = _model(client, ask)
            _check_sequence(info, ask.sequence, file)
            if file is None:
                _one(client, info, ask, given, as_json)
            else:
                _file(client, info, ask, file)
    except PenstockError as error:
        raise click.ClickException(_said(target, error)) from None
    except Bad as error:
        raise click.ClickException(str(error)) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{name}{error.strerror or error}") from None


def _model(client: Client, ask: Ask) -> ModelInfo:
    """What the server says of the model.

    Raises:
        Bad: it has no such outputs.
    """
    from penstock.cli.cells import Bad

    info = client.model(ask.model, ask.version)
    known = [spec.name for spec in info.outputs]
    unknown = [f'"{name}"' for name in ask.outputs or () if name not in known]
    if unknown:
        raise Bad(f"no output {', '.join(unknown)}; the model gives: {', '.join(known)}")
    return info


def _check_sequence(info: ModelInfo, sequence: Sequence | None, file: FileOptions | None) -> None:
    """Makes sure that what is said of a sequence goes with the model.

    Raises:
        Bad: the model keeps no state, or it does and one step alone is of no sequence.
    """
    from penstock.cli.cells import Bad

    if sequence is not None and info.kept_state is None:
        raise Bad(f"{info.name} version {info.version} keeps no state, so that it has no sequences")
    if sequence is None and info.kept_state is not None and file is None:
        raise Bad(
            f"{info.name} version {info.version} keeps a state: --sequence ID says of which sequence this is "
            "a step, --start with the first; or send all steps with --file"
        )


def _one(client: Client, info: ModelInfo, ask: Ask, given: Mapping[str, str], as_json: bool) -> None:
    from penstock.cli.cells import Field
    from penstock.cli.tables import print_json, print_table

    fields = {spec.name: Field(spec) for spec in info.inputs}
    # Names that are unknown go along: the client refuses them, and those that are missing, with the list.
    inputs = {name: fields[name].argument(text) if name in fields else text for name, text in given.items()}
    prediction = client.predict(
        ask.model,
        inputs,
        version=ask.version,
        outputs=ask.outputs,
        timeout=ask.timeout,
        sequence=ask.sequence,
    )
    if as_json:
        print_json(prediction)
    else:
        print_table(info, inputs, prediction)
    sys.stdout.flush()


def _file(client: Client, info: ModelInfo, ask: Ask, options: FileOptions) -> None:
    from penstock.cli.files import predict_file

    line = predict_file(client, info, ask, options)
    if line.failed:
        raise click.ClickException(
            f'{line.failed:,} of {line.rows:,} rows have no answer; "error" beside them says why'
        )


def _said(target: str, error: PenstockError) -> str:
    """An error on one line, with the server where it is about that."""
    from penstock_client import InvalidInput, ModelFailed, NotFound

    said = [str(error) or error.status.name, *getattr(error, "__notes__", ())]
    text = "; ".join(" ".join(each.split()) for each in said)
    return text if isinstance(error, InvalidInput | ModelFailed | NotFound) else f"{target}: {text}"


@contextmanager
def _ending_quietly() -> Iterator[None]:
    """Ends as others do when the user, or the program that reads the output, has had enough."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # What is left in the buffer of standard output has no reader: Python would complain at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
