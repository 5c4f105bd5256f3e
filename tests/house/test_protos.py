"""The generated stubs are those of `protos/`, and everything in the contract is explained."""

from __future__ import annotations

import importlib
import runpy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "clients/python/src"
STALE = "the stubs are not those of protos/: run `make protos`"

Named: TypeAlias = tuple[str, tuple[int, ...]]
"""A declaration, and its path as source locations have it."""

# Field numbers in descriptor.proto, of which the paths of source locations are made.
MESSAGE, ENUM, SERVICE = (4, 5, 6)
FIELD, NESTED_MESSAGE, NESTED_ENUM = (2, 3, 4)
VALUE = METHOD = 2


def compiled(path: Path) -> FileDescriptorSet:
    """The contract as the installed protoc reads it, comments included."""
    runpy.run_path(str(ROOT / "protos/generate.py"))["descriptors"](path)
    return FileDescriptorSet.FromString(path.read_bytes())


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorSet:
    return compiled(tmp_path_factory.mktemp("protos") / "descriptors.binpb")


def without_json_names(message: DescriptorProto) -> None:
    """Drops what protoc adds when it writes descriptors, but not when it writes stubs."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        without_json_names(nested)


def bare(file: FileDescriptorProto) -> FileDescriptorProto:
    """The file as stubs carry it: without comments."""
    result = FileDescriptorProto()
    result.CopyFrom(file)
    result.ClearField("source_code_info")
    for message in result.message_type:
        without_json_names(message)
    return result


def all_messages(messages: Iterator[DescriptorProto]) -> Iterator[DescriptorProto]:
    for message in messages:
        yield message
        yield from all_messages(m for m in message.nested_type if not m.options.map_entry)


def test_the_descriptors_with_comments_are_fresh(contract: FileDescriptorSet) -> None:
    kept = FileDescriptorSet.FromString((STUBS / "penstock_proto/descriptors.binpb").read_bytes())
    assert kept == contract, STALE


def test_the_message_stubs_are_fresh(contract: FileDescriptorSet) -> None:
    for file in contract.file:
        stub = importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
        carried = FileDescriptorProto.FromString(stub.DESCRIPTOR.serialized_pb)
        assert bare(carried) == bare(file), STALE


def test_the_type_stubs_know_every_field_and_value(contract: FileDescriptorSet) -> None:
    for file in contract.file:
        text = (STUBS / file.name).with_name(Path(file.name).stem + "_pb2.pyi").read_text()
        messages = list(all_messages(iter(file.message_type)))
        names = {f"{field.name.upper()}_FIELD_NUMBER:" for message in messages for field in message.field}
        enums = [*file.enum_type, *(enum for message in messages for enum in message.enum_type)]
        names |= {f"{value.name}:" for enum in enums for value in enum.value}
        assert [name for name in names if name not in text] == [], STALE


def test_the_service_stubs_call_every_method(contract: FileDescriptorSet) -> None:
    for file in contract.file:
        path = (STUBS / file.name).with_name(Path(file.name).stem + "_pb2_grpc.py")
        assert path.exists() == bool(file.service), STALE
        methods = {f"/{file.package}.{s.name}/{m.name}'" for s in file.service for m in s.method}
        assert [m for m in methods if m not in path.read_text()] == [], STALE


def of_message(message: DescriptorProto, path: tuple[int, ...], name: str) -> Iterator[Named]:
    """The names in a message that want a comment, with their paths."""
    yield name, path
    for i, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, FIELD, i)
    for i, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from of_message(nested, (*path, NESTED_MESSAGE, i), f"{name}.{nested.name}")
    for i, enum in enumerate(message.enum_type):
        yield from of_children(enum.name, enum.value, (*path, NESTED_ENUM, i), VALUE)


def of_children(name: str, children: Iterable[Any], path: tuple[int, ...], kind: int) -> Iterator[Named]:
    """An enum and its values, or a service and its methods, with their paths."""
    yield name, path
    for i, child in enumerate(children):
        yield f"{name}.{child.name}", (*path, kind, i)


def unexplained(file: FileDescriptorProto) -> list[str]:
    """Whatever a file declares without a comment before it."""
    explained = {
        tuple(location.path)
        for location in file.source_code_info.location
        if location.leading_comments.strip()
    }
    wanted = [pair for i, m in enumerate(file.message_type) for pair in of_message(m, (MESSAGE, i), m.name)]
    for i, enum in enumerate(file.enum_type):
        wanted += of_children(enum.name, enum.value, (ENUM, i), VALUE)
    for i, service in enumerate(file.service):
        wanted += of_children(service.name, service.method, (SERVICE, i), METHOD)
    return [name for name, path in wanted if path not in explained]


def test_everything_in_the_contract_is_explained(contract: FileDescriptorSet) -> None:
    assert {file.name: unexplained(file) for file in contract.file if unexplained(file)} == {}


def test_what_is_not_explained_is_found(contract: FileDescriptorSet) -> None:
    for file in contract.file:
        silent = FileDescriptorProto()
        silent.CopyFrom(file)
        for location in silent.source_code_info.location:
            location.ClearField("leading_comments")
        names = set(unexplained(silent))
        assert {m.name for m in file.message_type} | {s.name for s in file.service} <= names
        assert {f"{m.name}.{f.name}" for m in file.message_type for f in m.field} <= names
        assert {f"{e.name}.{v.name}" for e in file.enum_type for v in e.value} <= names
        assert {f"{s.name}.{m.name}" for s in file.service for m in s.method} <= names
