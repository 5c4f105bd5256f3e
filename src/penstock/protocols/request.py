"""The life of a request, whatever its protocol: decoded, submitted, perhaps cancelled, answered once.

    message ── recognised ──┬── submitted ── run ── encoded ── sent
                └ decoded ──┘

A request comes on a unary call or on a stream. This is its origin, and its answer goes back there.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from functools import partial
from typing import TypeAlias

from typing_extensions import override

from penstock.core.caller import Caller
from penstock.core.errors import InvalidRequest, ModelFailed, RequestError
from penstock.core.large_bytes import HUGE_BYTES
from penstock.core.request import Flush, Request, Response, Step
from penstock.core.tensors import Array
from penstock.models.model import Model
from penstock.protocols.answer_sizes import AnswerSizes, sizes_of
from penstock.protocols.answers import Account
from penstock.protocols.asked import asked_of, note_missed
from penstock.protocols.codec import Asked, Decoded
from penstock.protocols.early import NO_INPUTS, answer_without_rows, rejects
from penstock.protocols.fast_path.known_requests import Found, Reading, reading_of
from penstock.protocols.send_buffer import SMALL_BYTES, SMALL_OF_MANY_BYTES
from penstock.protocols.sequence_ids import StepStream, caller_of, known_step
from penstock.protocols.service import Service, read_from
from penstock.protocols.tensors import empty_outputs
from penstock.scheduling.execution.failures import cancelled_by_tag
from penstock.transport.grpc.call import OK, Ignoring, ServerCall, Status

Part: TypeAlias = tuple[bytes, int]
"""A serialized message, and how many results are in it."""


class ProtocolRequest(Request):
    """A request of any protocol, with the origin that its answer goes back to.

    Args:
        origin: the unary call or the stream that it came on.
        model: the model that answers.
        asked: its content besides the inputs.
        inputs: its inputs, by name.
        id, tag: as it was sent; "" and 0 for none.
        size: the size of its message in bytes.
        arrived: the time of arrival, by `time.monotonic()`.
        sequence: its step of a sequence, if the model has a state.
        seconds: its own timeout in seconds; infinity for no limit.

    Attributes:
        form: the format of its answer.
        parts: on a stream: its result, or the status that ends the stream there; None until it is known.
    """

    __slots__ = ("form", "id", "model", "origin", "parts", "tag")

    def __init__(  # noqa: PLR0913 - what makes up a request, in one place
        self,
        origin: Origin,
        model: Model,
        asked: Asked,
        inputs: Mapping[str, Array],
        id: str,
        tag: int,
        size: int,
        arrived: float,
        sequence: Step | None,
        seconds: float,
    ) -> None:
        _, outputs, rows, shape_key, _, priority, form, metadata = asked
        trace, key = origin.carried(metadata) if origin.service.reads else (None, None)
        deadline = arrived + seconds
        if origin.call.deadline < deadline:
            deadline = origin.call.deadline
        Request.__init__(
            self, inputs, outputs, rows, shape_key, origin.rpc, arrived, deadline, priority, size, sequence,
            None, trace, key,
        )  # fmt: skip
        self.origin = origin
        self.model = model
        self.id = id
        self.tag = tag
        self.form = form
        self.parts: Sequence[Part] | Status | None = None

    @property
    @override
    def sender(self) -> object:
        return self.origin.call.peer()

    @override
    def reply(self, result: Response | RequestError) -> Flush | None:
        origin = self.origin
        if not isinstance(result, Response):
            return origin.answered(self, result)
        if (self.form or self.model.has_text_outputs) and origin.service.is_long_answer(result, self.form):
            origin.service.answer_elsewhere(partial(self._answer, result))
            return None
        return origin.answered(self, origin.service.codec.encode(result, self))

    def _answer(self, response: Response) -> Flush | None:
        """Writes the answer on a worker."""
        service = self.origin.service
        answer: bytes | RequestError = ModelFailed("the answer could not be sent; see the server's log")
        try:
            answer = service.codec.encode(response, self)
        except Exception as error:
            service.failed(error)
        return self.origin.answered(self, answer)

    def learn(self, size: int) -> Model | None:
        """Takes the bytes of its answer; see `StreamItem`."""
        return self.model if sizes_of(self.model).learn(self, size) else None

    def counted(self) -> tuple[Account, object]:
        """Where its answer counts, and what stands for it there."""
        return self.origin.open_account(), self

    def cancel(self) -> None:
        """Drops it, because its answer is no longer needed."""
        self.origin.service.engine.cancel(self.model, self)

    def cancel_tags(self, tags: Set[int]) -> None:
        """Answers it with CANCELLED and drops it, if its tag is among these."""
        if self.tag in tags:
            self.reply(cancelled_by_tag())
            self.cancel()


class Origin(ABC):
    """Where requests come from and their answers go to: a unary call or a stream.

    Attributes:
        service: the service that was called.
        call: the call.
        rpc: the name of the RPC, for metrics.
        account: counts its answers; None if none of them was large so far.
        is_accepted: whether its message came before the server began to stop. Its requests are run then, even
            if they are begun later, because the message is handled in turns.
    """

    __slots__ = ()

    is_accepted = False

    service: Service
    call: ServerCall
    rpc: str
    account: Account | None

    @property
    def stream(self) -> StepStream | None:
        """The stream, for steps of sequences; None for a unary call."""
        return None

    @property
    def step_caller(self) -> Caller:
        """Who sends its steps of sequences; looked up for these only."""
        return caller_of(self.call)

    @abstractmethod
    def begun(self, request: ProtocolRequest) -> None:
        """Called before a request is submitted."""

    @abstractmethod
    def answered(self, request: ProtocolRequest, answer: bytes | RequestError) -> Flush | None:
        """Receives the one answer to a request, on any thread; see `Request.reply`."""

    @abstractmethod
    def refused(self, error: RequestError, id: str, tag: int) -> None:
        """Receives the error of a request that is rejected before it is submitted, with its id and tag."""

    @abstractmethod
    def carried(self, metadata: Mapping[str, str]) -> tuple[str | None, str | None]:
        """The trace and the route key of a request, as far as the service reads them.

        Args:
            metadata: the metadata in the request's message.
        """

    def submit(self, item: object, model: Model, request: Request) -> None:
        """Submits a request now, or once there is room for its answer.

        Args:
            item: the request, or what stands for it when its answer is there.
            model: the model that answers.
            request: the request.
        """
        sizes = model.attachments.get(AnswerSizes) or sizes_of(model)
        account = self.account
        size, most = 0, request.rows * sizes.most
        if most > SMALL_BYTES and most > SMALL_OF_MANY_BYTES * request.count:
            size = sizes.expected(request.outputs, request.rows, request.shape_key)
        if size or (account is not None and (account.held or account.submitting)):
            self.service.answers.submit(self.open_account(), item, model, request, size, self.is_accepted)
        else:
            self.service.engine.submit(model.batcher, request, self.is_accepted)

    @abstractmethod
    def open_account(self) -> Account:
        """What counts its answers; made when it is first needed."""

    def begin_known(self, data: bytes, found: Found) -> bool:
        """Begins a request that matches a known request.

        Args:
            data: its bytes.
            found: the known request, and what differs from it.

        Returns:
            Whether it has begun; if not, it must be decoded.
        """
        known, id, tag, seconds, places = found
        service = self.service
        model = service.router.targets.get(known.asked.route)
        if model is None:
            return False
        if model.attachments.get(Reading) is not known.reading and reading_of(model) is not known.reading:
            return False
        sequence = None
        if model.sequence_state is not None:
            sequence = known_step(model, self, known.sequence_of(data, places))
            if sequence is None:
                return False
        asked = known.asked
        if service.reads:
            asked = asked._replace(metadata=known.metadata_of(data, places))
        request = ProtocolRequest(
            self, model, asked, NO_INPUTS, id, tag, len(data), time.monotonic(), sequence, seconds
        )
        if model.batcher.rejecting and rejects(self, model, request):
            return True
        inputs = known.inputs_of(data, places)
        if inputs is None:
            return False
        request.inputs = inputs
        self.begun(request)
        self.submit(request, model, request)
        return True

    def begin_decoded(self, decoded: Decoded, data: bytes | None) -> None:
        """Begins a parsed request, or rejects it.

        Args:
            decoded: the request.
            data: its bytes, so that it can become a known request; None if they are not available.
        """
        service, arrived = self.service, time.monotonic()
        model, models = None, service.router.targets
        try:
            model = service.engine.route(decoded.model, decoded.version)
            asked, inputs, sequence, learnable = asked_of(decoded, model, self, bool(service.reads))
            nothing = empty_outputs(model, asked.outputs, inputs) if not asked.rows else None
        except RequestError as error:
            service.not_begun(self.rpc, error, data, models, arrived, model)
            if model is not None and not decoded.names_sequence:
                note_missed(model, self.stream)
            self.refused(error, decoded.id, decoded.tag)
            return
        request = ProtocolRequest(
            self, model, asked, inputs, decoded.id, decoded.tag, decoded.size, arrived, sequence,
            asked.timeout_seconds,
        )  # fmt: skip
        self.begun(request)
        if nothing is not None:
            answer_without_rows(request, model, nothing)
            return
        if learnable and data is not None and service.known_requests.is_time(arrived):
            service.known_requests.learn(data, asked, inputs, model, arrived, decoded.names_sequence)
        self.submit(request, model, request)


class UnaryCall(Origin, Ignoring):
    """A unary call: one request message in, the answer and the status out in one step.

    Args:
        service: the service that was called.
        rpc: the name of the RPC.
        call: the call.
    """

    __slots__ = ("_closed", "_request", "_taking", "account", "call", "rpc", "service")

    def __init__(self, service: Service, rpc: str, call: ServerCall) -> None:
        self.service = service
        self.rpc = rpc
        self.call = call
        self.account: Account | None = None
        self._request: ProtocolRequest | None = None
        self._taking = self._closed = False

    @override
    def received(self, message: bytes) -> None:
        service = self.service
        if len(message) > service.offload_bytes:
            service.offload(self.call, message, self._take)
            return
        if service.known_rejections.last_matched and service.rejects(message, self.rpc, self.call):
            return
        found = service.known_requests.find(message)
        if found is None or not self.begin_known(message, found):
            self._take_new(message)

    @override
    def closed(self, cancelled: bool) -> None:
        self._closed = True
        if not self._taking:  # else the thread that decodes the message drops it after the submit
            request, self._request = self._request, None  # a reference cycle: it refers to this
            if cancelled and request is not None:
                request.cancel()
        if self.account is not None:
            self.service.answers.close(self.account)

    @override
    def begun(self, request: ProtocolRequest) -> None:
        self._request = request

    @override
    def answered(self, request: ProtocolRequest, answer: bytes | RequestError) -> None:
        if isinstance(answer, bytes):
            if len(answer) > SMALL_BYTES or self.account is not None:
                self._count(request, len(answer))
            # It was made for this call alone.
            finish = self.call.finish_own if len(answer) >= HUGE_BYTES else self.call.finish
            finish(OK, answer)
        else:
            self.call.finish(self.service.codec.error(answer))

    @override
    def open_account(self) -> Account:
        if self.account is None:
            self.account = Account(self.call.peer(), self.service.answers.limits.stream)
            if self._closed:  # while a worker had the message: nothing else would close it
                self.service.answers.close(self.account)
        return self.account

    def _count(self, request: ProtocolRequest, size: int) -> None:
        """Counts the answer until the call is over."""
        answers = self.service.answers
        answers.answered(self.open_account(), request, size if size > SMALL_BYTES else 0)
        answers.take_back(request.learn(size))

    @override
    def refused(self, error: RequestError, id: str, tag: int) -> None:
        service = self.service
        last, status = service.last_refused
        self.call.finish_in_turn(status if last is error else service.status_of(error))

    @override
    def carried(self, metadata: Mapping[str, str]) -> tuple[str | None, str | None]:
        return read_from(dict(self.call.metadata), self.service)

    def _take(self, data: bytes) -> None:
        """Handles a message on a worker."""
        self._taking = True
        found = self.service.known_requests.find(data)
        if found is not None and self.begin_known(data, found):
            self._took()
        else:
            self._take_new(data)

    def _take_new(self, data: bytes) -> None:
        """Handles a message that matches no known request."""
        self._taking, service = True, self.service
        if service.rejects(data, self.rpc, self.call):
            pass  # as it did an earlier one with the same name of a model
        elif (error := service.too_many_names(data)) is not None:
            self._reject(error)
        elif service.is_much_work(data):
            service.offload(self.call, data, self._decode)
        else:
            self._decode(data)

    def _decode(self, data: bytes) -> None:
        service = self.service
        try:
            decoded = service.codec.decode(data)
        except InvalidRequest as error:
            self._reject(error)
            return
        self.begin_decoded(decoded, data)
        self._took()

    def _reject(self, error: InvalidRequest) -> None:
        self.service.telemetry.failed(self.rpc, error)
        self.refused(error, "", 0)

    def _took(self) -> None:
        """The message has been handled."""
        self._taking = False
        if self._closed:  # during decoding on a worker
            request, self._request = self._request, None  # a reference cycle
            if request is not None:
                request.cancel()
