"""The metric of the bytes of answers that count."""

from __future__ import annotations

import re
from itertools import repeat

import grpc
import numpy as np

from page import kit
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import prediction_pb2_grpc, tensor_pb2
from support.calls import wait_until
from support.servers import RunningServer

ROWS = 100
IMAGES = np.zeros((ROWS, 3, 64, 64), np.float32)


def answer_bytes(server: RunningServer) -> float:
    """What `penstock_answer_bytes` says."""
    text = kit.ask(server.ops + "/metrics").text
    [found] = re.findall(r"^penstock_answer_bytes (\S+)$", text, re.MULTILINE)
    return float(found)


def test_answers_that_nobody_reads_count_until_their_call_has_ended(page_server: RunningServer) -> None:
    image = tensor_pb2.Tensor(shape=IMAGES.shape, datatype=tensor_pb2.FP32, raw=IMAGES.tobytes())
    request = pb.PredictRequest(model="large", inputs={"x": image})
    with grpc.insecure_channel(page_server.target) as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        call = stub.PredictStream(repeat(pb.PredictStreamRequest(requests=[request]), 8))
        wait_until(lambda: answer_bytes(page_server) >= IMAGES.nbytes)
        call.cancel()
    wait_until(lambda: answer_bytes(page_server) == 0)
