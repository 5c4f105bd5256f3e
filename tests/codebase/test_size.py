"""Files and functions stay short enough to be read in one go."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("src", "clients/python/src/penstock_client", "tools/bench/src")
FILE_LINES = 400
FUNCTION_LINES = 40
REASON = re.compile(r"# long: \S+")
"""A comment in a longer function that says why it is."""


def sources() -> list[Path]:
    return [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py"))]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many lines a function has, its docstring not counted."""
    total = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is None:
        return total
    return total - ((first.end_lineno or 0) - first.lineno + 1)


def long_functions(text: str) -> Iterator[str]:
    """The functions of a module that are too long without a reason."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or body_lines(node) <= FUNCTION_LINES:
            continue
        if not any(REASON.search(line) for line in lines[node.lineno - 1 : node.end_lineno]):
            yield f"{node.name}, line {node.lineno}: {body_lines(node)} lines"


def test_there_are_sources() -> None:
    assert len(sources()) > 2


def test_files_are_short() -> None:
    lengths = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()
    }
    assert {path: lines for path, lines in lengths.items() if lines > FILE_LINES} == {}


def test_functions_are_short_or_say_why_not() -> None:
    found = {
        path.relative_to(ROOT): list(long_functions(path.read_text(encoding="utf-8"))) for path in sources()
    }
    assert {path: functions for path, functions in found.items() if functions} == {}


def test_a_long_function_is_found() -> None:
    fits = "def f():\n" + '    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * (FUNCTION_LINES - 1)
    assert list(long_functions(fits)) == []
    assert list(long_functions(fits + "    x = 2\n")) == ["f, line 1: 41 lines"]
    assert list(long_functions(fits + "    x = 2  # long: it is a table\n")) == []
