"""The event loop of the portable transport: its selector."""

from __future__ import annotations

import asyncio
import selectors
import socket
import time

from penstock.transport.grpc.portable_loop import IN_A_ROW, new_loop

BYTES = 200
FEW_PASSES = 10
ONE_BY_ONE = [1] * (IN_A_ROW - 1)


def test_bytes_that_are_read_one_by_one_take_few_passes() -> None:
    """As grpc.aio reads them. A loop by itself takes as many passes as there are bytes."""
    loop, _ = new_loop()
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    taken = passes = 0

    def take_one() -> None:
        nonlocal taken
        reader.recv(1)
        taken += 1
        if taken == BYTES:
            loop.stop()

    def count() -> None:
        nonlocal passes
        passes += 1
        loop.call_soon(count)

    with reader, writer:
        loop.add_reader(reader, take_one)
        writer.send(b"x" * BYTES)
        loop.call_soon(count)
        loop.run_forever()
        loop.remove_reader(reader)
    loop.close()
    assert taken == BYTES
    assert passes < FEW_PASSES


def test_a_socket_that_is_shared_may_have_fewer_bytes_by_then() -> None:
    """Another loop of the process may have taken them, or its other end was closed."""
    loop, selector = new_loop()
    reader, writer = socket.socketpair()
    with reader:
        with writer:
            selector.register(reader, selectors.EVENT_READ)
            writer.send(b"xyz")
            assert [len(selector.select(0)) for _ in range(2 * IN_A_ROW)] == [*ONE_BY_ONE, 3, *ONE_BY_ONE, 3]
            reader.recv(3)
            assert selector.select(0) == []
        ended = [selector.select(0) for _ in range(IN_A_ROW)]
        assert [len(each) for each in ended] == [*ONE_BY_ONE, 1]
        assert ended[-1][0][1] & selectors.EVENT_READ
        selector.unregister(reader)
    loop.close()


def test_a_file_that_was_closed_before_it_was_unregistered_ends_no_loop() -> None:
    """While a copy of it is open, as in a process that was forked, epoll reports it for ever."""
    loop, selector = new_loop()
    closed, writer = socket.socketpair()
    reader, other = socket.socketpair()
    with closed.dup(), writer, reader, other:
        selector.register(closed, selectors.EVENT_READ)
        selector.register(reader, selectors.EVENT_READ)
        closed.close()
        selector.unregister(closed)
        writer.send(b"x")
        assert [len(selector.select(0)) for _ in range(IN_A_ROW)] == [0] * IN_A_ROW
        other.send(b"x")
        assert [key.fileobj for key, _ in selector.select(0)] == [reader]
        selector.unregister(reader)
    loop.close()


def test_writers_are_told_as_by_any_selector() -> None:
    loop, selector = new_loop()
    one, other = socket.socketpair()
    with one, other:
        selector.register(one, selectors.EVENT_READ | selectors.EVENT_WRITE, "kept")
        other.send(b"xx")
        for _ in range(2 * IN_A_ROW):
            [(key, events)] = selector.select(0)
            assert key.data == "kept"
            assert events == selectors.EVENT_READ | selectors.EVENT_WRITE
        selector.unregister(one)
    loop.close()


def test_it_waits_for_less_than_a_millisecond() -> None:
    loop, selector = new_loop()
    for _ in range(3):  # what else the machine does may hold one of them up
        began = time.monotonic()
        assert selector.select(0.0002) == []
        taken = time.monotonic() - began
        if taken < 0.0009:
            break
    assert 0.0002 <= taken < 0.0009
    loop.close()


def test_it_is_a_loop_like_any_other() -> None:
    loop, selector = new_loop()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    selector.found = False
    assert loop.run_until_complete(asyncio.sleep(0, "done")) == "done"
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    assert selector.found  # the byte that wakes it
    loop.close()
