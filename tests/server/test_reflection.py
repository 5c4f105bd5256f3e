"""Server reflection, both versions, asked as any client asks: names, files and their comments."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha import reflection_pb2_grpc

from server import kit

V1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
SERVICES = {
    "penstock.v1.PredictionService",
    "penstock.v1.ModelService",
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}
Ask = Callable[..., list[pb.ServerReflectionResponse]]


@pytest.fixture
def transport() -> str:
    """One transport is enough: both carry the same servicer."""
    return "reactor"


@pytest.fixture(params=["v1", "v1alpha"])
def ask(channel: grpc.Channel, request: pytest.FixtureRequest) -> Ask:
    """Asks several questions on one call; each is given as one field of the request."""
    # The messages of the two versions are the same on the wire; only v1alpha has published stubs.
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    if request.param == "v1":
        call = channel.stream_stream(
            V1, pb.ServerReflectionRequest.SerializeToString, pb.ServerReflectionResponse.FromString
        )

    def answers(*questions: dict[str, str]) -> list[pb.ServerReflectionResponse]:
        messages = [pb.ServerReflectionRequest(**each) for each in questions]
        return list(call(iter(messages), timeout=kit.BOUND))

    return answers


def files_of(answer: pb.ServerReflectionResponse) -> dict[str, FileDescriptorProto]:
    data = answer.file_descriptor_response.file_descriptor_proto
    files = [FileDescriptorProto.FromString(each) for each in data]
    return {each.name: each for each in files}


def comments_of(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """By path: 6 is a service, 4 a message, and 2 within these a method or a field."""
    return {tuple(each.path): each.leading_comments.strip() for each in file.source_code_info.location}


def test_the_services(ask) -> None:
    (answer,) = ask({"list_services": ""})
    assert {each.name for each in answer.list_services_response.service} == SERVICES


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_service_can_be_built_from_what_is_told(ask, service) -> None:
    """A client knows nothing else: a file that were missing among the answers would show here."""
    (answer,) = ask({"file_containing_symbol": service})
    pool, files = descriptor_pool.DescriptorPool(), files_of(answer)
    waiting = dict(files)
    while waiting:
        ready = [name for name in waiting if not set(waiting[name].dependency) & set(waiting)]
        for name in ready:
            pool.Add(waiting.pop(name))
    described = pool.FindServiceByName(service)
    assert described.full_name == service
    assert all(each.input_type.fields is not None for each in described.methods)


def test_methods_fields_and_services_come_with_their_comments(ask) -> None:
    (answer,) = ask({"file_containing_symbol": "penstock.v1.PredictionService"})
    file = files_of(answer)["penstock_proto/v1/prediction.proto"]
    comments = comments_of(file)
    names = [each.name for each in file.service[0].method]
    assert names == ["Predict", "PredictStream"]
    assert comments[6, 0].startswith("Runs models.")
    assert comments[6, 0, 2, 0].startswith("One request, one answer.")
    assert comments[6, 0, 2, 1].startswith("Many requests over one call")
    messages = [each.name for each in file.message_type]
    asked = messages.index("PredictRequest")
    assert [each for each in range(11) if not comments.get((4, asked, 2, each))] == []


@pytest.mark.parametrize("symbol", ["penstock.v1.Tensor", "penstock.v1.DataType", "google.rpc.Status"])
def test_messages_and_enums_are_found_too(ask, symbol) -> None:
    (answer,) = ask({"file_containing_symbol": symbol})
    assert files_of(answer)


def test_methods_are_found_too(ask) -> None:
    (answer,) = ask({"file_containing_symbol": "penstock.v1.ModelService.GetModel"})
    assert files_of(answer)


def test_many_questions_on_one_call_and_one_that_has_no_answer(ask) -> None:
    answers = ask(
        {"file_by_filename": "penstock_proto/v1/tensor.proto"},
        {"file_containing_symbol": "penstock.v1.Nothing"},
        {"file_by_filename": "no/such.proto"},
        {"list_services": ""},
    )
    assert "penstock_proto/v1/tensor.proto" in files_of(answers[0])
    not_found = grpc.StatusCode.NOT_FOUND.value[0]
    assert [each.error_response.error_code for each in answers[1:3]] == [not_found] * 2
    assert len(answers[3].list_services_response.service) == len(SERVICES)
