"""Callers that do all there is to do to a server, at random, and hold every answer against what was asked.

The server needs `fails` (`zoo.fails_on(100)`), `slow`, which takes some milliseconds, and `sums`
(`zoo.running_sum`), whose state it keeps.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from penstock.core.tensors import DataType
from penstock_proto.inference import grpc_service_pb2 as oip_pb
from penstock_proto.v1 import prediction_pb2 as pb
from penstock_proto.v1 import tensor_pb2
from server import kit, oip_kit

OK, CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED
ALLOWED = {
    "fails": {OK, CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED},
    "slow": {OK, CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED},
    "bad": {CANCELLED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DEADLINE_EXCEEDED},
}
"""How requests may end, besides by a rejection because of a full queue or a deadline."""
REFUSED = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
IN_FLIGHT = 50
MODEL_OF = {"fails": "fails", "bad": "fails", "slow": "slow", "step": "sums"}
TOLD_BY_SERVER = ("OK", "INTERNAL", "INVALID_ARGUMENT")
"""Only a server ends a call so: what a client sees of them, the server has counted."""
ERROR = "ERROR"
"""How an error on a stream of the Open Inference Protocol is counted: it has words only."""


class Caller:
    """One connection whose calls and streams are all random.

    Args:
        target: the server.
        seed: of the chance.

    Attributes:
        ends: how its requests ended, by what they were and the status code.
        problems: what was not as it should be.
    """

    def __init__(self, target: str, seed: int) -> None:
        self.ends: Counter[tuple[str, str]] = Counter()
        self.problems: list[str] = []
        self._target = target
        self._chance = random.Random(seed)
        self._name = f"caller {seed}"
        self._sequences = 0

    def run(self, requests: int) -> None:
        """Sends this number of requests, and waits until every one has ended."""
        with kit.connect(self._target) as channel:
            stub, oip = kit.stub_of(channel), oip_kit.stub_of(channel)
            left = requests
            while left > 0:
                count = min(left, self._chance.randint(1, IN_FLIGHT))
                left -= count
                kind = self._chance.random()
                if kind < 0.5:
                    self._calls(stub, oip, count)
                elif kind < 0.8:
                    self._stream(channel, count)
                elif kind < 0.9:
                    self._infer_stream(channel, count)
                else:
                    self._steps(stub, count)

    def _calls(self, stub: Any, oip: Any, count: int) -> None:
        """Unary calls of either protocol at once, some of which are cancelled."""
        asked = [self._request() for _ in range(count)]
        timeouts = [self._chance.choice((kit.BOUND, kit.BOUND, 0.001, 0.01, 0.05)) for _ in asked]
        done: list[threading.Event] = [threading.Event() for _ in asked]
        calls = []
        for (_, request), timeout, event in zip(asked, timeouts, done, strict=True):
            if self._chance.random() < 0.3:
                call = oip.ModelInfer.future(infer_request(request), timeout=timeout)
            else:
                call = stub.Predict.future(request, timeout=timeout)
            call.add_done_callback(lambda _, event=event: event.set())
            calls.append(call)
        for call in calls:
            if self._chance.random() < 0.2:
                call.cancel()
        for (kind, request), call, event in zip(asked, calls, done, strict=True):
            self._check(event.wait(kit.BOUND), f"a call did not end: {kind}")
            code = call.code()
            self._ended(kind, request, code, array_of(call.result()) if code is OK else None)

    def _stream(self, channel: grpc.Channel, count: int) -> None:
        """Requests of one stream, which may be cancelled on the way: all, or some by their tags."""
        stream = kit.Stream(channel)
        asked = [self._request(tag, timeouts=True) for tag in range(count)]
        cut = self._chance.randint(1, count)
        stream.send(*[request for _, request in asked[:cut]])
        if asked[cut:]:
            stream.send(*[request for _, request in asked[cut:]])
        if self._chance.random() < 0.2:
            stream.cancel()
            self.ends["stream", "cancelled"] += count
            return
        if self._chance.random() < 0.4:
            tags = [self._chance.randint(0, count) for _ in range(self._chance.randint(1, 10))]
            stream.send_bytes(pb.PredictStreamRequest(cancel=tags).SerializeToString())
        stream.half_close()
        results = stream.rest()
        self._check([each.tag for each in results] == list(range(count)), f"tags of {count}: {len(results)}")
        codes = {code.value[0]: code for code in grpc.StatusCode}
        for (kind, request), result in zip(asked, results, strict=False):
            code = codes[result.error.code] if result.HasField("error") else OK
            self._ended(kind, request, code, array_of(result.response) if code is OK else None)

    def _infer_stream(self, channel: grpc.Channel, count: int) -> None:
        """As `_stream`, of the Open Inference Protocol."""
        stream = oip_kit.Stream(channel)
        asked = [self._request(tag, timeouts=True) for tag in range(count)]
        stream.send(*[infer_request(request) for _, request in asked])
        if self._chance.random() < 0.2:
            stream.cancel()
            self.ends["stream", "cancelled"] += count
            return
        stream.half_close()
        answers, code, details = stream.rest_and_status()
        self._check(code is OK and len(answers) == count, f"{len(answers)} of {count}: {details}")
        for (kind, request), each in zip(asked, answers, strict=False):
            if each.error_message:
                self.ends[kind, ERROR] += 1
                continue
            self._check(kind != "bad", "an answer to what does not fit")
            self._check(each.infer_response.id == str(request.tag), "the answer to another one")
            self._ended(kind, request, OK, array_of(each.infer_response))

    def _steps(self, stub: Any, count: int) -> None:
        """A sequence by id, of which every answer is known."""
        self._sequences += 1
        total = 0
        for number in range(count):
            value = self._chance.randint(0, 9)
            request = kit.request("sums")
            request.inputs["x"].CopyFrom(kit.raw(np.array([[value]]), DataType.INT64))
            request.sequence.id = f"{self._name} {self._sequences}"
            request.sequence.start, request.sequence.end = number == 0, number == count - 1
            total += value
            answer = stub.Predict(request, timeout=kit.BOUND)
            got = int(array_of(answer).item())
            self._check(got == total, f"a sum of {got}, not {total}")
            self.ends["step", "OK"] += 1

    def _request(self, tag: int = 0, timeouts: bool = False) -> tuple[str, pb.PredictRequest]:
        chance = self._chance
        kind = chance.choice(("fails", "fails", "fails", "slow", "bad"))
        if kind == "slow":
            x = kit.raw(np.array([[chance.random()]]))
        elif kind == "bad":
            x = kit.raw(np.zeros((1, 7)), DataType.INT64)
        else:
            values = [chance.randint(0, 101) for _ in range(chance.choice((1, 1, 1, 2, 5, 40)))]
            x = kit.raw(np.array(values).reshape(-1, 1), DataType.INT64)
        request = kit.request("slow" if kind == "slow" else "fails", tag=tag)
        request.inputs["x"].CopyFrom(x)
        request.priority = chance.choice((0, 0, 0, 1, -1))
        if timeouts and chance.random() < 0.3:
            request.timeout.FromMilliseconds(chance.choice((1, 10, 50)))
        return kind, request

    def _ended(self, kind: str, request: pb.PredictRequest, code: grpc.StatusCode, got: Any) -> None:
        self.ends[kind, code.name] += 1
        self._check(code in ALLOWED[kind] | REFUSED, f"{kind} ended with {code}")
        if code is OK:
            sent = kit.array_of(request.inputs["x"])
            self._check(np.allclose(sent, got), f"{kind}: {got.tolist()} for {sent.tolist()}")
            self._check(kind != "fails" or sent.max() < 100, "an answer to what the model fails on")

    def _check(self, good: Any, words: str) -> None:
        if not good:
            self.problems.append(words)


def run(target: str, requests: int, callers: int = 4, seed: int = 0) -> Sequence[Caller]:
    """Several callers at once, with this number of requests in all."""
    made = [Caller(target, seed + number) for number in range(callers)]
    threads = [threading.Thread(target=each.run, args=(requests // callers,)) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


def array_of(answer: pb.PredictResponse | oip_pb.ModelInferResponse) -> np.ndarray:
    """The output of an answer."""
    if isinstance(answer, pb.PredictResponse):
        return kit.array_of(answer.outputs["y"])
    return oip_kit.arrays_of(answer)["y"]


def infer_request(request: pb.PredictRequest) -> oip_pb.ModelInferRequest:
    """The same request in the Open Inference Protocol."""
    tensor = request.inputs["x"]
    name = tensor_pb2.DataType.Name(tensor.datatype)
    datatype = next(each for each in DataType if each.label == name)
    parameters = {"priority": oip_pb.InferParameter(uint64_param=2 - request.priority)}
    if request.HasField("timeout"):
        parameters["timeout"] = oip_pb.InferParameter(int64_param=request.timeout.ToMicroseconds())
    return oip_kit.request(
        request.model, datatype=datatype, parameters=parameters, id=str(request.tag), x=kit.array_of(tensor)
    )


def disagreements(ends: Counter[tuple[str, str]], seen: kit.Metrics) -> list[str]:
    """What a server's metrics say otherwise than its callers, of whom it had no others.

    What a caller gave up may have come to the server or not, and have ended there before or not.
    """
    found = []
    told = Counter({(MODEL_OF[k], code): 0 for k in MODEL_OF for code in TOLD_BY_SERVER})
    for (kind, code), count in ends.items():
        if code in TOLD_BY_SERVER:
            told[MODEL_OF[kind], code] += count
    for (model, code), least in told.items():
        counted = seen.sum("requests_total", model=model, code=code)
        if counted < least or (model == "sums" and counted != least):
            found.append(f"{code} of {model}: {counted:.0f} counted, {least} came")
    given_up = sum(ends[key] for key in ends if key[1] in ("CANCELLED", "DEADLINE_EXCEEDED", "cancelled"))
    counted = seen.sum("requests_total")
    if not ends.total() - given_up <= counted <= ends.total():
        found.append(f"{counted:.0f} requests counted, {ends.total()} sent, {given_up} of them given up")
    return found
