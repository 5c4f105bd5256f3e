"""`predict_stream` of the threaded client: one call of PredictStream.

It uses three threads: the reader takes items from the iterable and encodes them; gRPC's own thread sends
them; the consumer waits for answers. Their shared state is in a `StreamState`, protected by one condition.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from threading import Condition, Thread, current_thread
from typing import Any

import grpc

from penstock_client._errors import InvalidInput, PenstockError, from_call
from penstock_client._local import FORKED, Local
from penstock_client._lost_ends import end_with_status
from penstock_client._messages import Signature
from penstock_client._stream import StreamState
from penstock_client._types import Item


class Stream(Local):
    """One call of PredictStream.

    Args:
        state: what was read, sent and answered.
        items: the inputs, with or without their sequences and ids.
        prepare: encodes an item.
    """

    _unusable = ("_state",)

    def __init__(
        self,
        state: StreamState,
        items: Iterator[Item],
        prepare: Callable[[Item], tuple[Signature, list[bytes]]],
    ) -> None:
        super().__init__()
        self._state = state
        self._items = items
        self._prepare = prepare
        self._changed = Condition()
        self._over = False
        self._away = False
        self._call: Any = None
        self._reader = Thread(target=self._read, name="penstock-stream-reader", daemon=True)

    def forked(self) -> None:
        """Called in a forked process."""
        super().forked()
        self._changed = Condition()  # a thread of the parent may hold the other one

    def results(
        self, method: Any, metadata: object, start: Callable[[], None], raising: bool
    ) -> Generator[Any, None, None]:
        """Runs the stream and yields the results.

        Args:
            method: gRPC's PredictStream, which takes messages as bytes.
            metadata: of the call.
            start: called first; an exception from it ends the stream.
            raising: whether the error of an item is raised instead of yielded.
        """
        if self._is_forked:
            raise PenstockError(FORKED)
        start()
        self._call = method(self._requests(), metadata=metadata)
        try:
            if not self._call.add_callback(self._stop):
                self._stop()
            end_with_status(self._call)
            self._reader.start()
            more = True
            while more:
                more = self._step()
                for result in self._collect():
                    if raising and isinstance(result, PenstockError):
                        raise result
                    yield result
            if self._state.failure is not None:
                raise self._state.failure
        finally:
            self._finish()

    def _step(self) -> bool:
        """Waits until there is something to collect; False once the call is over."""
        with self._changed:
            # Do not wait for a message at once: if every item so far was rejected, none comes.
            self._changed.wait_for(lambda: self._state.has_news or self._over)
            if self._state.has_ready:
                return True
        failure = None
        try:
            message = next(self._call)
            with self._changed:
                self._state.receive(message)
            return True
        except StopIteration:
            pass
        except grpc.RpcError as error:
            failure = from_call(error)
        except PenstockError as error:
            failure = error
        with self._changed:
            self._state.close(failure)
        return False

    def _collect(self) -> list[Any]:
        with self._changed:
            results = self._state.collect()
            self._changed.notify_all()
        return results

    def _requests(self) -> Iterator[bytes]:
        """The messages for gRPC's thread, which takes the next one after the last one was written."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._state.has_outgoing or self._state.ended or self._over)
                message = None if self._over else self._state.take()
            if message is None:
                return
            yield message

    def _read(self) -> None:
        """The reader's thread."""
        try:
            while self._wait_for_room():
                self._take_item()
        except StopIteration:
            self._end(None)
        except BaseException as error:  # the consumer gets whatever the iterable raises
            self._end(error)

    def _wait_for_room(self) -> bool:
        """Waits until another item may be read; False if no more are needed."""
        with self._changed:
            self._away = False
            self._changed.wait_for(lambda: self._state.has_room or self._over)
            self._away = not self._over
            return self._away

    def _take_item(self) -> None:
        item = next(self._items)
        try:
            signature, written = self._prepare(item)
        except InvalidInput as error:
            with self._changed:
                self._state.refuse(error, item)
                self._changed.notify_all()
        else:
            with self._changed:
                self._state.add(signature, written)
                self._changed.notify_all()

    def _end(self, failure: BaseException | None) -> None:
        with self._changed:
            self._away = False
            self._state.end(failure)
            self._changed.notify_all()

    def _stop(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _finish(self) -> None:
        """Ends all threads, except one that is inside the caller's iterable."""
        if self._is_forked:
            return
        self._stop()
        self._call.cancel()
        with self._changed:
            away = self._away
        if not away and self._reader.is_alive() and self._reader is not current_thread():
            self._reader.join()
