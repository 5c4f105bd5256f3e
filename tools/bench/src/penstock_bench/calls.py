"""The four modes of sending requests: unary, stream, multiplexed and merged.

`start` takes a job. When it has an outcome, `settle` is called, which the pacing sets; it returns the next
job, or None. Everything runs on one event loop, without unnecessary task switches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import grpc
import grpc.aio

from penstock.core.tensors import Array
from penstock_bench.codecs import Ask, Codec
from penstock_bench.tally import Outcome
from penstock_client._messages import channel_options

Mode: TypeAlias = Literal["unary", "stream", "multiplexed", "merged"]

Job: TypeAlias = tuple[float, int]
"""The intended send time of a request, by the monotonic clock, and the number of its payload."""

Settle: TypeAlias = Callable[[Job, Outcome], Job | None]

BROKEN_UNDER_AIO = "Internal error from Core"
"""The text of grpc.aio, with INTERNAL, for a call that failed before a status came. It is not from the
server, and would look like a failure of the model."""
BACKOFF_SECONDS = 0.01
"""The pause after a request that found no server: without it, requests would fail in a tight loop."""

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Processes, and runs one after another, must not share connections.
    ("grpc.use_local_subchannel_pool", 1),
)

_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.name


class Calls(Protocol):
    """The base class of the modes of sending requests.

    Attributes:
        settle: called with every job and its outcome; returns the next job, or None.
    """

    settle: Settle

    def start(self, job: Job) -> None:
        """Sends a request, or queues it if it has to wait for others; does not block."""

    async def abandon(self) -> None:
        """Cancels all unanswered requests; they are not settled."""

    async def close(self) -> None:
        """Cancels everything and closes the connection."""


def _unsettled(job: Job, outcome: Outcome) -> Job | None:
    return None


class _Tasks:
    """A mode with a task for each request in flight; a task continues with the next request."""

    def __init__(self) -> None:
        self.settle: Settle = _unsettled
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, job: Job) -> None:
        """Sends a request."""
        task = asyncio.get_running_loop().create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def abandon(self) -> None:
        """Cancels all unanswered requests."""
        self.settle = _unsettled
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: Job) -> None:
        following: Job | None = job
        while following is not None:
            outcome = await self._call(following[1])
            if outcome.code == _UNAVAILABLE:
                await asyncio.sleep(BACKOFF_SECONDS)
            following = self.settle(following, outcome)

    async def _call(self, index: int) -> Outcome:
        raise NotImplementedError


class UnaryCalls(_Tasks):
    """A call for each request.

    Args:
        target: the server, as "host:port".
        codec: the protocol.
        requests: the encoded requests.
        timeout: the deadline of a call, in seconds.
    """

    def __init__(self, target: str, codec: Codec, requests: Sequence[bytes], timeout: float) -> None:
        super().__init__()
        self._channel = grpc.aio.insecure_channel(target, channel_options(target, CHANNEL_OPTIONS))
        self._method: Any = self._channel.unary_unary(codec.unary)
        self._read = codec.answer
        self._requests = requests
        self._timeout = timeout

    async def close(self) -> None:
        """Cancels everything and closes the connection."""
        await self.abandon()
        await self._channel.close()

    async def _call(self, index: int) -> Outcome:
        try:
            return self._read(await self._method(self._requests[index], timeout=self._timeout))
        except grpc.aio.AioRpcError as error:
            return Outcome(error.code().name, error.details() or "")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return Outcome(grpc.StatusCode.CANCELLED.name, "the server cancelled the call")


class ClientCalls(_Tasks):
    """`AsyncClient.predict` for each request, as programs call it.

    Args:
        target: the server, as "host:port".
        ask: the options of the requests.
        inputs: the inputs of the requests.
        merge_rows: whether the client sends the rows of concurrent calls as one request.
    """

    def __init__(
        self, target: str, ask: Ask, inputs: Sequence[Mapping[str, Array]], merge_rows: bool
    ) -> None:
        from penstock_client import AsyncClient, PenstockError

        super().__init__()
        self._client = AsyncClient(target, transport="stream", merge_rows=merge_rows)
        self._error = PenstockError
        self._inputs = inputs
        self._model = ask.model
        self._settings: dict[str, Any] = {
            "version": ask.version,
            "outputs": list(ask.outputs) or None,
            "timeout": ask.timeout,
        }

    async def close(self) -> None:
        """Cancels everything and closes the connection."""
        await self.abandon()
        await self._client.close()

    async def _call(self, index: int) -> Outcome:
        try:
            answer = await self._client.predict(self._model, self._inputs[index], **self._settings)
        except self._error as error:
            return Outcome(error.status.name, str(error))
        timing = answer.timing
        return Outcome("", "", timing.queue_seconds, timing.compute_seconds, timing.batch_rows)


class StreamCalls:
    """One stream for all requests, one in each message, answered in order.

    If a stream breaks, its unanswered requests fail, and later requests use a new one.

    Args:
        target: the server, as "host:port".
        codec: the protocol.
        messages: the encoded requests.
    """

    def __init__(self, target: str, codec: Codec, messages: Sequence[bytes]) -> None:
        self.settle: Settle = _unsettled
        self._channel = grpc.aio.insecure_channel(target, channel_options(target, CHANNEL_OPTIONS))
        self._method: Any = self._channel.stream_stream(codec.stream)
        self._read = codec.answers
        self._messages = messages
        self._waiting: deque[Job] = deque()
        self._sent: deque[Job] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, job: Job) -> None:
        """Queues a request after those that wait to be sent on the stream."""
        self._waiting.append(job)
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._serve())

    async def abandon(self) -> None:
        """Cancels all unanswered requests, and the stream with them."""
        self.settle = _unsettled
        await _ended(self._task)
        self._task = None
        self._waiting.clear()
        self._sent.clear()

    async def close(self) -> None:
        """Cancels everything and closes the connection."""
        await self.abandon()
        await self._channel.close()

    async def _serve(self) -> None:
        while True:
            call = self._method()
            writer = asyncio.get_running_loop().create_task(self._write(call))
            try:
                await self._take_answers(call)
                code, detail = await call.code(), await call.details()
            finally:
                call.cancel()
                await _ended(writer)
            await asyncio.sleep(BACKOFF_SECONDS)
            self._fail(_outcome_of_stream(code, detail))

    async def _write(self, call: Any) -> None:
        while True:
            while self._waiting:
                job = self._waiting.popleft()
                self._sent.append(job)
                try:
                    await call.write(self._messages[job[1]])
                except (grpc.RpcError, asyncio.InvalidStateError):
                    return  # the stream has ended; the reader gets the reason
            self._wake.clear()
            await self._wake.wait()

    async def _take_answers(self, call: Any) -> None:
        """Settles answered requests until the stream ends."""
        while True:
            try:
                message = await call.read()
            except grpc.aio.AioRpcError:
                return
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                return
            if message is grpc.aio.EOF:
                return
            for outcome in self._read(message):
                if not self._sent:  # more answers than requests: the stream is broken
                    call.cancel()
                    return
                self._settle_one(self._sent.popleft(), outcome)

    def _fail(self, outcome: Outcome) -> None:
        for _ in range(len(self._sent)):
            self._settle_one(self._sent.popleft(), outcome)

    def _settle_one(self, job: Job, outcome: Outcome) -> None:
        following = self.settle(job, outcome)
        if following is not None:
            self._waiting.append(following)
            self._wake.set()


def _outcome_of_stream(code: grpc.StatusCode, detail: str | None) -> Outcome:
    if code is grpc.StatusCode.OK:
        return Outcome(_UNAVAILABLE, "the server ended the stream")
    if (code, detail) == (grpc.StatusCode.INTERNAL, BROKEN_UNDER_AIO):
        return Outcome(_UNAVAILABLE, "the connection broke")
    return Outcome(code.name, detail or "")


async def _ended(task: asyncio.Task[Any] | None) -> None:
    """Ends a task and waits until it has."""
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def calls_of(mode: Mode, target: str, codec: Codec, ask: Ask, payloads: Sequence[Any]) -> Calls:
    """The calls of a mode; must be made on the event loop that uses them."""
    if mode == "unary":
        return UnaryCalls(target, codec, [codec.request(each) for each in payloads], ask.timeout)
    if mode == "stream":
        return StreamCalls(target, codec, [codec.message(each) for each in payloads])
    inputs = [{name: tensor.array() for name, tensor in each.tensors.items()} for each in payloads]
    return ClientCalls(target, ask, inputs, merge_rows=mode == "merged")
