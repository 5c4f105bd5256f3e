"""A small server of the Open Inference Protocol: it gives back what it takes, or misbehaves when told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from penstock_proto.inference import grpc_service_pb2 as pb
from penstock_proto.inference import grpc_service_pb2_grpc as pb_grpc

SHAPE = (-1, 3)


class OipServer(pb_grpc.GRPCInferenceServiceServicer):
    """The model "echo": input `x`, FP32 of the shape [-1, 3], comes back as `y`.

    Attributes:
        target: where it serves, as "host:port".
        requests: what was asked so far.
        stall_at: the number of the request before which everything stands still for a while; 0 for none.
        stall_seconds: for how long.
        refuse: every request fails whose number this divides; 0 for none.
        stop_at: the number of the request at which the server goes away; 0 for none.
        keeps_statistics: whether ModelStatistics is there.
        gone: stops the server.
        stopping: ends a stall.
    """

    def __init__(self) -> None:
        self.target = ""
        self.requests: list[pb.ModelInferRequest] = []
        self.stall_at = 0
        self.stall_seconds = 0.5
        self.refuse = 0
        self.stop_at = 0
        self.keeps_statistics = True
        self.gone = threading.Event()
        self.stopping = threading.Event()
        self._lock = threading.Lock()

    def ModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.name != "echo":
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model: {request.name}")
        answer = pb.ModelMetadataResponse(name="echo", versions=["1"], platform="test")
        answer.inputs.add(name="x", datatype="FP32", shape=SHAPE)
        answer.outputs.add(name="y", datatype="FP32", shape=SHAPE)
        return answer

    def ModelStatistics(self, request: Any, context: grpc.ServicerContext) -> Any:
        """As if every request had waited 1 ms and run for 2 ms, two in a batch."""
        if not self.keeps_statistics:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no statistics")
        count = len(self.requests)
        answer = pb.ModelStatisticsResponse()
        each = answer.model_stats.add(name="echo", version="1", inference_count=count)
        each.execution_count = count // 2
        each.inference_stats.success.count = count
        each.inference_stats.queue.ns = count * 1_000_000
        each.inference_stats.compute_infer.ns = count * 2_000_000
        return answer

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:
        if not self._takes(request):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "not this one")
        return self._answer(request)

    def ModelStreamInfer(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            if self._takes(request):
                yield pb.ModelStreamInferResponse(infer_response=self._answer(request))
            else:
                yield pb.ModelStreamInferResponse(error_message="not this one")

    def _takes(self, request: Any) -> bool:
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
            if number == self.stall_at:
                self.stopping.wait(self.stall_seconds)
            if number == self.stop_at:
                self.gone.set()
        return not self.refuse or number % self.refuse != 0

    def _answer(self, request: Any) -> Any:
        answer = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        answer.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
        answer.raw_output_contents.extend(request.raw_input_contents)
        return answer


@contextmanager
def oip_server() -> Iterator[OipServer]:
    """Serves on a free port of 127.0.0.1 until the `with` statement ends."""
    servicer = OipServer()
    with ThreadPoolExecutor(64) as pool:
        server = grpc.server(pool, options=(("grpc.so_reuseport", 0),))
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        stopper = threading.Thread(target=lambda: (servicer.gone.wait(), server.stop(0).wait()))
        stopper.start()
        try:
            yield servicer
        finally:
            servicer.stopping.set()
            servicer.gone.set()
            stopper.join()
