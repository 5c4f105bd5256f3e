"""The same by tritonclient's asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from checking import fails, rows, tensor, x
from tritonclient.utils import InferenceServerException


async def refused(call: Awaitable[Any], status: str, *words: str) -> None:
    try:
        answer = await call
    except InferenceServerException as error:
        fails(error, status, *words)
        return
    raise AssertionError(f"{status} was expected, but this came: {answer}")


async def given(*requests: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    for each in requests:
        yield each


async def check_asyncio_about(target: str) -> None:
    async with triton_aio.InferenceServerClient(target) as client:
        assert await client.is_server_live() is True
        assert await client.is_server_ready() is True
        assert await client.is_model_ready("scale", "2") is True
        assert await client.is_model_ready("nobody") is False
        assert (await client.get_server_metadata()).name == "penstock"
        assert (await client.get_model_metadata("add")).inputs[1].name == "b"
        assert (await client.get_model_config("add")).config.max_batch_size >= 32
        assert (await client.get_inference_statistics("add")).model_stats[0].name == "add"
        assert len((await client.get_model_repository_index()).models) > 40
        await refused(client.load_model("identity"), "FAILED_PRECONDITION")
        await refused(client.get_model_metadata("nobody"), "NOT_FOUND", "nobody")
        await refused(client.get_trace_settings(), "UNIMPLEMENTED", "trac")


async def check_asyncio_infer(target: str) -> None:
    async with triton_aio.InferenceServerClient(target) as client:
        calls = [client.infer("scale", x(n), model_version="2", request_id=str(n)) for n in range(100)]
        for n, result in enumerate(await asyncio.gather(*calls)):
            assert (result.get_response().id, result.as_numpy("y")[0, 0]) == (str(n), 2 * n)
        wanted = [triton.InferRequestedOutput("total")]
        result = await client.infer("multi", x(1), outputs=wanted, compression_algorithm="gzip")
        assert result.as_numpy("total").tolist() == [3]


async def check_asyncio_errors(target: str) -> None:
    async with triton_aio.InferenceServerClient(target) as client:
        await refused(client.infer("nobody", x()), "NOT_FOUND", "nobody")
        await refused(client.infer("identity", x(width=4)), "INVALID_ARGUMENT")
        await refused(client.infer("slow", x(width=1), client_timeout=0.05), "DEADLINE_EXCEEDED")
        both = client.infer("add", [tensor("a", rows(1))]), client.infer("identity", x(2))
        bad, good = await asyncio.gather(*both, return_exceptions=True)
        fails(bad, "INVALID_ARGUMENT", "b")
        assert good.as_numpy("y").tolist() == rows(2).tolist()


async def check_asyncio_cancelling(target: str) -> None:
    async with triton_aio.InferenceServerClient(target) as client:
        task = asyncio.ensure_future(client.infer("slow", x(width=1)))
        await asyncio.sleep(0.05)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            raise AssertionError("it was not cancelled")
        assert (await client.infer("slow", x(3, width=1))).as_numpy("y").tolist() == [[3]]


async def check_asyncio_stream(target: str) -> None:
    async with triton_aio.InferenceServerClient(target) as client:
        requests = [{"model_name": "identity", "inputs": x(n), "request_id": str(n)} for n in range(50)]
        requests[20] = {"model_name": "nobody", "inputs": x(), "request_id": "20"}
        seen = [each async for each in client.stream_infer(given(*requests))]
        assert len(seen) == 50
        for n, (result, error) in enumerate(seen):
            if n == 20:
                fails(error, None, "nobody")
            else:
                assert error is None
                assert (result.get_response().id, result.as_numpy("y")[0, 0]) == (str(n), n)


async def check_asyncio_stream_cancelling(target: str) -> None:
    async with triton_aio.InferenceServerClient(target) as client:
        slow = [{"model_name": "slow", "inputs": x(width=1)} for _ in range(3)]
        answers = client.stream_infer(given(*slow))
        await anext(answers)
        answers.cancel()
        try:
            await anext(answers)
        except asyncio.CancelledError:
            pass
        else:
            raise AssertionError("it was not cancelled")
        assert (await client.infer("identity", x(3))).as_numpy("y").tolist() == rows(3).tolist()
