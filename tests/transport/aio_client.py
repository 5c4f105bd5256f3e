"""A client on grpc.aio in a process of its own: `python aio_client.py TARGET`; silence is success.

grpc.aio wants one event loop a process, and the portable transport has one already.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc
import grpc.aio


async def unary(channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary("/t/Echo")
    answers = await asyncio.gather(*(call(b"%d" % i, timeout=20) for i in range(200)))
    assert answers == [b"%d" % i for i in range(200)]


async def stream(channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream("/t/S")(timeout=20)
    for i in range(100):
        await call.write(b"%d" % i)
        assert await call.read() == b"%d" % i
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def three_streams(channel: grpc.aio.Channel) -> None:
    async def one(who: int) -> None:
        async def requests() -> AsyncIterator[bytes]:
            for i in range(50):
                yield b"%d/%d" % (who, i)

        answers = [answer async for answer in channel.stream_stream("/t/S")(requests(), timeout=20)]
        assert answers == [b"%d/%d" % (who, i) for i in range(50)]

    await asyncio.gather(*(one(who) for who in range(3)))


async def cancel(channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream("/t/S")(timeout=20)
    await call.write(b"1")
    assert await call.read() == b"1"
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def errors(channel: grpc.aio.Channel) -> None:
    for method, timeout, code in (
        ("/t/Nobody", 20, grpc.StatusCode.UNIMPLEMENTED),
        ("/t/Silent", 0.2, grpc.StatusCode.DEADLINE_EXCEEDED),
    ):
        call = channel.unary_unary(method)(b"", timeout=timeout)
        assert await call.code() is code


async def main() -> None:
    async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
        for scene in (unary, stream, three_streams, cancel, errors):
            await scene(channel)
        unfinished = channel.stream_stream("/t/S")(timeout=20)
        await unfinished.write(b"1")
        assert await unfinished.read() == b"1"
    # The channel is closed with a stream open: the server is to notice.


if __name__ == "__main__":
    asyncio.run(main())
