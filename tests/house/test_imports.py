"""Arrows between the server's modules point down only, and foreign libraries stay where they belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "src"
CLIENT = ROOT / "clients/python/src"

Graph: TypeAlias = dict[str, set[str]]

# A part is a file or a folder directly under src/penstock. What each may import besides itself:
TENSORS = {"errors"}
MESSAGES = {"errors", "tensors"}
FLOOR = {"bits", "config", "errors", "messages", "tensors"}
BACKENDS = FLOOR
SCHEDULING = BACKENDS | {"backends"}
MODELS = SCHEDULING | {"scheduling"}
ROUTING = MODELS | {"models"}
ENGINE = ROUTING | {"routing"}
RPC = ENGINE | {"engine", "transport"}
ANYTHING = RPC | {"rpc", "ops", "security", "summary", "telemetry"}
MAY_IMPORT = {
    "errors": set(),
    "tensors": TENSORS,
    "bits": {"tensors"},
    "messages": MESSAGES,
    "config": {"errors"},
    "backends": BACKENDS,
    "scheduling": SCHEDULING,
    "models": MODELS,
    "routing": ROUTING,
    "engine": ENGINE,
    "transport": FLOOR,
    "rpc": RPC,
    # Composed in by the server: nothing else imports them.
    "ops": FLOOR,
    "security": FLOOR,
    "telemetry": FLOOR,
    "summary": {"models", "tensors"},
    "server": ANYTHING,
    "signals": set(),
    # Knows servers from the outside only, by the client and the protocols.
    "bench": TENSORS | {"bits", "tensors"},
    "processes": ANYTHING | {"server", "signals"},
    "cli": ANYTHING | {"bench", "processes", "server", "signals"},
    "__main__": {"cli"},
}

# Foreign packages, and the only modules that import them.
ONLY_IN = {
    "grpc": ("penstock.transport", "penstock.rpc", "penstock.bench"),
    "grpc_health": ("penstock.transport", "penstock.rpc"),
    "grpc_reflection": ("penstock.transport", "penstock.rpc"),
    "grpc_status": ("penstock.transport", "penstock.rpc"),
    "grpc._cython": ("penstock.transport.reactor", "penstock.transport.reactor_calls"),
    "onnxruntime": ("penstock.backends.onnx",),
    "prometheus_client": ("penstock.telemetry.metrics", "penstock.telemetry.model_families"),
}


def modules(source: Path, package: str) -> dict[str, Path]:
    """The modules of `package` under `source`, by dotted name; a package is named without `__init__`."""
    found = {}
    for path in sorted((source / package).rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, module: str) -> Iterator[str]:
    """Every dotted name that a file imports: at its top, in functions and for the type checker only."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph(source: Path, package: str) -> Graph:
    """What each module of `package` imports: modules where they are its own, dotted names where not."""
    own = modules(source, package)

    def resolve(name: str) -> str:
        # `from package.module import thing` is an import of package.module.
        return name if name in own or not name.startswith(f"{package}.") else name.rpartition(".")[0]

    return {module: {resolve(name) for name in imported(path, module)} for module, path in own.items()}


def under(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def part(module: str) -> str:
    """The part of the server a module belongs to; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def upward(arrows: Graph) -> list[str]:
    """The imports that the table of parts does not allow."""
    wrong = []
    for module, targets in arrows.items():
        allowed = MAY_IMPORT.get(part(module), set()) | {part(module), ""}
        wrong += [
            f"{module} imports {target}"
            for target in sorted(targets)
            if under(target, "penstock") and part(target) not in allowed
        ]
    return wrong


def misplaced(arrows: Graph) -> list[str]:
    """The imports of foreign packages by modules that may not."""
    return [
        f"{module} imports {target}"
        for module, targets in arrows.items()
        for target in sorted(targets)
        for library, homes in ONLY_IN.items()
        if under(target, library) and not any(under(module, home) for home in homes)
    ]


def circle(arrows: Graph) -> list[str]:
    """The modules of one circle of imports; nothing where there is none."""
    try:
        TopologicalSorter({module: targets - {module} for module, targets in arrows.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def server() -> Graph:
    return graph(SERVER, "penstock")


@pytest.fixture(scope="module")
def client() -> Graph:
    return graph(CLIENT, "penstock_client")


def test_every_part_is_in_the_table(server: Graph) -> None:
    assert {part(module) for module in server} - {""} <= MAY_IMPORT.keys()


def test_arrows_point_down(server: Graph) -> None:
    assert upward(server) == []


def test_foreign_libraries_stay_where_they_belong(server: Graph) -> None:
    assert misplaced(server) == []


def test_there_are_no_circles(server: Graph, client: Graph) -> None:
    assert circle(server) == []
    assert circle(client) == []


def test_the_client_does_not_know_the_server(client: Graph) -> None:
    names = {(module, target) for module, targets in client.items() for target in targets}
    assert [pair for pair in names if under(pair[1], "penstock")] == []


def write(root: Path, files: dict[str, str]) -> Graph:
    """The graph of a package `penstock` made of `files`, path: text."""
    for name, text in files.items():
        path = root / "penstock" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return graph(root, "penstock")


@pytest.mark.parametrize(
    "text",
    [
        "import penstock.engine",
        "from penstock import engine",
        "from penstock.engine import Engine",
        "from ..engine import Engine",
        "def f():\n    from penstock.engine import Engine",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from penstock.engine import Engine",
    ],
)
def test_an_arrow_upward_is_found(tmp_path: Path, text: str) -> None:
    arrows = write(
        tmp_path, {"__init__.py": "", "engine.py": "", "models/__init__.py": "", "models/model.py": text}
    )
    assert upward(arrows) == ["penstock.models.model imports penstock.engine"]


def test_a_misplaced_library_is_found(tmp_path: Path) -> None:
    arrows = write(tmp_path, {"rpc/codec.py": "import grpc\nfrom grpc._cython import cygrpc"})
    assert misplaced(arrows) == ["penstock.rpc.codec imports grpc._cython.cygrpc"]


def test_a_circle_is_found(tmp_path: Path) -> None:
    arrows = write(
        tmp_path, {"rpc/a.py": "from . import b", "rpc/b.py": "def f():\n    import penstock.rpc.a"}
    )
    assert set(circle(arrows)) == {"penstock.rpc.a", "penstock.rpc.b"}
