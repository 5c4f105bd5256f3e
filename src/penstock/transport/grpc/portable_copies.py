"""Finds out whether grpc.aio copies a message when it begins to send it, which it does not promise."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from penstock.core.large_bytes import forget

METHOD = "/penstock/Copies"
SIZE = 2**20  # more than is sent before the client has read: most of it is read after it was forgotten
SECONDS = 5.0
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), ("grpc.so_reuseport", 0))


class _Forgetting(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc is untyped
    """A method that sends a message, and gives its memory back as soon as grpc has begun to send it."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_stream_rpc_method_handler(_send)


async def _send(_: bytes, context: Any) -> None:
    message = b"1" * SIZE
    asyncio.get_running_loop().call_soon(forget, message)
    await context.write(message)


async def copies() -> bool:
    """Makes a call over the loopback interface; whether its answer was what was sent."""
    server = grpc.aio.server(handlers=(_Forgetting(),), options=OPTIONS)
    try:
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
            message = await channel.unary_stream(METHOD)(b"", timeout=SECONDS).read()
        return bool(message == b"1" * SIZE)
    except (RuntimeError, grpc.aio.AioRpcError):  # such as a machine without this interface
        return False
    finally:
        await server.stop(None)
