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
BENCH = ROOT / "tools/bench/src"

Graph: TypeAlias = dict[str, set[str]]

# A part is a file or a folder directly under src/penstock. What each may import besides itself:
FLOOR = {"core", "config"}
SCHEDULING = FLOOR | {"backends"}
MODELS = SCHEDULING | {"scheduling", "row_files"}
TRAFFIC = MODELS | {"models"}
ENGINE = TRAFFIC | {"traffic"}
PROTOCOLS = ENGINE | {"engine", "transport"}
COMPOSED = PROTOCOLS | {"protocols", "observability", "operations", "security"}
COMPOSED_IN = {"described", "gauges", "interceptors", "loading", "page", "web"}
PROCESSES = COMPOSED | COMPOSED_IN | {"server", "signals", "summary"}
MAY_IMPORT = {
    "core": set(),
    "config": {"core"},
    "row_files": {"core"},
    # What scores files knows a server through the client only.
    "scoring": {"core", "row_files"},
    "backends": FLOOR,
    "scheduling": SCHEDULING,
    "models": MODELS,
    # Runs in a child process of the command line; the server does not know it.
    "importing": SCHEDULING | {"row_files"},
    "traffic": TRAFFIC,
    "engine": ENGINE,
    "transport": FLOOR,
    "protocols": PROTOCOLS,
    # Composed in by the server: nothing else imports them.
    "observability": FLOOR,
    "operations": FLOOR,
    "security": FLOOR,
    "optimizing": MODELS | {"models"},
    "loading": MODELS | {"models", "observability"},
    "gauges": {"models", "observability", "scheduling"},
    "interceptors": {"transport"},
    "web": PROTOCOLS | {"protocols"},
    "page": FLOOR | {"observability", "operations"},
    "described": PROTOCOLS | {"protocols", "summary"},
    "server": COMPOSED | COMPOSED_IN,
    "signals": set(),
    "summary": {"core", "models"},
    "processes": PROCESSES,
    "cli": PROCESSES | {"processes", "importing", "optimizing", "row_files", "scoring"},
    "__main__": {"cli"},
}

# Within these parts, too, arrows point down only. What each of their folders may import of the same part:
INNER = {
    # Protocols share what lies directly in the folder, and do not know each other.
    "protocols": {
        "fast_path": {""},
        "penstock_v1": {"", "fast_path"},
        "open_inference": {"", "fast_path"},
        "standard": {""},
        # The Open Inference Protocol has a form for HTTP, too.
        "rest": {"", "fast_path", "open_inference"},
        "": {"fast_path"},
    },
    "transport": {
        "http": {"grpc"},
        "grpc": set(),
        "": set(),
    },
    "scheduling": {
        "queue": {""},
        "execution": {"", "packing"},
        "packing": set(),
        "": {"queue", "execution", "packing"},
    },
    "models": {
        "analysis": set(),
        "checks": {"", "analysis"},
        "trial": {"", "analysis", "checks"},
        "": {"analysis", "checks", "trial"},
    },
}

# Foreign packages, and the only modules that import them.
ONLY_IN = {
    "grpc": (
        "penstock.transport.grpc",
        "penstock.protocols",
        "penstock.transport.http.status",
        "penstock.transport.http.routes",
    ),
    "uvicorn": ("penstock.transport.http.connection", "penstock.transport.http.server"),
    "httptools": ("penstock.transport.http.connection",),
    "orjson": ("penstock.transport.http", "penstock.protocols.rest", "penstock.scoring.outputs"),
    "grpc_health": ("penstock.transport.grpc", "penstock.protocols.standard"),
    "grpc_reflection": ("penstock.protocols.standard",),
    "grpc_status": ("penstock.protocols",),
    "grpc._cython": ("penstock.transport.grpc.reactor", "penstock.transport.grpc.reactor_calls"),
    "onnx": ("penstock.models.analysis", "penstock.importing", "penstock.optimizing.variants"),
    "sklearn": ("penstock.importing",),
    "skl2onnx": ("penstock.importing",),
    "lightgbm": ("penstock.importing",),
    "xgboost": ("penstock.importing",),
    "catboost": ("penstock.importing",),
    "keras": ("penstock.importing",),
    "tensorflow": ("penstock.importing",),
    "transformers": ("penstock.importing",),
    "onnxruntime": ("penstock.backends.onnx", "penstock.optimizing.variants"),
    "prometheus_client": ("penstock.observability.metrics", "penstock.observability.model_families"),
    "pydantic": ("penstock.config",),
    "structlog": ("penstock.observability.logs",),
    "click": ("penstock.cli",),
    "rich": ("penstock.cli",),
    "pyarrow": ("penstock.scoring.arrow_files",),
    "fsspec": ("penstock.scoring.sources",),
}

# The load tool knows servers from the outside only: the client, the protocols, and what is shared by all.
BENCH_MAY_IMPORT = ("penstock.__version__", "penstock.core", "penstock.row_files", "penstock.cli.target")


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


def folder(module: str) -> str:
    """The folder of its part that a module lies in; "" for the part itself."""
    names = module.split(".")
    return (
        names[2]
        if len(names) > 3 or (names[1] in INNER and names[2:3] and names[2] in INNER[names[1]])
        else ""
    )


def inner_upward(arrows: Graph) -> list[str]:
    """The imports between folders of one part that its table does not allow."""
    return [
        f"{module} imports {target}"
        for module, targets in arrows.items()
        for target in sorted(targets)
        if (inner := INNER.get(part(module))) is not None
        and part(target) == part(module)
        and under(target, "penstock")
        and folder(target) != folder(module)
        and folder(target) not in inner[folder(module)]
    ]


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
    """The modules of one circle of imports; empty if there is no circle."""
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


def test_arrows_between_folders_point_down(server: Graph) -> None:
    assert inner_upward(server) == []


def test_the_load_tool_knows_servers_from_outside() -> None:
    arrows = graph(BENCH, "penstock_bench")
    assert circle(arrows) == []
    known = {target for targets in arrows.values() for target in targets if under(target, "penstock")}
    assert [each for each in known if not any(under(each, home) for home in BENCH_MAY_IMPORT)] == []


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
    arrows = write(
        tmp_path, {"protocols/penstock_v1/decoder.py": "import grpc\nfrom grpc._cython import cygrpc"}
    )
    assert misplaced(arrows) == ["penstock.protocols.penstock_v1.decoder imports grpc._cython.cygrpc"]


def test_a_circle_is_found(tmp_path: Path) -> None:
    arrows = write(
        tmp_path, {"core/a.py": "from . import b", "core/b.py": "def f():\n    import penstock.core.a"}
    )
    assert set(circle(arrows)) == {"penstock.core.a", "penstock.core.b"}
