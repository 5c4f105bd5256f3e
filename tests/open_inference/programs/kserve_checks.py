"""Checks of KServe's own client, in its environment; prints what came of each, as `checks.py` does.

python tests/open_inference/programs/kserve_checks.py HOST:PORT
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import traceback

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

SECONDS = 20.0


def request(model: str, name: str, array: np.ndarray, datatype: str, raw: bool = True) -> InferRequest:
    given = InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=raw)
    return InferRequest(model, [given], request_id="an id")


async def check_health(client: InferenceGRPCClient) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("identity")


async def check_infer(client: InferenceGRPCClient) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for raw in (True, False):
        answer = await client.infer(request("identity", "x", array, "FP32", raw))
        assert (answer.id, answer.model_name) == ("an id", "identity")
        assert answer.outputs[0].as_numpy().tolist() == array.tolist()


async def check_texts(client: InferenceGRPCClient) -> None:
    array = np.array([["ü".encode(), b"", b"nul\0"]], object)
    for raw in (True, False):
        answer = await client.infer(request("identity_bytes", "x", array, "BYTES", raw))
        assert answer.outputs[0].as_numpy().tolist() == array.tolist()


async def check_many_at_once(client: InferenceGRPCClient) -> None:
    arrays = [np.full((1, 3), n, np.float32) for n in range(100)]
    answers = await asyncio.gather(*[client.infer(request("identity", "x", a, "FP32")) for a in arrays])
    assert [each.outputs[0].as_numpy()[0, 0] for each in answers] == list(range(100))


async def check_errors(client: InferenceGRPCClient) -> None:
    wrong = np.zeros((1, 4), np.float32)
    wanted = {"nobody": grpc.StatusCode.NOT_FOUND, "identity": grpc.StatusCode.INVALID_ARGUMENT}
    for model, code in wanted.items():
        [error] = await asyncio.gather(
            client.infer(request(model, "x", wrong, "FP32")), return_exceptions=True
        )
        assert isinstance(error, grpc.RpcError), error
        assert error.code() is code, error


async def outcome(name: str, target: str) -> str:
    try:
        async with InferenceGRPCClient(target, timeout=SECONDS) as client:
            await globals()[name](client)
    except Exception:  # whatever it is, the other checks go on
        return traceback.format_exc()
    return ""


async def main() -> None:
    logging.disable()  # its client logs every error
    names = [name for name in globals() if name.startswith("check_")]
    print(json.dumps({name: await outcome(name, sys.argv[1]) for name in names}))


if __name__ == "__main__":
    asyncio.run(main())
    # Not by the interpreter's own end: gRPC's threads have been seen to keep a finished client alive.
    sys.stdout.flush()
    os._exit(0)
