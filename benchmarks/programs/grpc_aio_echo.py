"""The yardstick: a bare grpc.aio server that answers every message with the same bytes.

    python benchmarks/programs/grpc_aio_echo.py ANSWER_FILE [large]

With "large", messages may be larger than 4 MiB. Prints its address. Unary `/bench/Echo` and bidirectional
`/bench/EchoStream`; plain asyncio, no protobuf, no model. It needs nothing but grpcio and runs in an
environment of its own; grpc's experiments are those of its environment variables, which the program that
starts it sets.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc


async def main() -> None:
    answer = Path(sys.argv[1]).read_bytes()

    async def unary(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return answer

    async def stream(
        requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield answer

    large = (("grpc.max_receive_message_length", -1),) if "large" in sys.argv else ()
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), *large))
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(unary),
        "EchoStream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"gRPC        127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
