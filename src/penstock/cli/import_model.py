"""`penstock import`: makes a verified version of a model of another library."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Literal
from urllib.parse import quote

import click

from penstock.cli.arguments import ModelFolder, NamedPath
from penstock.cli.loading import Progress, progress
from penstock.cli.output import say
from penstock.core.names import many

TOLERANCE = 1e-4
LEAVE_OUT = click.Choice(["missing", "unseen", "extremes", "texts"])
MOST_SHOWN = 10
NEEDED = ("pandas", "skl2onnx")


@click.command("import")
@click.argument("source", type=NamedPath())
@click.option(
    "--sample",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Real rows: .csv, .tsv, .jsonl or .parquet.",
)
@click.option(
    "--to",
    "folder",
    required=True,
    type=ModelFolder(),
    help="The model's folder, such as models/lead_scoring; it gets a new version.",
)
@click.option("--target", default="", help="The column of the sample that the model predicts.")
@click.option("--drop", multiple=True, help="A column of the sample that is no input; may be repeated.")
@click.option(
    "--text",
    multiple=True,
    help="A column that holds texts, also where they look like numbers; may be repeated.",
)
@click.option(
    "--as",
    "form",
    type=click.Choice(["columns", "vector"]),
    default="columns",
    show_default=True,
    help="One input a column, or one vector x (numbers only, and faster).",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=TOLERANCE,
    show_default=True,
    help="Accepted difference of numbers: absolute below 1, relative above.",
)
@click.option(
    "--leave-out",
    multiple=True,
    type=LEAVE_OUT,
    help="A kind of hard rows that is not compared; may be repeated.",
)
@click.option(
    "--na",
    type=click.Choice(["missing", "text"]),
    help="What texts are that pandas reads as missing ones, such as N/A.  [asked for where a CSV has them]",
)
@click.option("--yes", is_flag=True, help="Load the file without asking: you trust it.")
def import_model(  # noqa: PLR0913 - the flags
    source: Path,
    sample: Path,
    folder: Path,
    target: str,
    drop: tuple[str, ...],
    text: tuple[str, ...],
    form: Literal["columns", "vector"],
    tolerance: float,
    leave_out: tuple[str, ...],
    na: str | None,
    yes: bool,
) -> None:
    """Import the model in SOURCE: convert it to ONNX and verify that against the original, row by row.

    \b
      penstock import pipeline.joblib --sample leads.csv --target converted --to models/lead_scoring

    SOURCE is a joblib, pickle or skops file of scikit-learn, LightGBM, XGBoost, CatBoost or InterpretML, a
    model file of LightGBM, XGBoost or CatBoost, a model of PyTorch or Keras, an .onnx file, or a folder of
    MLflow or Hugging Face. It is loaded in a process of its own.

    Every row of the sample is compared, and rows that are made to be hard: missing values, unseen categories,
    extremes, accents. What differs beyond the tolerance is refused. The new version has model.onnx,
    golden.jsonl (verified at every load), profile.json and version.toml.
    """  # noqa: D301 - click needs the real character
    _check_installed()
    job = {
        "source": str(source),
        "sample": str(sample),
        "kind": _kind(source, yes),
        "target": target,
        "drop": drop,
        "text": text,
        "vector": form == "vector",
        "tolerance": tolerance,
        "leave_out": leave_out,
        "na": na or "",
    }
    _import(job, folder)


def _kind(source: Path, is_trusted: bool) -> str:
    """What a file is, if it may be loaded.

    Raises:
        click.ClickException: it is not known as a model, or the user does not say that it is trusted.
        click.Abort: it is not trusted.
    """
    from penstock.importing.errors import Refused
    from penstock.importing.kinds import kind_of

    try:
        kind = kind_of(source)
    except Refused as error:
        raise click.ClickException(str(error)) from None
    if kind.danger and not is_trusted:
        _ask(source, kind.title, kind.danger)
    return kind.name


def _import(job: dict[str, Any], folder: Path) -> None:
    """Does a job in a folder beside the versions, which becomes the next one.

    Raises:
        click.BadParameter: the folder cannot be written.
        click.ClickException: the model is not imported.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".import-", dir=folder))
    except OSError as error:
        why = f"{folder}: it cannot be written: {error.strerror or error}"
        raise click.BadParameter(why, click.get_current_context(), param_hint="'--to'") from None
    try:
        report = _run({**job, "folder": str(staging)})
        say("".join(f"{line}\n" for line in _found(report)))
        if "refused" in report:
            raise click.ClickException(f"{job['source']} is not imported: {report['refused']}")
        version = _next(folder)
        staging.chmod(0o755)
        staging.rename(version)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        with suppress(OSError):  # it holds versions
            folder.rmdir()
    say("".join(f"{line}\n" for line in _next_steps(version, report)))


def _check_installed() -> None:
    from importlib.util import find_spec

    missing = [each for each in NEEDED if find_spec(each) is None]
    if missing:
        raise click.ClickException(
            f"{', '.join(missing)} is not installed: pip install '.[import]' in Penstock's checkout"
        )


def _ask(source: Path, title: str, danger: str) -> None:
    """Asks whether a file may be loaded.

    Raises:
        click.ClickException: standard input is no terminal, so that no one can answer.
        click.Abort: it may not.
    """
    said = f"{source} is {title}: loading it {danger}."
    if not sys.stdin.isatty():
        raise click.ClickException(f"{said} If you trust the file, add --yes")
    click.confirm(f"{said} Do you trust the file?", abort=True)


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """Has a child process do the work.

    Raises:
        click.ClickException: it ended without a report.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "report.json"
        code, stderr = _child({**job, "report": str(path)})
        if path.is_file():
            report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return report
    tail = "\n".join(stderr.strip().splitlines()[-12:])
    raise click.ClickException(f"the process that loads {job['source']} ended with status {code}:\n{tail}")


def _child(job: dict[str, Any]) -> tuple[int, str]:
    """Runs the child process, and shows on a terminal what it does.

    Returns:
        Its status, and what it wrote to its standard error.
    """
    told, tells = os.pipe()
    with progress() as shown:
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", "penstock.importing"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                pass_fds=[tells],
                # A sample is small: threads would wait for each other longer than they compute.
                env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONWARNINGS": "ignore"},
            )
        finally:
            os.close(tells)
        Thread(target=_show, args=(told, shown), daemon=True).start()
        try:
            _, stderr = child.communicate(json.dumps({**job, "progress": tells}))
        except BaseException:  # Ctrl-C
            child.kill()
            child.wait()
            raise
    return child.returncode, stderr


def _show(told: int, shown: Progress) -> None:
    """Shows each line that the child process tells, until it ends."""
    with os.fdopen(told, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            shown.update(line.strip())


def _found(report: dict[str, Any]) -> Iterator[str]:
    if "title" not in report:
        return
    yield report["title"]
    yield f"  inputs     {', '.join(report['inputs'])}"
    yield f"  outputs    {', '.join(report['outputs'])}"
    if classes := report["classes"]:
        more = f" and {len(classes) - MOST_SHOWN} more" if len(classes) > MOST_SHOWN else ""
        yield f"  classes    {', '.join(map(str, classes[:MOST_SHOWN]))}{more} (the order of probabilities)"
    if taken := report["by_position"]:
        shown = [f"{i} is {name}" for i, name in enumerate(taken[:MOST_SHOWN], 1)]
        more = f", and so on to {len(taken)}" if len(taken) > MOST_SHOWN else ""
        yield f"  by place   the model knows no column names: column {', '.join(shown)}{more}"
    if report["ignored"]:
        yield f"  no inputs  {', '.join(report['ignored'])} (columns that the model does not take)"
    yield f"  sample     {report['sample']}"
    if report["hard"]:
        yield f"  hard rows  {report['hard']}"
    if report["ties"]:
        ties = many(report["ties"], "row")
        yield f"  ties       {ties} with two classes as probable: either label is right"
    if report["largest"] > TOLERANCE and "refused" not in report:
        yield (
            f"  warning    outputs differ by up to {report['largest']:.2g}, more than {TOLERANCE:g}: "
            "--tolerance accepts that, and the golden rows do"
        )
    for what, why in report["not_compared"].items():
        yield f"  left out   {what}: the original refuses it ({why})"


def _next(folder: Path) -> Path:
    versions = [int(each.name) for each in folder.iterdir() if each.name.isdecimal()]
    return folder / str(max(versions, default=0) + 1)


def _next_steps(version: Path, report: dict[str, Any]) -> Iterator[str]:
    """The lines to serve and to call, with the first row of the sample."""
    folder = version.parent
    if folder.name in ("", ".."):  # such as "."
        folder = Path(os.path.abspath(folder))
    model, root = folder.name, folder.parent
    example = report["example"]
    golden = f"golden.jsonl ({many(report['golden'], 'row', ',')})"
    yield f"  written    {version}: model.onnx, {golden}, profile.json, version.toml"
    yield ""
    yield "Serve it:"
    yield f"  penstock serve {shlex.quote(str(root))}"
    yield "Call it:"
    values = shlex.quote(json.dumps(example, ensure_ascii=False))
    yield f"  curl -s http://127.0.0.1:8000/predict/{quote(model, safe='')} -d {values}"
    tensors = {name: _typed(value) for name, value in example.items()}
    request = json.dumps({"model": model, "inputs": tensors}, ensure_ascii=False)
    method = "penstock.v1.PredictionService/Predict"
    yield f"  grpcurl -plaintext -d {shlex.quote(request)} 127.0.0.1:8001 {method}"
    yield f"  python -c {shlex.quote(_python(model, example))}"
    expected = json.dumps(report["expected"], ensure_ascii=False)
    yield f"This is row {report['example_row']} of the sample, which gives {expected}"


def _typed(value: object) -> dict[str, object]:
    """A value as the API has it; lists of lists, and tokens, with their shape."""
    first, shape = value, [1]
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0]
    if len(shape) > 2 or (len(shape) > 1 and isinstance(first, int)):
        flat = value
        for _ in shape[2:]:
            flat = [each for part in flat for each in part]  # type: ignore[attr-defined]
        kind = "int_values" if isinstance(first, int) else "float_values"
        return {"shape": shape, kind: flat}
    if isinstance(value, str) and value not in ("NaN", "Infinity", "-Infinity"):
        return {"string_values": [value]}
    if isinstance(value, bool):
        return {"bool_values": [value]}
    return {"float_values": value if isinstance(value, list) else [value]}


def _python(model: str, example: dict[str, object]) -> str:
    call = f'Client("127.0.0.1:8001").predict({json.dumps(model)}, {_literal(example)})'
    return f"from penstock_client import Client; print(dict({call}))"


def _literal(value: dict[str, object]) -> str:
    """The values as Python has them, with double quotes, which need no escape in a shell's single ones."""
    pairs = (f"{_text(name)}: {_text(each)}" for name, each in value.items())
    return f"{{{', '.join(pairs)}}}"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace('"NaN"', 'float("nan")')
