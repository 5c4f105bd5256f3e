"""What the threaded client does on its channel; the client itself is the face of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from typing import Any, TypeVar
from weakref import finalize

import grpc

from penstock_client import _health
from penstock_client._errors import DeadlineExceeded, InvalidInput, Unavailable, from_call, if_closed
from penstock_client._merge import Member
from penstock_client._messages import (
    BY_ID,
    COMPLETION_ORDER,
    Batch,
    Deadline,
    Key,
    Signature,
    Signatures,
    channel_options,
    seconds,
)
from penstock_client._mux import PROBE_SECONDS, Unsupported, may_ask_again
from penstock_client._requests import PREDICT, PREDICT_STREAM, Requests, Transport
from penstock_client._sync_mux import SharedStream
from penstock_client._types import Prediction
from penstock_client._wire import Template, extras
from penstock_proto.v1 import model_pb2, model_pb2_grpc, prediction_pb2_grpc

S = TypeVar("S")
T = TypeVar("T")


class Connection:
    """A channel, and the ways in which requests travel on it.

    Args:
        target, credentials, options, timeout, metadata, transport, merge_rows, max_pending: as the client
            explains them.
    """

    def __init__(  # noqa: PLR0913 - what can be set
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Iterable[tuple[str, object]],
        timeout: float | None,
        metadata: Iterable[tuple[str, str | bytes]],
        transport: Transport,
        merge_rows: bool,
        max_pending: int,
    ) -> None:
        self._timeout = seconds(timeout, None)
        self._requests = Requests(transport, merge_rows, max_pending)
        self._max_pending = max_pending
        self._shared: SharedStream | None = None
        self._metadata = tuple(metadata)
        self._signatures = Signatures()
        self._fetching = Lock()
        settings = channel_options(options)
        self._channel: Any = (
            grpc.insecure_channel(target, settings)
            if credentials is None
            else grpc.secure_channel(target, credentials, settings)
        )
        predictions: Any = prediction_pb2_grpc.PredictionServiceStub(self._channel)  # type: ignore[no-untyped-call]
        models: Any = model_pb2_grpc.ModelServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._predict_stream = predictions.PredictStream
        # Bytes in, bytes out: `_wire` writes and reads them.
        self._predict = self._channel.unary_unary(PREDICT)
        self._get_model, self._list_models = models.GetModel, models.ListModels
        self._check = self._channel.unary_unary(_health.METHOD, _health.encode, _health.decode)

    def _answered(  # noqa: PLR0913 - the fields of a request
        self,
        template: Template,
        signature: Signature,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
    ) -> Prediction | bytes:
        """The answer to a request, whichever way it travels: serialized, or part of a merged one."""
        requests = self._requests
        if not requests.streams(written):
            return self._unary(template, written, id, deadline, metadata)
        if requests.merging and not template.alone and (batch := signature.batch(written)) is not None:
            return self._merged(template, batch, written, id, deadline, metadata)
        return self._streamed(template, written, id, deadline, metadata)

    def _streamed(
        self,
        template: Template,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
    ) -> bytes:
        """The answer to a request that goes over the stream."""
        stream = self._shared_stream()
        attempt = 1
        while True:
            parts = [template.fields, *written]
            if id or metadata or deadline.at is not None:
                parts.append(extras(id, deadline.remaining(), metadata))
            try:
                answered: bytes = stream.send(parts, deadline)
                return answered
            except Unsupported:
                self._requests.no_streams()
                return self._unary(template, written, id, deadline, metadata)
            except Unavailable as error:
                if not may_ask_again(error, attempt):
                    raise
            stream.pause(attempt, deadline)
            attempt += 1

    def _merged(  # noqa: PLR0913 - the fields of a request
        self,
        template: Template,
        batch: Batch,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
    ) -> Prediction | bytes:
        """The answer to a request that is merged with others, where others are there."""
        stream = self._shared_stream()
        try:
            answered: Prediction | bytes = stream.send_member(
                Member(template, batch, written, id, deadline.at, metadata), deadline
            )
            return answered
        except Unsupported:
            self._requests.no_streams()
            return self._unary(template, written, id, deadline, metadata)
        except Unavailable as error:
            if not may_ask_again(error, 1):
                raise
        stream.pause(1, deadline)
        return self._streamed(template, written, id, deadline, metadata)

    def _unary(
        self,
        template: Template,
        written: list[bytes],
        id: str,
        deadline: Deadline,
        metadata: Mapping[str, str] | None,
    ) -> bytes:
        """The answer to a request that goes by a call of its own."""
        request = b"".join((template.fields, *written, extras(id, None, None)))
        headers = (*self._metadata, *metadata.items()) if metadata else self._metadata
        try:
            answered: bytes = self._predict(request, timeout=deadline.remaining(), metadata=headers)
        except grpc.RpcError as error:
            raise from_call(error) from error
        except ValueError as error:
            raise if_closed(error) from error
        return answered

    def _shared_stream(self) -> SharedStream:
        stream = self._shared
        if stream is None:
            with self._fetching:
                if self._shared is None:
                    self._shared = self._new_stream()
                stream = self._shared
        return stream

    def _new_stream(self) -> SharedStream:
        # Nothing here refers to the client, so that it is closed when it is no longer referred to.
        channel, headers, check, own = self._channel, self._metadata, self._check, self._metadata

        def open_call(requests: Iterator[bytes], deserializer: Callable[[bytes], bytes]) -> Any:
            method = channel.stream_stream(PREDICT_STREAM, None, deserializer)
            return method(requests, metadata=(*headers, COMPLETION_ORDER, BY_ID))

        stream = SharedStream(open_call, lambda: reach(check, own), self._max_pending, self._requests.merging)
        finalize(self, stream.close, wait=False)
        return stream

    def _prepare(
        self, key: Key, encode: Callable[[Signature, S], T], inputs: S, deadline: Deadline
    ) -> tuple[Signature, T]:
        """Encodes inputs by the model's signature, fetching it where it is not known or seems old."""
        known = self._signatures.get(key)
        if known is not None:
            try:
                return known, encode(known, inputs)
            except InvalidInput:
                pass  # perhaps the model was replaced since: ask again before refusing
        signature = self._fetch(key, deadline, known)
        return signature, encode(signature, inputs)

    def _fetch(self, key: Key, deadline: Deadline, old: Signature | None) -> Signature:
        """The signature from the server, or one newer than `old` that another thread has just fetched."""
        remaining = deadline.remaining()
        if not self._fetching.acquire(timeout=-1 if remaining is None else remaining):
            raise DeadlineExceeded("the timeout passed while waiting for the model's signature")
        try:
            known = self._signatures.get(key)
            if known is not None and known is not old:
                return known
            request = model_pb2.GetModelRequest(model=key[0], version=key[1])
            return self._signatures.put(key, self._call(self._get_model, request, deadline))
        finally:
            self._fetching.release()

    def _call(self, method: Any, request: object, deadline: Deadline | None = None) -> Any:
        timeout = self._timeout if deadline is None else deadline.remaining()
        try:
            return method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_call(error) from error
        except ValueError as error:
            raise if_closed(error) from error


def reach(check: Any, metadata: object) -> None:
    """Makes sure that there is a server that takes requests.

    Args:
        check: gRPC's Check of the health service.
        metadata: the call's.

    Raises:
        Unavailable: there is none.
    """
    try:
        _health.check_serving(check("", timeout=PROBE_SECONDS, metadata=metadata))
    except grpc.RpcError as failed:
        error = from_call(failed)
        if isinstance(error, DeadlineExceeded):
            raise Unavailable(f"the server does not answer: {error}") from failed
        if isinstance(error, Unavailable):
            raise error from failed
