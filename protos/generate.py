"""Generates the Python stubs of `protos/` into the client's distribution.

    make protos

With `--released` it also records the contract in `released.txt`, as a release does: tests compare with it,
so that what a release has promised is never renumbered, retyped or removed.

Run it with the grpcio-tools release that the Makefile pins: stubs work with that release of grpcio and
protobuf and all later ones, so an old pin means a wide range for users. Beside the stubs it writes
`descriptors.binpb`, the same contract with its comments and with all files that it imports. The server hands
it to reflection clients, so that `grpcurl describe` shows the documentation. It is also all that grpcurl
(`-protoset`), Envoy's JSON transcoder and protoc (`--descriptor_set_in`) need to know of the contract.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from google.rpc import status_pb2
from grpc_tools import protoc

ROOT = Path(__file__).parent
OUT = ROOT.parent / "clients/python/src"
PACKAGE = "penstock_proto"
RELEASED = ROOT / "released.txt"
"""Every field, value and method of the last release, a line each."""


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
    """Writes the contract with its comments and imports to `path`, as a serialized FileDescriptorSet."""
    run(f"--descriptor_set_out={path}", "--include_source_info", "--include_imports")


def remove_empty_service_stubs() -> None:
    """Drops the service stubs of files that declare no service."""
    for path in OUT.glob(f"{PACKAGE}/**/*_pb2_grpc.py"):
        if "class " not in path.read_text():
            path.unlink()


def listing(contract: FileDescriptorSet) -> list[str]:
    """What callers rely on, a line each: the fields, enum values and methods of our files.

    A line holds the full name and all that the wire depends on, so that it is the same in two contracts
    exactly where their messages are.
    """
    lines: list[str] = []
    for file in contract.file:
        if file.name.startswith(f"{PACKAGE}/"):
            for message in file.message_type:
                lines += _of_message(message, file.package)
            for enum in file.enum_type:
                lines += _of_enum(enum, file.package)
            for service in file.service:
                lines += _of_service(service, file.package)
    return sorted(lines)


def _of_message(message: DescriptorProto, scope: str) -> Iterator[str]:
    name = f"{scope}.{message.name}"
    for field in message.field:
        yield f"field {name}.{field.name} = {field.number}: {_type(field)}{_oneof(message, field)}"
    for nested in message.nested_type:
        yield from _of_message(nested, name)
    for enum in message.enum_type:
        yield from _of_enum(enum, name)


def _type(field: FieldDescriptorProto) -> str:
    label = FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower()
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"{label} {kind} {field.type_name}".rstrip()


def _oneof(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    return f" in {message.oneof_decl[field.oneof_index].name}" if field.HasField("oneof_index") else ""


def _of_enum(enum: EnumDescriptorProto, scope: str) -> Iterator[str]:
    for value in enum.value:
        yield f"value {scope}.{enum.name}.{value.name} = {value.number}"


def _of_service(service: ServiceDescriptorProto, scope: str) -> Iterator[str]:
    for method in service.method:
        asked = "stream " * method.client_streaming + method.input_type
        given = "stream " * method.server_streaming + method.output_type
        yield f"method {scope}.{service.name}.{method.name}: {asked} -> {given}"


def main() -> None:
    """Writes stubs, type stubs, packages and descriptors."""
    run(f"--python_out={OUT}", f"--pyi_out={OUT}", f"--grpc_python_out={OUT}")
    remove_empty_service_stubs()
    for folder in (OUT / PACKAGE, *(path for path in (OUT / PACKAGE).glob("*") if path.is_dir())):
        if folder.name != "__pycache__":
            (folder / "__init__.py").touch()
    path = OUT / PACKAGE / "descriptors.binpb"
    descriptors(path)
    if "--released" in sys.argv[1:]:
        lines = listing(FileDescriptorSet.FromString(path.read_bytes()))
        RELEASED.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
