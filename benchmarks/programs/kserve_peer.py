"""A peer: KServe's Python server for the Open Inference Protocol, with a model that calls ONNX Runtime.

    python benchmarks/programs/kserve_peer.py MODEL_FILE [rest]

Runs in KServe's environment and prints its address. KServe batches nothing in the process. Its own start-up
code listens on every interface and logs a line a call, so its parts are put together here on the loopback
interface, without that log, and with gRPC alone, or its REST server alone: all to its advantage.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, as ONNX Runtime is loaded

import grpc
import numpy as np
import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer


class OnnxModel(Model):
    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.ready = True

    async def predict(self, payload: InferRequest, *_: object, **__: object) -> InferResponse:
        [y] = self._session.run(None, {"x": np.ascontiguousarray(payload.inputs[0].as_numpy())})
        output = InferOutput("y", list(y.shape), "FP32")
        output.set_data_from_numpy(y, binary_data=True)
        return InferResponse(payload.id, self.name, [output], use_binary_outputs=True)


async def serve_rest(plane: DataPlane, extension: ModelRepositoryExtension) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = RESTServer("kserve.model_server:app", plane, extension, port)
    server.config.host, server.config.access_log = "127.0.0.1", False
    logging.disable()
    print(f"REST        127.0.0.1:{port}", flush=True)
    await server.start()


async def main() -> None:
    repository = ModelRepository()
    repository.update(OnnxModel("tiny_mlp", sys.argv[1]))
    plane = DataPlane(model_registry=repository)
    if sys.argv[2:] == ["rest"]:
        await serve_rest(plane, ModelRepositoryExtension(model_registry=repository))
        return
    server = grpc.aio.server(interceptors=(ExceptionToStatusInterceptor(),))
    servicer = InferenceServicer(plane, ModelRepositoryExtension(model_registry=repository))
    grpc_predict_v2_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"gRPC        127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
