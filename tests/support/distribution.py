"""How tests come to the workers of pytest-xdist: a file at a time, the longest files first.

What a file's tests share is then made once, and not by each of the workers.
"""

from __future__ import annotations

import compileall
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.assertion import rewrite
from xdist.scheduler import LoadFileScheduling

from . import beside

ROOT = Path(__file__).parents[2]
LONGEST = (
    "conformance/test_conformance.py",
    "page/test_browser.py",
    "importing/test_importing.py",
    "server/test_shutdown.py",
    "server/test_oip.py",
    "cli/test_output.py",
    "processes/test_life.py",
    "client/test_gone.py",
    "cli/test_import.py",
    "benchmarks/test_harness.py",
    "bench/test_process.py",
    "server/test_cancelling.py",
    "optimizing/test_optimize.py",
    "server/test_streams.py",
    "importing/test_texts_of_digits.py",
    "server/test_startup.py",
    "importing/test_page.py",
    "client/test_real_server.py",
    "bench/test_load.py",
    "zoo/test_zoo_sample.py",
)
"""These files come first, or else one would be alone at the end; all others by the number of their tests."""
_ALONE = "alone"
"""The file with the tests that run alone, and the name of their group."""


class ByFile(LoadFileScheduling):
    """Gives a worker all tests of a file. The tests that run alone are one group, and the first."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False  # they are in order
        super().__init__(config, log)
        self._alone: frozenset[str] = frozenset()

    def schedule(self) -> None:
        if self.collection is None:
            self._alone = frozenset((beside.folder(self.config) / _ALONE).read_text().splitlines())
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return _ALONE if nodeid in self._alone else super()._split_scope(nodeid)


def note_alone(config: pytest.Config, nodeids: Sequence[str]) -> None:
    """Tells the scheduler, which sees no markers, which tests run alone."""
    (beside.folder(config) / _ALONE).write_text("\n".join(nodeids))


def put_in_order(items: list[pytest.Item]) -> None:
    """Puts the files that take longest first."""
    counts = Counter(item.path for item in items)
    folder = ROOT / "tests"
    places = {folder / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path, len(places)), -counts[item.path], item.path))


def compile_all(config: pytest.Config) -> None:
    """Compiles what the workers will import, if it was not: each of them would, at the same time."""
    if sys.dont_write_bytecode or not hasattr(os, "fork"):
        return
    names = [Path(arg.partition("::")[0]) for arg in config.args]
    tests = [path for name in names for path in _modules(name)]
    paths = [path for path in tests if not _is_compiled(path)]
    sources = [ROOT / "src", ROOT / "clients/python/src", ROOT / "tools/bench/src"]
    if paths:
        with multiprocessing.get_context("fork").Pool(initializer=_keep, initargs=(config,)) as pool:
            pool.map(_compile, [*paths, *(path for source in sources for path in _modules(source))], 1)


def _modules(path: Path) -> Iterator[Path]:
    return path.rglob("*.py") if path.is_dir() else iter([path] if path.is_file() else [])


def _is_rewritten(path: Path) -> bool:
    return path.name.startswith("test_") or path.name == "conftest.py"


def _is_compiled(path: Path) -> bool:
    end = rewrite.PYC_TAIL if _is_rewritten(path) else f".{sys.implementation.cache_tag}.pyc"
    return (path.parent / "__pycache__" / (path.stem + end)).exists()


_config: pytest.Config


def _keep(config: pytest.Config) -> None:
    global _config  # noqa: PLW0603 - of a process of the pool
    _config = config


def _compile(path: Path) -> None:
    if not _is_rewritten(path):
        compileall.compile_file(path, quiet=2)
    elif not _is_compiled(path):
        source, code = rewrite._rewrite_test(path, _config)
        compiled = path.parent / "__pycache__" / (path.stem + rewrite.PYC_TAIL)
        compiled.parent.mkdir(exist_ok=True)
        rewrite._write_pyc(_config.stash[rewrite.assertstate_key], code, source, compiled)
