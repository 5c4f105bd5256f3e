"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from typing import Literal, overload
from weakref import WeakSet

import grpc

from penstock_client._aio_calls import close_channel
from penstock_client._aio_connection import Connection
from penstock_client._aio_stream import Stream, each
from penstock_client._arguments import check_text, check_version
from penstock_client._deadline import DEFAULT_TIMEOUT, Deadline, seconds
from penstock_client._errors import NotFound, PenstockError
from penstock_client._frames import Extra, loose
from penstock_client._messages import COMPLETION_ORDER, DEFAULT_TARGET, Signature
from penstock_client._models import model_info
from penstock_client._mux import MAX_PENDING, Unsupported
from penstock_client._requests import Metadata, Transport, checked, deadline_of
from penstock_client._stream import StreamState, check_stream
from penstock_client._types import Inputs, Item, ModelInfo, Prediction
from penstock_client._types import Sequence as Step
from penstock_proto.v1 import model_pb2


class AsyncClient(Connection):
    """A connection to a Penstock server, for asyncio. Make it inside the event loop that uses it.

    It connects at its first use, and reconnects automatically.

    Args:
        target: the server's address, "host:port".
        credentials: for TLS, such as `grpc.ssl_channel_credentials()`; None for plain text.
        options: gRPC channel options; they override the client's own, which remove the limit on the size
            of messages.
        timeout: the default timeout of every call, in seconds; None for no limit. With a timeout that is
            given, here or for a call, a server that is gone is waited for until then, but for a model's
            first call, which asks for its description.
        metadata: sent with every call: a mapping, or (key, value) pairs.
        transport: how `predict` sends requests: "unary", one call each; "stream", all over one shared
            stream; "auto", the first with a call, later ones over the stream unless they are large.
        merge_rows: send concurrent predictions of one model as one request of several rows.
        max_pending: most predictions that are in flight or wait to be sent on the stream, 1 to 16256;
            further callers wait.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: the timeout is not above 0, the target is a URL, or one of the last three is invalid.
        RuntimeError: no event loop runs here.
    """

    def __init__(  # noqa: PLR0913 - the options of a client
        self,
        target: str = DEFAULT_TARGET,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        options: Iterable[tuple[str, object]] = (),
        timeout: float | None = DEFAULT_TIMEOUT,
        metadata: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]] = (),
        transport: Transport = "auto",
        merge_rows: bool = False,
        max_pending: int = MAX_PENDING,
    ) -> None:
        super().__init__(target, credentials, options, timeout, metadata, transport, merge_rows, max_pending)
        # [async
        self._streams: WeakSet[Stream] = WeakSet()
        # ]

    async def predict(  # noqa: PLR0913 - the fields of a request
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        id: str = "",
        metadata: Metadata | None = None,
        sequence: Step | str | None = None,
        extra: Extra = "error",
    ) -> Prediction:
        """Makes one prediction, of one or several rows.

        Args:
            model: the model's name.
            inputs: every input of the model by name: arrays of its rank, or columns of one value per row; or
                numbers, bools, `str`, `bytes` and lists of them, where a missing batch axis is added. A
                DataFrame, an Arrow table or a list of records gives the columns of all inputs; a vector `x`
                may have columns `x.0`, `x.1` and so on. Values are cast to the model's datatype if that loses
                nothing; Python's floats and float64 may be rounded. A missing value is NaN where the input is
                floating-point, and an error elsewhere.
            version: a version number or a label; empty for the default.
            outputs: the outputs to return; None for all.
            timeout: in seconds; None for the client's default, `math.inf` for no limit.
            priority: above 0 runs before normal requests, below 0 after them.
            id: returned in the answer.
            metadata: of this request, such as a trace context: headers of a unary call, and a part of the
                request on a stream. A mapping or pairs; keys are lower-case, values printable ASCII.
            sequence: the sequence of this step, for a model with a state; an id alone continues it.
                Await each step before the next one is sent: otherwise their order is not defined.
            extra: "ignore" leaves out inputs that the model does not take, "error" rejects them.

        Returns:
            The outputs by name; numbers are read-only arrays.

        Raises:
            InvalidInput: the inputs do not fit the model.
            NotFound: there is no such model, version or output.
            DeadlineExceeded: the timeout passed.
            Unavailable: there is no server, or the model is not ready.
            FailedPrecondition: the sequence has no state: it never began, has ended or has expired; or it
                belongs to another client.
            PenstockError: anything else; see its subclasses.
            ValueError: the timeout is not above 0, the priority has more than 32 bits, the metadata cannot
                be headers, the sequence's id is empty, or `extra` is unknown.
            TypeError: an argument has another type, such as an id that is not a text.
        """
        # long: most predictions pass through no other coroutine
        try:
            known = self._requests.known(model, version, outputs, priority)
            if sequence is not None:
                known = known.of_step(sequence)
            if extra != "error":
                inputs = loose(inputs, extra)
            deadline = Deadline(self._timeout, model) if timeout is None else deadline_of(timeout, model)
            # [async
            sent = None if metadata else self._sent(known, inputs, id, deadline)
            if sent is not None:
                signature, written, future = sent
                failed: PenstockError | Unsupported | None = None
                if future is not None:  # awaiting here saves most predictions a second coroutine
                    try:
                        answered = await future
                    except asyncio.CancelledError:
                        self._shared_stream().abandon()
                        raise
                    except (PenstockError, Unsupported) as error:
                        failed = error  # it may be possible to send it again
                    else:
                        if type(answered) is Prediction:
                            answered.id = id
                        else:
                            answered = known.read(answered, written[0] if written else b"", id)
                        return answered
                return await self._predicted(known, signature, written, id, deadline, None, failed)
            self._check_loop()
            # ]
            signature, written = await self._prepare(known.key, self._requests.encode, inputs, deadline)
            return await self._predicted(known, signature, written, id, deadline, checked(metadata, id))
        except PenstockError as error:
            error.id = id
            raise

    @overload
    def predict_stream(
        self,
        model: str,
        inputs: Iterable[Item] | AsyncIterable[Item],
        *,
        ordered: bool = True,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        errors: Literal["raise"] = "raise",
        max_in_flight: int = 256,
        extra: Extra = "error",
    ) -> AsyncGenerator[Prediction, None]: ...

    @overload
    def predict_stream(
        self,
        model: str,
        inputs: Iterable[Item] | AsyncIterable[Item],
        *,
        ordered: bool = True,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        errors: Literal["return"],
        max_in_flight: int = 256,
        extra: Extra = "error",
    ) -> AsyncGenerator[Prediction | PenstockError, None]: ...

    def predict_stream(  # noqa: PLR0913 - the fields of a request
        self,
        model: str,
        inputs: Iterable[Item] | AsyncIterable[Item],
        *,
        ordered: bool = True,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        errors: Literal["raise", "return"] = "raise",
        max_in_flight: int = 256,
        extra: Extra = "error",
    ) -> AsyncGenerator[Prediction, None] | AsyncGenerator[Prediction | PenstockError, None]:
        """Makes a prediction for every item of an iterable, over one call.

        Stopping early cancels the call: at once with `aclose()` on the generator (or
        `contextlib.aclosing`), and after a plain `break` as soon as the generator is no longer referred
        to.

        Args:
            model: the model's name.
            inputs: each item is the inputs of one prediction, as for `predict`; or a pair of these and a
                `Sequence`, as in `predict`, where an empty id means the stream's own sequence; or a
                `StreamItem`, which has an id. A plain iterable is read on the event loop, so it should not
                block; use an asynchronous one if items have to be waited for.
            ordered: whether the results come in the order of the items, or as they are ready.
            version: a version number or a label; empty for the default.
            outputs: the outputs to return; None for all.
            timeout: of each item at the server, in seconds; None for the client's default, `math.inf` for no
                limit.
            priority: above 0 runs before normal requests, below 0 after them.
            errors: "raise" ends the stream at the first item that fails, with its error; "return"
                yields the error in the item's place and continues.
            max_in_flight: most unanswered items that are read from the iterable; at least 1.
            extra: as for `predict`.

        Returns:
            An asynchronous generator of the results. Of each, also of errors, `id` is that of its item, and
            `index` the position of its item.

        Raises:
            PenstockError: the whole call failed, after all earlier answers have been yielded; or, with
                `errors="raise"`, an item failed.
            ValueError: the timeout, `errors`, `extra` or `max_in_flight` is out of range.
            TypeError: `inputs` is not iterable, or is one table, dict or text; or another argument has a
                wrong type.
            Exception: whatever the iterable raised, after the results of the items before.
        """
        check_stream(inputs, errors, max_in_flight)
        loose(inputs, extra)
        encode = Signature.write_item if extra == "error" else Signature.write_loose_item
        limit = seconds(timeout, self._timeout)
        known = self._requests.known(model, version, outputs, priority)

        async def prepare(item: Item) -> tuple[Signature, list[bytes]]:
            return await self._prepare(known.key, encode, item, Deadline(limit, model))

        async def start() -> None:
            if self._signatures.get(known.key) is None:
                await self._fetch(known.key, Deadline(limit, model), None)

        state = StreamState(known, limit, self._signatures, ordered, max_in_flight)
        metadata = (*self._caller, *self._metadata)
        if not ordered:
            metadata = (*metadata, COMPLETION_ORDER)
        stream = Stream(state, each(inputs), prepare)
        # [async
        self._streams.add(stream)
        # ]
        return stream.results(self._predict_stream, metadata, start, errors == "raise")

    async def models(self) -> list[ModelInfo]:
        """All versions of all models, by name and version.

        Raises:
            PenstockError: the call failed.
        """
        answered = await self._call(self._list_models, model_pb2.ListModelsRequest())
        return [model_info(model) for model in answered.models]

    async def model(self, name: str, version: str | int = "") -> ModelInfo:
        """One version of one model; the default one if no version is given.

        Raises:
            NotFound: there is no such model or version; the message names what exists.
            PenstockError: the call failed.
            TypeError: an argument has a wrong type.
        """
        check_text("name", name)
        check_version(version)
        request = model_pb2.GetModelRequest(model=name, version=str(version))
        return model_info(await self._call(self._get_model, request))

    async def health(self, model: str = "") -> str:
        """Whether the server, or one of its models, accepts requests.

        Returns:
            "SERVING", "NOT_SERVING", or "UNKNOWN" if the server has no such model.

        Raises:
            Unavailable: there is no server.
            PenstockError: the call failed.
            TypeError: the model is not a text.
        """
        check_text("model", model)
        try:
            state: str = await self._call(self._check, model)
        except NotFound:
            return "UNKNOWN"
        return state

    async def close(self) -> None:
        """Closes the connection; calls in flight end with `Cancelled`.

        In a forked process it leaves the parent's connection alone, and does nothing.
        """
        if self._is_forked:
            return
        # [async
        for stream in self._streams:  # gRPC does not end these by itself
            stream.cancel()
        # ]
        if self._shared is not None:
            await self._shared.close()
        await close_channel(self._channel)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
