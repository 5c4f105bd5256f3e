"""Generates the Python stubs of `protos/` into the client's distribution.

    make protos

Run it with the grpcio-tools release that the Makefile pins: stubs work with that release of grpcio and
protobuf and all later ones, so an old pin means a wide range for users. Beside the stubs it writes
`descriptors.binpb`, the same contract with its comments, which the server hands to reflection clients:
`grpcurl describe` then shows the documentation.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc_tools
from google.rpc import status_pb2
from grpc_tools import protoc

ROOT = Path(__file__).parent
OUT = ROOT.parent / "clients/python/src"
PACKAGE = "penstock_proto"


def include_paths() -> list[Path]:
    """Where protoc finds our files, Google's well-known types, and google/rpc."""
    return [ROOT, Path(grpc_tools.__file__).parent / "_proto", Path(status_pb2.__file__).parents[2]]


def run(*arguments: str) -> None:
    """Runs protoc over every file of the contract.

    Raises:
        SystemExit: protoc refused; it has printed why.
    """
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(f"{PACKAGE}/**/*.proto"))
    if protoc.main(["protoc", *(f"-I{path}" for path in include_paths()), *arguments, *sources]) != 0:
        sys.exit("protoc failed")


def descriptors(path: Path) -> None:
    """Writes the contract with its comments to `path`, as a serialized FileDescriptorSet."""
    run(f"--descriptor_set_out={path}", "--include_source_info")


def remove_empty_service_stubs() -> None:
    """Drops the service stubs of files that declare no service."""
    for path in OUT.glob(f"{PACKAGE}/**/*_pb2_grpc.py"):
        if "class " not in path.read_text():
            path.unlink()


def main() -> None:
    """Writes stubs, type stubs, packages and descriptors."""
    run(f"--python_out={OUT}", f"--pyi_out={OUT}", f"--grpc_python_out={OUT}")
    remove_empty_service_stubs()
    for folder in (OUT / PACKAGE, *(path for path in (OUT / PACKAGE).glob("*") if path.is_dir())):
        if folder.name != "__pycache__":
            (folder / "__init__.py").touch()
    descriptors(OUT / PACKAGE / "descriptors.binpb")


if __name__ == "__main__":
    main()
