"""The second argument of a generated servicer's methods: grpc's `ServicerContext`."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
from typing_extensions import override

from penstock.transport.grpc.call import Metadata, ServerCall, Status


class Aborted(Exception):
    """Raised in a servicer's method by `abort`."""


class CallIsOver(grpc.RpcError):  # type: ignore[misc]  # grpc is untyped
    """Raised in a servicer's method that receives or sends after its call is over."""


class Context(grpc.ServicerContext):  # type: ignore[misc]  # grpc is untyped
    """What a servicer's method may do with its call.

    Args:
        call: the call.
        failed: called with an exception that a callback raised.
    """

    def __init__(self, call: ServerCall, failed: Callable[[BaseException], None]) -> None:
        self._call = call
        self._failed = failed
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._active = True
        self._code: grpc.StatusCode = grpc.StatusCode.OK
        self._details = ""
        self._trailing: Metadata = ()

    def status(self) -> Status:
        """The status that the method has set.

        Raises:
            ValueError: its trailing metadata cannot be carried.
        """
        return Status(self._code, self._details, self._trailing)

    def close(self) -> None:
        """Runs the callbacks for the end of the call."""
        with self._lock:
            self._active, callbacks, self._callbacks = False, self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception as error:
                self._failed(error)

    @override
    def is_active(self) -> bool:
        return self._active

    @override
    def time_remaining(self) -> float | None:
        left = self._call.deadline - time.monotonic()
        return None if left == math.inf else max(left, 0.0)

    @override
    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._lock:
            if self._active:
                self._callbacks.append(callback)
            return self._active

    @override
    def cancel(self) -> None:
        self._call.finish(Status(grpc.StatusCode.CANCELLED, "cancelled by the server"))

    @override
    def invocation_metadata(self) -> Metadata:
        return self._call.metadata

    @override
    def peer(self) -> str:
        return self._call.peer()

    @override
    def peer_identities(self) -> Sequence[bytes] | None:
        return self._call.identities() or None

    @override
    def peer_identity_key(self) -> str | None:
        """The property that `peer_identities` are of; not supported."""
        return None

    @override
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return self._call.auth_context()

    @override
    def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        raise NotImplementedError("servicers here send no initial metadata of their own")

    @override
    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        self._trailing = tuple(trailing_metadata)

    @override
    def trailing_metadata(self) -> Metadata:
        return self._trailing

    @override
    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    @override
    def code(self) -> grpc.StatusCode:
        return self._code

    @override
    def set_details(self, details: str) -> None:
        self._details = details

    @override
    def details(self) -> str:
        return self._details

    @override
    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        # To abort with OK is a mistake; as in grpc's own server, it must not look like a success.
        self._code = grpc.StatusCode.UNKNOWN if code is grpc.StatusCode.OK else code
        self._details = details
        raise Aborted

    @override
    def abort_with_status(self, status: Any) -> NoReturn:
        self._trailing = tuple(status.trailing_metadata or ())
        self.abort(status.code, status.details)
