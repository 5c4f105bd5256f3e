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

from penstock.tensors import DataType
from penstock_proto.v1 import prediction_pb2 as pb
from server import kit

OK, CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED
ALLOWED = {
    "fails": {OK, CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED},
    "slow": {OK, CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED},
    "bad": {CANCELLED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DEADLINE_EXCEEDED},
}
"""How requests may end, besides by a refusal for want of room or time."""
REFUSED = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
IN_FLIGHT = 50


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
        """Sends so many, and waits until every one has ended."""
        with kit.connect(self._target) as channel:
            stub = kit.stub_of(channel)
            left = requests
            while left > 0:
                count = min(left, self._chance.randint(1, IN_FLIGHT))
                left -= count
                if self._chance.random() < 0.5:
                    self._calls(stub, count)
                elif self._chance.random() < 0.8:
                    self._stream(channel, count)
                else:
                    self._steps(stub, count)

    def _calls(self, stub: Any, count: int) -> None:
        """Unary calls at once, some of which are cancelled."""
        asked = [self._request() for _ in range(count)]
        timeouts = [self._chance.choice((kit.BOUND, kit.BOUND, 0.001, 0.01, 0.05)) for _ in asked]
        done: list[threading.Event] = [threading.Event() for _ in asked]
        calls = []
        for (_, request), timeout, event in zip(asked, timeouts, done, strict=True):
            call = stub.Predict.future(request, timeout=timeout)
            call.add_done_callback(lambda _, event=event: event.set())
            calls.append(call)
        for call in calls:
            if self._chance.random() < 0.2:
                call.cancel()
        for (kind, request), call, event in zip(asked, calls, done, strict=True):
            self._check(event.wait(kit.BOUND), f"a call did not end: {kind}")
            code = call.code()
            self._ended(kind, request, code, call.result() if code is OK else None)

    def _stream(self, channel: grpc.Channel, count: int) -> None:
        """Requests of one stream, which may be cancelled on the way."""
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
        stream.half_close()
        results = stream.rest()
        self._check([each.tag for each in results] == list(range(count)), f"tags of {count}: {len(results)}")
        codes = {code.value[0]: code for code in grpc.StatusCode}
        for (kind, request), result in zip(asked, results, strict=False):
            code = codes[result.error.code] if result.HasField("error") else OK
            self._ended(kind, request, code, result.response)

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
            got = int(kit.array_of(answer.outputs["y"]).item())
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

    def _ended(self, kind: str, request: pb.PredictRequest, code: grpc.StatusCode, answer: Any) -> None:
        self.ends[kind, code.name] += 1
        self._check(code in ALLOWED[kind] | REFUSED, f"{kind} ended with {code}")
        if code is OK:
            sent, got = kit.array_of(request.inputs["x"]), kit.array_of(answer.outputs["y"])
            self._check(np.allclose(sent, got), f"{kind}: {got.tolist()} for {sent.tolist()}")
            self._check(kind != "fails" or sent.max() < 100, "an answer to what the model fails on")

    def _check(self, good: Any, words: str) -> None:
        if not good:
            self.problems.append(words)


def run(target: str, requests: int, callers: int = 4, seed: int = 0) -> Sequence[Caller]:
    """Several callers at once, with so many requests in all."""
    made = [Caller(target, seed + number) for number in range(callers)]
    threads = [threading.Thread(target=each.run, args=(requests // callers,)) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made
