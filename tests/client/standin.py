"""A small real server that the client is tested against: it echoes, and shows faults on request."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock_proto.v1 import (
    model_pb2,
    model_pb2_grpc,
    prediction_pb2,
    prediction_pb2_grpc,
    tensor_pb2,
)

Answer = prediction_pb2.PredictResponse | status_pb2.Status
BATCHED = {"enabled": True, "reason": "the first axis is open", "max_rows": 32}


def model(name: str, version: str = "1", **inputs: str) -> model_pb2.Model:
    """A model whose inputs are written like `x="FP32 N,3"`; `x="FP32 *"` has any rank."""
    made = model_pb2.Model(name=name, version=version, state=model_pb2.READY, batching=BATCHED)
    for input_name, spec in inputs.items():
        datatype, _, axes = spec.partition(" ")
        tensor = made.inputs.add(name=input_name, datatype=tensor_pb2.DataType.Value(datatype))
        tensor.any_rank = axes == "*"
        for axis in [] if axes in {"", "*"} else axes.split(","):
            tensor.shape.add(**{"size": int(axis)} if axis.isdigit() else {"symbol": axis})
    made.outputs.extend(made.inputs)
    return made


def status(code: grpc.StatusCode, message: str, retry_after: float | None = None) -> status_pb2.Status:
    made = status_pb2.Status(code=code.value[0], message=message)
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(retry_after * 1000))
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        made.details.append(any_pb2.Any(type_url="type.googleapis.com/unknown.Detail"))
        made.details.append(detail)
    return made


def echo(request: prediction_pb2.PredictRequest) -> prediction_pb2.PredictResponse:
    response = prediction_pb2.PredictResponse(model=request.model, version="1", id=request.id)
    for name, tensor in request.inputs.items():
        if not request.outputs or name in request.outputs:
            response.outputs[name].CopyFrom(tensor)
    response.timing.queue.FromMicroseconds(250)
    response.timing.compute.FromMilliseconds(1500)
    response.timing.batch_rows = 7
    return response


class StandIn(
    prediction_pb2_grpc.PredictionServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
    health_pb2_grpc.HealthServicer,
):
    """Echoes its inputs.

    Attributes:
        models: what there is, by name and version asked for.
        answer: gives the answer to one request, of either kind of call.
        stream: takes the requests of a stream message by message and gives the messages of answers.
        calls: how often each method was called.
        requests: every request that came.
        messages: how many requests each message of a stream held.
        metadata, remaining: of the last call: its metadata, the seconds to its deadline.
        ended: set when a stream's call is over.
        is_stopping: whether it rejects calls of everything but health, as a server that drains.
    """

    def __init__(self) -> None:
        self.models: dict[tuple[str, str], model_pb2.Model] = {}
        self.answer: Callable[[prediction_pb2.PredictRequest], Answer] = echo
        self.stream: Callable[..., Iterator[prediction_pb2.PredictStreamResponse]] = self.answer_all
        self.states: dict[str, int] = {"": health_pb2.HealthCheckResponse.SERVING}
        self.calls: Counter[str] = Counter()
        self.requests: list[prediction_pb2.PredictRequest] = []
        self.messages: list[int] = []
        self.metadata: dict[str, str] = {}
        self.remaining: float | None = None
        self.ended = threading.Event()
        self.is_stopping = False
        self._server = grpc.server(
            ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        )
        prediction_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def add(self, name: str, version: str = "", **inputs: str) -> None:
        self.models[name, version] = model(name, version or "1", **inputs)

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _note(self, method: str, context: grpc.ServicerContext) -> None:
        self.calls[method] += 1
        self.metadata = dict(context.invocation_metadata())
        self.remaining = context.time_remaining()
        if self.is_stopping and method != "Check":
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    def Predict(self, request, context):
        self._note("Predict", context)
        self.requests.append(request)
        answer = self.answer(request)
        if isinstance(answer, status_pb2.Status):
            abort(context, answer)
        return answer

    def PredictStream(self, request_iterator, context):
        self._note("PredictStream", context)
        context.add_callback(self.ended.set)
        yield from self.stream(self._noted(request_iterator), context)

    def _noted(self, messages):
        for message in messages:
            self.messages.append(len(message.requests))
            self.requests.extend(message.requests)
            yield message

    def answer_all(self, messages, context):
        for message in messages:
            yield self.answers(message.requests)

    def answers(self, requests) -> prediction_pb2.PredictStreamResponse:
        response = prediction_pb2.PredictStreamResponse()
        for request in requests:
            answer = self.answer(request)
            result = response.results.add(tag=request.tag, id=request.id)
            part = result.error if isinstance(answer, status_pb2.Status) else result.response
            part.CopyFrom(answer)
        return response

    def GetModel(self, request, context):
        self._note("GetModel", context)
        found = self.models.get((request.model, request.version))
        if found is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no {request.model}; there is {sorted(self.models)}")
        return found

    def ListModels(self, request, context):
        self._note("ListModels", context)
        return model_pb2.ListModelsResponse(models=self.models.values())

    def Check(self, request, context):
        self._note("Check", context)
        if request.service not in self.states:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=self.states[request.service])


def abort(context: grpc.ServicerContext, answer: status_pb2.Status) -> None:
    code = next(each for each in grpc.StatusCode if each.value[0] == answer.code)
    context.set_trailing_metadata((("grpc-status-details-bin", answer.SerializeToString()),))
    context.abort(code, answer.message)
