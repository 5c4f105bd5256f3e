"""Bounds on the memory of answers: those that are expected, those that wait to be sent, and those being sent.

A request whose answer is large counts from its submission with the size that its answer is expected to have,
from its answer on with the real size, and until that has left. A request that does not fit is held here: it
is submitted when enough answers have left. Its stream is not read meanwhile.

The bounds are one for each stream, one for each caller (a connection), and one for all. Beside the last one a
caller may use as much as it leaves free: so callers that never read leave room for others. A caller of whom
nothing counts may have one answer beyond it, until twice the bound is reached. Room goes first to the stream
whose answers have left: so one that reads goes on beside others that do not. Answers of up to `SMALL_BYTES`
do not count: a call itself takes as much, and they cost nothing here. The answers of a micro-batch do not
count if they have up to `SMALL_OF_MANY_BYTES` on average; `max_stream_requests` limits how many of them wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from penstock.core.allocator import give_back
from penstock.core.errors import QueueFull, RequestError
from penstock.core.request import Request
from penstock.engine import Engine
from penstock.models.model import Model
from penstock.protocols.answer_sizes import sizes_of
from penstock.scheduling.execution.failures import answer_too_large, expired, gone
from penstock.transport.grpc.call import UNLIMITED

TRIED = 64  # accounts that are asked when room was made: a bound of work
RETRY_SECONDS = 1.0
TAKE_BACK_TIMES = 20  # taking requests back takes at most this part of the time: one in 20
TRIM_BYTES = 8 * 2**20
"""After as much as this, the allocator is asked to give its free memory back once all answers have left."""
TRIM_SECONDS, TRIMS = 1.0, 3  # gRPC frees an answer some time after it left, grpc.aio with another call


class AnswerLimits(NamedTuple):
    """How many bytes of answers may be expected or wait. One answer alone may be larger than each of these.

    Attributes:
        stream: on one stream.
        caller: on one connection.
        total: for all callers.
        held: of messages whose requests are held; further requests are rejected.
        largest: in one answer; a larger one is an error of its request.
    """

    stream: int = 32 * 2**20
    caller: int = 64 * 2**20
    total: int = 128 * 2**20
    held: int = 2**31
    largest: int = UNLIMITED


class _Held(NamedTuple):
    """A request that waits until its answer fits."""

    item: object
    model: Model
    request: Request
    size: int


@runtime_checkable
class Counted(Protocol):
    """A request whose answer counts."""

    def counted(self) -> tuple[Account, object]:
        """The account, and what stands for the request there; see `Answers.submit`."""


class Account:
    """The answers of one stream, or of one unary call.

    Args:
        caller: the connection.
        most: how many bytes may be expected or wait.
        resumed: called, on any thread, when no request is held any more.

    Attributes:
        used: the bytes that are expected or wait.
        held: the requests that do not fit, in order.
        expected: what the requests without an answer are expected to add, by request.
        is_closed: whether the call is over.
        submitting: whether a thread submits requests that were held: others wait behind them.
    """

    __slots__ = ("caller", "expected", "held", "is_closed", "most", "resumed", "submitting", "used")

    def __init__(self, caller: str, most: int, resumed: Callable[[], None] | None = None) -> None:
        self.caller = caller
        self.most = most
        self.resumed = resumed or _nothing
        self.used = 0
        self.held: deque[_Held] = deque()
        self.expected: dict[object, int] = {}
        self.is_closed = self.submitting = False

    @property
    def is_full(self) -> bool:
        """Whether the stream should not be read now."""
        return bool(self.held) or self.used >= self.most

    @property
    def holds(self) -> bool:
        """Whether a request must wait behind others."""
        return bool(self.held) or self.submitting


class Answers:
    """Counts the answers of all callers, and holds the requests whose answers do not fit.

    Args:
        engine: accepts the requests.
        limits: how much may be expected or wait.

    Attributes:
        limits: as given.
        used: the bytes that are expected or wait.
    """

    def __init__(self, engine: Engine, limits: AnswerLimits = AnswerLimits()) -> None:  # noqa: B008
        self.limits = limits
        self.used = 0
        self._engine = engine
        self._lock = threading.Lock()
        self._callers: dict[str, int] = {}
        self._take_back_at = 0.0
        self._taking_back = 0  # how many threads do so
        self._waiting: dict[Account, None] = {}  # those that hold requests, longest waiting first
        self._held_bytes = 0
        self._most_used = 0  # since memory was given back
        self._trim_at = 0.0
        self._trims = 0  # still to come

    def submit(  # noqa: PLR0913 - a request, and what becomes of its answer
        self,
        account: Account,
        item: object,
        model: Model,
        request: Request,
        size: int,
        accepted: bool = False,
    ) -> None:
        """Submits a request now, or once its answer fits.

        Args:
            account: of its stream or call.
            item: what `answered` is told of later.
            model: the model that answers.
            request: the request.
            size: the bytes of the answer that is expected; 0 for a small one.
            accepted: see `Runners.submit`.
        """
        error: RequestError | None = None
        if size > self.limits.largest and sizes_of(model).is_known(request.outputs):
            error = answer_too_large(size // request.count, self.limits.largest)
        with self._lock:
            if error is not None or account.is_closed:
                pass
            elif account.holds or not self._fits(account, size):
                error = self._hold(account, _Held(item, model, request, size))
                if error is None:
                    return
            elif size:
                account.expected[item] = size
                self._add(account, size)
        if error is not None:
            _fail(model, request, error)
        else:
            self._engine.submit(model.batcher, request, accepted)

    def answered(self, account: Account, item: object, size: int) -> None:
        """An answer is there: it counts with its real size; 0 for a small one or an error."""
        with self._lock:
            change = size - account.expected.pop(item, 0)
            if account.is_closed:
                return
            self._add(account, change)
        if change < 0:
            self._make_use_of_room(account)

    def take_back(self, model: Model | None) -> None:
        """Counts the requests that wait in a model's queue anew, and holds those that do not fit.

        Called when an answer was far larger than expected: those to these requests will be, too.

        Args:
            model: the model; None for none.
        """
        began = time.monotonic()
        if model is None or began < self._take_back_at:
            return
        with self._lock:
            self._taking_back += 1  # what is in neither place is not forgotten by a drain
            free = self._make_held(model, self._engine.withdraw(model))
            self._taking_back -= 1
        for request in free:  # such as a request of a call that is over
            self._engine.submit(model.batcher, request, accepted=True)
        self._make_use_of_room()
        now = time.monotonic()
        self._take_back_at = now + (now - began) * TAKE_BACK_TIMES

    def _make_held(self, model: Model, requests: Sequence[Request]) -> Sequence[Request]:
        """Holds requests, before those that are held already; returns those that cannot be."""
        free: list[Request] = []
        for request in reversed(requests):
            account, item = request.counted() if isinstance(request, Counted) else (None, None)
            if account is None or account.is_closed:
                free.append(request)
                continue
            self._add(account, -account.expected.pop(item, 0))
            size = sizes_of(model).expected(request.outputs, request.rows, request.shape_key)
            account.held.appendleft(_Held(item, model, request, size))
            self._held_bytes += request.size
            self._waiting[account] = None
        return free[::-1]

    def left(self, account: Account, size: int) -> None:
        """Answers of this size have been sent."""
        with self._lock:
            if account.is_closed:
                return
            self._add(account, -size)
        self._make_use_of_room(account)

    def close(self, account: Account) -> None:
        """A call is over: nothing of it counts any more, and what it holds is dropped."""
        with self._lock:
            account.is_closed = True
            account.resumed = _nothing  # it refers to the stream: a reference cycle
            account.expected.clear()  # and so do requests, which may have large inputs
            self._add(account, -account.used)
            dropped = self._drop(account)
        for each in dropped:
            each.request.cancelled = True
            _count(each.model, each.request, gone(each.request))
        self._make_use_of_room()

    def is_empty(self) -> bool:
        """Whether no request is held."""
        return not self._waiting and not self._taking_back

    def expire(self, now: float) -> None:
        """Ends the held requests whose deadline has passed, or which no one waits for any more."""
        ended: list[_Held] = []
        with self._lock:
            for account in tuple(self._waiting):
                over = [each for each in account.held if _is_over(each.request, now)]
                ended += over
                for each in over:
                    account.held.remove(each)
                    self._held_bytes -= each.request.size
        for each in ended:
            _end(each.model, each.request)
        self._make_use_of_room()

    def tidy(self, now: float) -> None:
        """Gives memory back that large answers have left behind, once all have left."""
        if self.used or now < self._trim_at:
            return
        if self._most_used > TRIM_BYTES:
            self._most_used, self._trims = 0, TRIMS
        if self._trims:
            self._trims, self._trim_at = self._trims - 1, now + TRIM_SECONDS
            give_back()

    def fail_all(self, error: RequestError) -> None:
        """Ends every held request with an error."""
        with self._lock:
            failed = [each for account in tuple(self._waiting) for each in self._drop(account)]
        for each in failed:
            _fail(each.model, each.request, error)

    def _fits(self, account: Account, size: int) -> bool:
        """Whether an answer fits; the first one of all always does. The lock is held."""
        if not size or not self.used:
            return True
        limits, free = self.limits, self.limits.total - self.used
        of_caller = self._callers.get(account.caller, 0)
        if not of_caller:
            return size <= free + limits.total
        if account.used and account.used + size > account.most:
            return False
        return of_caller + size <= min(limits.caller, free)

    def _add(self, account: Account, size: int) -> None:
        if not size:
            return
        account.used += size
        self.used += size
        self._most_used = max(self._most_used, self.used)
        of_caller = self._callers.get(account.caller, 0) + size
        if of_caller:
            self._callers[account.caller] = of_caller
        else:
            self._callers.pop(account.caller, None)

    def _hold(self, account: Account, held: _Held) -> RequestError | None:
        """Holds a request; returns why it cannot be held. The lock is held."""
        size, most = held.request.size, self.limits.held
        if self._held_bytes and self._held_bytes + size > most:
            words = f"{self._held_bytes} bytes of requests wait until answers have left, the limit is {most}"
            return QueueFull(words, RETRY_SECONDS)
        account.held.append(held)
        self._held_bytes += size
        self._waiting[account] = None
        self._engine.wake()
        return None

    def _drop(self, account: Account) -> Sequence[_Held]:
        dropped = list(account.held)
        account.held.clear()
        self._waiting.pop(account, None)
        self._held_bytes -= sum([each.request.size for each in dropped])
        return dropped

    def _make_use_of_room(self, first: Account | None = None) -> None:
        """Submits held requests whose answers fit now: of each account as many as fit, in order.

        Args:
            first: the account that gets room before those that wait longer.
        """
        for _ in range(min(len(self._waiting), TRIED)):
            with self._lock:
                free = (each for each in self._waiting if not each.submitting)
                account = first if first in self._waiting and not first.submitting else next(free, None)
                first = None
                if account is None:
                    return
                del self._waiting[account]
                self._waiting[account] = None  # its next turn is after that of the others
                account.submitting = True
            while ready := self._ready_of(account):
                for each in ready:
                    self._resubmit(account, each)
            if not account.is_full:
                account.resumed()

    def _ready_of(self, account: Account) -> Sequence[_Held]:
        """Takes what fits now; if nothing does, the account is not `submitting` any more."""
        ready: list[_Held] = []
        with self._lock:
            while account.held and self._fits(account, size := _size_now(account.held[0])):
                each = account.held.popleft()
                self._held_bytes -= each.request.size
                if size:
                    account.expected[each.item] = size
                    self._add(account, size)
                ready.append(each)
            if not account.held:
                self._waiting.pop(account, None)
            account.submitting = bool(ready)
        return ready

    def _resubmit(self, account: Account, held: _Held) -> None:
        if _is_over(held.request, time.monotonic()):
            with self._lock:  # it was counted when it was taken, and no answer of it will come
                if not account.is_closed:
                    self._add(account, -account.expected.pop(held.item, 0))
            _end(held.model, held.request)
        else:
            self._engine.submit(held.model.batcher, held.request, accepted=True)


def _nothing() -> None: ...


def _size_now(held: _Held) -> int:
    """The bytes of the answer to a request that is held, as far as is known by now."""
    sizes, request = sizes_of(held.model), held.request
    if not held.size or sizes.is_known(request.outputs):
        return held.size
    return sizes.expected(request.outputs, request.rows, request.shape_key)


def _is_over(request: Request, now: float) -> bool:
    return request.cancelled or request.deadline <= now


def _end(model: Model, request: Request) -> None:
    """Ends a held request that is late, or that no caller waits for."""
    if request.cancelled:
        _count(model, request, gone(request))
    else:
        _fail(model, request, expired(request))


def _count(model: Model, request: Request, error: RequestError) -> None:
    model.observer.failed(request.rpc, error, request.count, time.monotonic() - request.arrived)


def _fail(model: Model, request: Request, error: RequestError) -> None:
    _count(model, request, error)
    flush = request.reply(error)
    if flush is not None:
        flush()
