"""Server reflection, v1 and v1alpha, with comments: grpcurl needs no .proto file.

Generated Python modules have no comments, so our own files are served from `descriptors.binpb`, which protoc
wrote with comments. The two versions of the protocol differ only in the name of their package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import ReflectionServicer

from penstock.transport.grpc.servicers import ServicerMethods, answers_each

V1ALPHA = "grpc.reflection.v1alpha"
V1 = "grpc.reflection.v1"
SERVICE = "ServerReflection"
V1_FILE = "grpc/reflection/v1/reflection.proto"


def add_reflection(services: Iterable[str], methods: ServicerMethods) -> None:
    """Adds both versions of the reflection service.

    Args:
        services: the full names of the services to show, beside reflection's own.
        methods: the methods are added to it.
    """
    names = [*services, f"{V1}.{SERVICE}", f"{V1ALPHA}.{SERVICE}"]
    servicer = _Servicer(names, pool=_CommentedPool())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, methods)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, _Renamed(methods))


class _Servicer(ReflectionServicer):  # type: ignore[misc]  # grpc_reflection is untyped
    """grpcio's servicer, without a thread for each stream."""

    @answers_each
    def ServerReflectionInfo(self, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:
        """The answer to each request."""
        yield from super().ServerReflectionInfo(request_iterator, context)


class _Renamed:
    """Registers a service's methods under the name it has in v1."""

    def __init__(self, methods: ServicerMethods) -> None:
        self._methods = methods

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None: ...

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self._methods.add_registered_method_handlers(service.replace(V1ALPHA, V1), handlers)


class _CommentedPool:
    """The part of a descriptor pool that the servicer uses: the process's own pool, with comments added."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()
        self._v1 = descriptor_pool.DescriptorPool()
        self._v1.AddSerializedFile(_reflection_v1().SerializeToString())

    def FindFileByName(self, name: str) -> _CommentedFile:
        return _CommentedFile((self._v1 if name == V1_FILE else self._pool).FindFileByName(name))

    def FindFileContainingSymbol(self, symbol: str) -> _CommentedFile:
        pool = self._v1 if symbol.startswith(f"{V1}.") else self._pool
        try:
            return _CommentedFile(pool.FindFileContainingSymbol(symbol))
        except KeyError:  # a pool has no methods; the protocol names them after their service
            return _CommentedFile(pool.FindFileContainingSymbol(symbol.rpartition(".")[0]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


class _CommentedFile:
    """A file descriptor whose copy has the comments."""

    def __init__(self, file: FileDescriptor) -> None:
        self._file = file
        self.name = file.name
        self.dependencies = [_CommentedFile(each) for each in file.dependencies]

    def CopyToProto(self, proto: FileDescriptorProto) -> None:
        commented = _with_comments().get(self.name)
        if commented is not None:
            proto.CopyFrom(commented)
        else:
            self._file.CopyToProto(proto)


@cache
def _with_comments() -> Mapping[str, FileDescriptorProto]:
    data = (files("penstock_proto") / "descriptors.binpb").read_bytes()
    return {file.name: file for file in FileDescriptorSet.FromString(data).file}


def _reflection_v1() -> FileDescriptorProto:
    """Reflection's own file for v1, made from the file for v1alpha in grpcio-reflection."""
    proto = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(proto)
    proto.name, proto.package = V1_FILE, V1
    for message in proto.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(V1ALPHA, V1)
    for method in proto.service[0].method:
        method.input_type = method.input_type.replace(V1ALPHA, V1)
        method.output_type = method.output_type.replace(V1ALPHA, V1)
    return proto
