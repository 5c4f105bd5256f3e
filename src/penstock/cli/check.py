"""`penstock check`: compares a model's outputs with expected ones."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from penstock.cli.output import say
from penstock.cli.target import said, with_target
from penstock.core.names import many

if TYPE_CHECKING:
    from penstock.core.tensors import Array, TensorSpec
    from penstock.row_files.differences import Differences, Tolerance
    from penstock.row_files.golden import GoldenRow
    from penstock_client import Client

MODEL_FILE = "model.onnx"
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("model")
@click.option("--rows", type=EXISTING, help="The inputs: a .csv or .jsonl file.")
@click.option("--expect", type=EXISTING, help="The expected outputs of these rows: a .csv or .jsonl file.")
@click.option(
    "--golden",
    type=EXISTING,
    help="Rows and outputs in one .jsonl file.  [golden.jsonl beside the model, if MODEL is a path]",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Accepted difference of numbers: absolute below 1, relative above.  [the file's, or else 0.0001]",
)
@click.option("--version", default="", help="A version number or a label.  [the model's default]")
@with_target
@click.option("--timeout", default=30.0, show_default=True, help="Seconds to wait for each answer.")
def check(  # noqa: PLR0913 - the flags
    model: str,
    rows: Path | None,
    expect: Path | None,
    golden: Path | None,
    tolerance: float | None,
    version: str,
    target: str,
    timeout: float,
) -> None:
    """Compare the outputs of MODEL with expected ones. The exit status is 1 if they differ.

    \b
      penstock check lead_scoring --rows leads.csv --expect expected.csv
      penstock check models/lead_scoring/2
      penstock check ./model.onnx --golden golden.jsonl

    MODEL is the name of a model on a server, or a path (with a slash, or ending in .onnx): an .onnx file, the
    folder of a version, or that of a model, whose newest version is taken. A path needs no server.

    The columns of --expect are named after outputs, as `penstock predict --file` writes them; it may have
    some of them only, and columns of --rows besides. Texts and whole numbers have to be equal, other numbers
    within the tolerance.
    """  # noqa: D301 - click needs the real character
    from penstock.core.errors import PenstockError as ServerError
    from penstock.row_files.fields import Invalid
    from penstock_client import PenstockError

    file = _path(model)
    files = _files(rows, expect, golden, file)
    try:
        if file is not None:
            differences = _check_file(file, files, tolerance)
        else:
            differences = _check_server(target, model, version, timeout, files, tolerance)
    except PenstockError as error:
        raise click.ClickException(said(target, error)) from None
    except (Invalid, ServerError) as error:
        raise click.ClickException(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(str(error)) from None
    say(f"{differences}\n")
    if not differences.are_accepted:
        say("".join(f"{line}\n" for line in _worst(differences)))
        raise SystemExit(1)


def _worst(differences: Differences) -> Iterator[str]:
    """The worst row, and the numbers of those that differ."""
    from penstock.scoring.outputs import plain

    for name, (expected, got) in differences.shown.items():
        yield f"  row {differences.worst_row}  {name}: expected {plain(expected)}, got {plain(got)}"
    count = max(differences.labels, differences.beyond)
    more = ", …" if count > len(differences.wrong) else ""
    yield f"  rows that differ: {', '.join(map(str, differences.wrong))}{more}"


class _Files:
    """The files of rows that the flags name: `golden`, or `rows` and `expect`."""

    def __init__(self, rows: Path | None, expect: Path | None, golden: Path | None) -> None:
        self.rows, self.expect, self.golden = rows, expect, golden

    def read(
        self,
        stack: ExitStack,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        optional: frozenset[str],
        tolerance: float | None,
    ) -> tuple[Iterator[GoldenRow], Tolerance]:
        """The rows, and the tolerance.

        Raises:
            Invalid: a file cannot be used.
        """
        from penstock.row_files.differences import Tolerance
        from penstock.row_files.golden import Golden

        if self.golden is not None:
            golden = Golden(_opened(stack, self.golden), inputs, outputs, optional)
            return iter(golden), golden.tolerance if tolerance is None else Tolerance(tolerance)
        rows = self._pairs(stack, inputs, outputs, optional)
        return rows, Tolerance() if tolerance is None else Tolerance(tolerance)

    def _pairs(
        self,
        stack: ExitStack,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        optional: frozenset[str],
    ) -> Iterator[GoldenRow]:
        from penstock.row_files.fields import Invalid
        from penstock.row_files.golden import GoldenRow, expected_rows, input_rows
        from penstock.scoring.writers import ERROR

        assert self.rows is not None
        assert self.expect is not None
        columns, rows = input_rows(_opened(stack, self.rows), self.rows, inputs, optional)
        given, others = _named(self.rows, rows), {*columns, *inputs, ERROR}
        wanted = _named(self.expect, expected_rows(_opened(stack, self.expect), self.expect, outputs, others))
        for number, (row, expected) in enumerate(itertools.zip_longest(given, wanted)):
            if row is None or expected is None:
                short = self.rows if row is None else self.expect
                raise Invalid(f"{short} has {many(number, 'row')}, the other file has more")
            yield GoldenRow(row, expected)


def _named(path: Path, rows: Iterator[Mapping[str, Array]]) -> Iterator[Mapping[str, Array]]:
    """Adds the name of a file to errors about its rows."""
    from penstock.row_files.fields import Invalid

    try:
        yield from rows
    except Invalid as error:
        raise Invalid(f"{path}: {error}") from None


def _opened(stack: ExitStack, path: Path) -> TextIO:
    from penstock.row_files.fields import Invalid

    if path.suffix == ".gz":
        raise Invalid(f"{path} is compressed: unpack it first")
    return stack.enter_context(path.open(encoding="utf-8-sig", newline=""))


def _path(model: str) -> Path | None:
    """The model file that MODEL names; None if it is the name of a model on a server.

    Raises:
        click.UsageError: it is a path without a model.
    """
    if "/" not in model and not model.endswith(".onnx"):
        return None
    path = Path(model)
    if path.is_file():
        return path
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    versions = [each for each in path.glob(f"*/{MODEL_FILE}") if each.parent.name.isdecimal()]
    if versions:
        return max(versions, key=lambda each: int(each.parent.name))
    raise click.UsageError(
        f"{model}: there is no model: neither an .onnx file nor a folder with {MODEL_FILE}"
    )


def _files(rows: Path | None, expect: Path | None, golden: Path | None, file: Path | None) -> _Files:
    """The files of rows.

    Raises:
        click.UsageError: the flags cannot be combined, or name no rows.
    """
    from penstock.row_files.golden import FILE

    if golden is not None and (rows or expect):
        raise click.UsageError("give either --golden, or --rows and --expect")
    if (rows is None) != (expect is None):
        raise click.UsageError("--rows and --expect belong together")
    if rows is None and golden is None:
        beside = file.parent / FILE if file is not None else None
        if beside is None or not beside.is_file():
            why = f"there is no {beside}" if beside else "a server keeps its golden rows to itself"
            raise click.UsageError(
                f"{why}: give --golden with a .jsonl file of rows and outputs, as the version's {FILE}, or "
                "--rows and --expect"
            )
        golden = beside
    return _Files(rows, expect, golden)


def _check_file(path: Path, files: _Files, tolerance: float | None) -> Differences:
    from penstock.backends.onnx import OnnxBackend
    from penstock.config import RuntimeConfig
    from penstock.models.golden_rows import Runnable, compare

    backend = OnnxBackend(path, RuntimeConfig(), 1)
    try:
        signature = backend.signature
        specs = {**signature.inputs, **signature.defaults}
        with ExitStack() as stack:
            optional = frozenset(signature.defaults)
            rows, accepted = files.read(stack, specs, signature.outputs, optional, tolerance)
            return compare(Runnable(backend.run, signature), rows, accepted)[0]
    finally:
        backend.close()


def _check_server(  # noqa: PLR0913 - what is asked
    target: str, model: str, version: str, timeout: float, files: _Files, tolerance: float | None
) -> Differences:
    from penstock.core.tensors import DataType, TensorSpec
    from penstock_client import Client

    with Client(target, timeout=timeout) as client, ExitStack() as stack:
        info = client.model(model, version)
        inputs, outputs = (
            {
                each.name: TensorSpec(
                    each.name, DataType[str(each.datatype)], each.shape, each.row_axis, each.missing_text
                )
                for each in tensors
            }
            for tensors in (info.inputs, info.outputs)
        )
        optional = frozenset(each.name for each in info.inputs if each.optional)
        rows, accepted = files.read(stack, inputs, outputs, optional, tolerance)
        return _streamed(client, info.name, info.version, outputs, rows, accepted)


def _streamed(  # noqa: PLR0913 - what is compared
    client: Client,
    model: str,
    version: str,
    outputs: Mapping[str, TensorSpec],
    rows: Iterator[GoldenRow],
    tolerance: Tolerance,
) -> Differences:
    """Sends the rows to a server and compares its answers.

    Raises:
        Invalid: the server rejects a row, or a row cannot be read.
        PenstockError: the call failed.
    """
    from penstock.row_files.differences import Differences
    from penstock.row_files.fields import Invalid
    from penstock_client import PenstockError

    waiting: deque[Mapping[str, Array]] = deque()

    def sent() -> Iterator[Mapping[str, object]]:
        for row in rows:
            waiting.append(row.outputs)
            yield row.inputs

    differences = Differences(tolerance)
    datatypes = {name: spec.datatype for name, spec in outputs.items()}
    for answer in client.predict_stream(model, sent(), version=version, errors="return"):
        expected = waiting.popleft()
        if isinstance(answer, PenstockError):
            raise Invalid(f"row {differences.rows + 1}: {answer}")
        differences.add(1, datatypes, expected, {name: _texts(answer[name]) for name in expected})
    return differences


def _texts(array: Array) -> Array:
    """Texts as `str`, which the client returns as bytes where they are not UTF-8."""
    if array.dtype != object:
        return array
    import numpy as np

    flat = [
        each.decode("utf-8", "backslashreplace") if isinstance(each, bytes) else each for each in array.flat
    ]
    made = np.empty(len(flat), object)
    made[:] = flat
    return made.reshape(array.shape)
