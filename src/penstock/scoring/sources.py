"""What is scored: paths, patterns and addresses, in the order in which they are given."""

from __future__ import annotations

import errno
import glob
import gzip
import io
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, TypeAlias, cast

from penstock.row_files.fields import Invalid

STANDARD = "-"
"""Standard input or output instead of a file."""

FileFormat: TypeAlias = Literal["csv", "tsv", "jsonl", "parquet", "arrow"]
SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".ipc": "arrow", ".feather": "arrow",
}  # fmt: skip
BINARY = {"parquet", "arrow"}
COMPRESSED = {".gz", ".bz2", ".xz", ".zst", ".zip"}
BLOCK_BYTES = 1 << 16
"""Read at once of a file at an address; its file system reads more of it ahead."""
_PATTERN = set("*?[")


@dataclass(frozen=True, slots=True)
class Source:
    """One file.

    Attributes:
        name: as the user knows it.
        format: None if its first character decides, which is for CSV and JSON Lines only.
        size: in bytes; None if it is unknown.
        stamp: differs once the file has changed, as far as that can be known.
    """

    name: str
    format: FileFormat | None
    size: int | None
    stamp: str

    def open(self) -> IO[bytes]:
        """The bytes of the file; a text file that ends in .gz is unpacked.

        Raises:
            OSError: it cannot be opened.
        """
        if self.name == STANDARD:
            return cast("IO[bytes]", open(0, "rb", closefd=False))
        opened = _opened if "://" in self.name else partial(open, mode="rb")
        packed = cast("IO[bytes]", opened(self.name))
        return cast("IO[bytes]", _Unpacked(packed, self.name)) if self.name.endswith(".gz") else packed


class _Unpacked(gzip.GzipFile):
    """The content of a file that is packed; closing it closes the file as well."""

    def __init__(self, packed: IO[bytes], name: str) -> None:
        super().__init__(fileobj=packed)
        self._packed = packed
        self._of = name

    def read(self, size: int | None = -1) -> bytes:
        with self._said():
            return super().read(size)

    def read1(self, size: int = -1) -> bytes:
        with self._said():
            return super().read1(size)

    def readline(self, size: int | None = -1) -> bytes:
        with self._said():
            return super().readline(size)

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except EOFError:
            raise Invalid(f"{self._of}: the compressed data ends early: the file is not complete") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise Invalid(f"{self._of}: the compressed data is broken: {error}") from None

    def close(self) -> None:
        super().close()
        self._packed.close()


def format_of(name: str) -> FileFormat | None:
    """The format that the suffix of a file's name tells; None if it tells none."""
    return SUFFIXES.get(PurePosixPath(name.removesuffix(".gz")).suffix.lower())


def written_format(name: str, forms: Collection[FileFormat]) -> FileFormat | None:
    """The format that the ending of a file to write tells; None for a name without one.

    Args:
        name: of the file.
        forms: the formats that can be written.

    Raises:
        Invalid: it has the ending of another format, or of none that is known.
    """
    path = PurePosixPath(name)
    if not path.suffix:
        return None
    form = SUFFIXES.get(path.suffix.lower())
    if form in forms:
        return form
    endings = ", ".join(ending for ending, each in SUFFIXES.items() if each in forms)
    raise Invalid(
        f"{name}: {path.suffix} cannot be written, only {endings}; with --format, the name may have any "
        "ending"
    )


def not_compressed(name: str, why: str = "") -> None:
    """Checks that the name of a file to write does not promise compression.

    Args:
        name: of the file.
        why: why nothing is compressed, for the message.

    Raises:
        Invalid: it does.
    """
    path = PurePosixPath(name)
    if path.suffix.lower() in COMPRESSED:
        raise Invalid(f"{name}: the output is not compressed{why}: name it {path.stem}")


def sources(names: Iterable[str], form: FileFormat | None) -> list[Source]:
    """The files that paths, patterns and addresses stand for; those of a pattern by their names.

    Args:
        names: what the user gave.
        form: the format of all of them; None to tell it from each name.

    Raises:
        Invalid: a pattern matches nothing, something is a folder, or an address needs a missing package.
        OSError: a file cannot be read.
    """
    found: list[Source] = []
    for name in names:
        if name == STANDARD:
            found.append(Source(name, form, None, ""))
        elif "://" in name:
            found += _at_address(name, form)
        else:
            found += [_local(path, form) for path in _paths(name)]
    return found


def _paths(name: str) -> list[str]:
    if os.path.exists(name) or not _PATTERN & set(name):
        return [name]
    paths = sorted(path for path in glob.glob(name, recursive=True) if not os.path.isdir(path))
    if not paths:
        raise Invalid(f"{name}: no file matches")
    return paths


def _local(path: str, form: FileFormat | None) -> Source:
    if os.path.isdir(path):
        raise Invalid(f"{path}: Is a directory; for all files in it: '{Path(path) / '*'}'")
    found = os.stat(path)
    size = found.st_size if os.path.isfile(path) else None
    return Source(path, form or format_of(path), size, f"{size} {found.st_mtime_ns}")


def _at_address(address: str, form: FileFormat | None) -> list[Source]:
    scheme = address.partition("://")[0]
    files, _ = _file_system(address)
    found = []
    names = sorted(_asked(address, files.glob, address)) if _PATTERN & set(address) else [address]
    if not names:
        raise Invalid(f"{address}: no file matches")
    for name in names:
        full = name if "://" in name else f"{scheme}://{name}"
        info = _asked(full, files.info, full)
        if info.get("type") == "directory":
            raise Invalid(f"{full}: is a folder; for all files in it: {full.rstrip('/')}/*")
        keys = ("ETag", "etag", "md5Hash", "mtime", "created")
        stamp = next((str(info[key]) for key in keys if key in info), "")
        size = info.get("size")
        found.append(Source(full, form or format_of(full), size, f"{size} {stamp}"))
    return found


def _asked(address: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a file system answers.

    Raises:
        OSError: it fails, in whatever way its library says so; names the address.
    """
    try:
        return function(*arguments)
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        is_missing = isinstance(error, FileNotFoundError)
        # Some say no more than the name of the file.
        text = "there is no such file" if is_missing and address.endswith(why) else why
        raise OSError(errno.ENOENT if is_missing else errno.EIO, text, address) from None


class _Addressed(io.RawIOBase):
    """A file at an address: whatever fails while it is read becomes an OSError that names the address."""

    def __init__(self, address: str, file: Any) -> None:
        self._address = address
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        data = _asked(self._address, self._file.read, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(_asked(self._address, self._file.seek, offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _opened(address: str) -> IO[bytes]:
    files, path = _file_system(address)
    return io.BufferedReader(_Addressed(address, _asked(address, files.open, path, "rb")), BLOCK_BYTES)


def _file_system(address: str) -> tuple[Any, str]:
    """Fsspec's file system for an address, and the path in it.

    Raises:
        Invalid: fsspec or what it needs for this kind of address is not installed, or it knows no such kind.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise Invalid(
            f"{address}: addresses need fsspec: pip install '.[score]' in Penstock's checkout"
        ) from None
    try:
        return cast("tuple[Any, str]", url_to_fs(address))
    except (ImportError, ValueError) as error:
        raise Invalid(f"{address}: {error}") from None


def is_regular(source: Source) -> bool:
    """Whether all bytes of a source are there now, so that reading does not wait for another program."""
    return source.size is not None or "://" in source.name
