"""`penstock score` and addresses: files that fsspec reads, and file systems that fail in their own ways."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from support.servers import RunningServer

if TYPE_CHECKING:
    from conftest import Cli

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COUNT = 20_000


class NetworkError(Exception):
    """As libraries have them: not an OSError."""


class Broken:
    """A file that fails once so much of it has been read."""

    def __init__(self, file: Any, most: int) -> None:
        self._file, self._most = file, most

    def read(self, size: int = -1) -> bytes:
        if self._file.tell() >= self._most:
            raise NetworkError("the connection\nwas reset")
        data: bytes = self._file.read(size)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Flaky(LocalFileSystem):  # type: ignore[misc]  # its library has no types
    """Local files, which fail as `fails` says: when asked for, when opened, or after so many bytes."""

    protocol = "flaky"
    fails: str | int = ""

    def info(self, path: str, **options: Any) -> Any:
        if Flaky.fails == "asked":
            raise NetworkError("no credentials")
        return super().info(path.removeprefix("flaky://"), **options)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if Flaky.fails == "opened":
            raise NetworkError("")
        file = super().open(path.removeprefix("flaky://"), mode, **options)
        return Broken(file, Flaky.fails) if isinstance(Flaky.fails, int) else file


@pytest.fixture(autouse=True)
def file_systems() -> Iterator[None]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.fails = ""
    MemoryFileSystem.store.clear()
    yield
    MemoryFileSystem.store.clear()


@pytest.fixture
def score(cli: Cli, server: RunningServer) -> Cli:
    """`penstock score` against the server."""
    return lambda *args: cli("score", "below_100", *args, "--target", server.target)


def rows(start: int = 0, count: int = 500) -> bytes:
    return ("id,x\n" + "".join(f"{i},{i % 90}\n" for i in range(start, start + count))).encode()


def check(path: Path, count: int) -> None:
    found = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [row["id"] for row in found] == [str(i) for i in range(count)]
    assert all(row["y"] == row["x"] for row in found)


def test_a_pattern_of_texts_some_packed(score: Cli, tmp_path: Path) -> None:
    files = MemoryFileSystem()
    files.pipe("/data/part-1.csv", rows())
    files.pipe("/data/part-2.csv.gz", gzip.compress(rows(500)))
    out = tmp_path / "out.csv"
    ran = score("memory://data/*", "-o", out)
    assert (ran.code, ran.err) == (0, "")
    check(out, 1000)
    assert score("memory://data/*", "-o", out).err.startswith("already done: 1,000 rows")


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_formats_that_are_read_here_and_there(score: Cli, tmp_path: Path, kind: str) -> None:
    table = pa.table({"id": list(map(str, range(COUNT))), "x": [i % 90 for i in range(COUNT)]})
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=3000)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, 3000)
    MemoryFileSystem().pipe(f"/{path.name}", path.read_bytes())
    ran = score(f"memory://{path.name}", "-o", tmp_path / "out.csv", "--format", "csv")
    assert (ran.code, ran.err) == (0, "")
    check(tmp_path / "out.csv", COUNT)


@pytest.mark.parametrize(
    ("address", "fails", "said"),
    [
        ("memory://nothing.csv", "", "memory://nothing.csv: there is no such file"),
        ("memory://nothing/*.csv", "", "memory://nothing/*.csv: no file matches"),
        ("flaky://{folder}/rows.csv", "asked", "flaky://{folder}/rows.csv: no credentials"),
        ("flaky://{folder}/rows.csv", "opened", "flaky://{folder}/rows.csv: NetworkError"),
        ("nosuch://rows.csv", "", "nosuch://rows.csv: Protocol not known: nosuch"),
    ],
)
def test_what_cannot_be_read_is_said(score: Cli, tmp_path: Path, address: str, fails: str, said: str) -> None:
    (tmp_path / "rows.csv").write_bytes(rows())
    Flaky.fails = fails
    ran = score(address.format(folder=tmp_path), "-o", tmp_path / "out.csv")
    assert (ran.code, ran.err) == (1, f"Error: {said.format(folder=tmp_path)}\n")
    assert not (tmp_path / "out.csv").exists()


def test_a_network_that_breaks_ends_the_run_and_the_next_one_goes_on(score: Cli, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(rows(count=COUNT))
    out = tmp_path / "out.csv"
    command = [f"flaky://{tmp_path}/rows.csv", "-o", out, "--checkpoint-seconds", "0"]
    Flaky.fails = 100_000
    ran = score(*command)
    assert ran.code == 1
    first, second = ran.err.splitlines()
    assert first == f"Error: flaky://{tmp_path}/rows.csv: the connection was reset"
    assert second.endswith(" rows are done; the same command goes on from there")
    done = int(second.split()[0].replace(",", ""))
    assert 0 < done < COUNT
    Flaky.fails = ""
    ran = score(*command)
    assert (ran.code, ran.err) == (0, f"going on after {done:,} rows that are done\n")
    check(out, COUNT)
