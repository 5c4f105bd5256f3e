"""Errors that a request can end with: each is raised somewhere, or is known to wait for its feature."""

from __future__ import annotations

import ast
from pathlib import Path

from penstock.core import errors

SOURCE = Path(__file__).parents[2] / "src/penstock"
TABLES = ("core/errors.py", "protocols/status.py", "observability/counters.py")
"""Files that name errors and raise none."""
PLANNED = {
    "Unauthenticated": "callers' credentials",
    "PermissionDenied": "callers' permissions",
    "MessageTooLarge": "a body over HTTP, status 413; of gRPC its core takes care",
}


class _Raised(ast.NodeVisitor):
    """Names that are used as values: raised, or made to be raised, but not caught or tested for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        self.names.add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.names.add(node.attr)
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        for each in node.body:
            self.visit(each)

    def visit_Call(self, node: ast.Call) -> None:
        if not (isinstance(node.func, ast.Name) and node.func.id == "isinstance"):
            self.generic_visit(node)


def test_every_error_is_raised_or_planned() -> None:
    raised = _Raised()
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).as_posix() not in TABLES:
            raised.visit(ast.parse(path.read_text("utf-8")))
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    leaves = {name for name in kinds if not getattr(errors, name).__subclasses__()}
    assert leaves - raised.names == set(PLANNED)
