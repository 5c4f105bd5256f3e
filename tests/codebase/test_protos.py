"""The generated stubs are those of `protos/`, and everything in the contract is explained."""

from __future__ import annotations

import importlib
import runpy
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.descriptor_pool import DescriptorPool

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
def complete(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorSet:
    """Our files and those that they import."""
    return compiled(tmp_path_factory.mktemp("protos") / "descriptors.binpb")


@pytest.fixture(scope="module")
def contract(complete: FileDescriptorSet) -> FileDescriptorSet:
    """Our files."""
    return FileDescriptorSet(file=[each for each in complete.file if not each.name.startswith("google/")])


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


def kept() -> FileDescriptorSet:
    return FileDescriptorSet.FromString((STUBS / "penstock_proto/descriptors.binpb").read_bytes())


def test_the_descriptors_with_comments_are_fresh(contract: FileDescriptorSet) -> None:
    ours = [each for each in kept().file if not each.name.startswith("google/")]
    assert len(ours) == 5
    assert FileDescriptorSet(file=ours) == contract, STALE


def test_the_descriptors_need_no_other_file() -> None:
    """What grpcurl, Envoy and protoc want of a set: every file after those that it imports."""
    pool, files = DescriptorPool(), kept().file
    for file in files:
        pool.Add(file)  # it looks imports up
    for file in files:
        assert pool.FindFileByName(file.name).dependencies is not None
    before: set[str] = set()
    for file in files:
        assert set(file.dependency) <= before
        before.add(file.name)


def test_grpcurl_reads_the_descriptors_by_themselves() -> None:
    grpcurl = shutil.which("grpcurl")
    if grpcurl is None:
        pytest.skip("grpcurl is not here")
    command = [grpcurl, "-protoset", str(STUBS / "penstock_proto/descriptors.binpb")]
    listed = subprocess.run([*command, "list"], check=True, capture_output=True, text=True).stdout
    services = ["inference.GRPCInferenceService", "penstock.v1.ModelService", "penstock.v1.PredictionService"]
    assert listed.split() == services
    name = "penstock.v1.PredictResult"
    told = subprocess.run([*command, "describe", name], check=True, capture_output=True, text=True).stdout
    assert ".google.rpc.Status error" in told


def test_stubs_of_other_languages_have_their_names(contract: FileDescriptorSet) -> None:
    for file in contract.file:
        assert file.options.java_package == file.package
        assert file.options.java_multiple_files
        folder, _, package = file.options.go_package.partition(";")
        assert folder == file.name.rpartition("/")[0]
        assert package == file.package.replace(".", "")


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


def listing(contract: FileDescriptorSet) -> list[str]:
    lines: list[str] = runpy.run_path(str(ROOT / "protos/generate.py"))["listing"](contract)
    return lines


def test_what_the_last_release_promised_is_kept(contract: FileDescriptorSet) -> None:
    released = (ROOT / "protos/released.txt").read_text().splitlines()
    now = set(listing(contract))
    assert len(released) > 400
    assert [line for line in released if line not in now] == []


def test_a_broken_promise_is_found(contract: FileDescriptorSet) -> None:
    before = set(listing(contract))
    changed = FileDescriptorSet.FromString(contract.SerializeToString())
    (file,) = (file for file in changed.file if file.name.endswith("/prediction.proto"))
    messages = {message.name: message for message in file.message_type}
    messages["PredictRequest"].field[0].number = 100
    messages["PredictResponse"].field[1].type = FieldDescriptorProto.TYPE_BYTES
    messages["PredictResult"].field[3].ClearField("oneof_index")
    del messages["Timing"].field[2]
    file.enum_type[0].value[1].number = 3
    file.service[0].method[1].client_streaming = False
    lost = sorted(line.split(" = ")[0].split(":")[0] for line in before - set(listing(changed)))
    assert lost == [
        "field penstock.v1.PredictRequest.model",
        "field penstock.v1.PredictResponse.version",
        "field penstock.v1.PredictResult.error",
        "field penstock.v1.Timing.batch_rows",
        "method penstock.v1.PredictionService.PredictStream",
        "value penstock.v1.OutputEncoding.RAW",
    ]


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
