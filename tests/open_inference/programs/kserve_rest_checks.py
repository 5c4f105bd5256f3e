"""Checks of KServe's own client over REST, in its environment; prints what came of each, as `checks.py` does.

python tests/open_inference/programs/kserve_rest_checks.py http://HOST:PORT
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import traceback

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

SECONDS = 20.0
URL = sys.argv[1]


def request(model: str, array: np.ndarray, datatype: str, binary: bool) -> InferRequest:
    given = InferInput("x", list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model, [given], request_id="an id")


async def check_rest_health(client: InferenceRESTClient) -> None:
    assert await client.is_server_live(URL)
    assert await client.is_server_ready(URL)
    assert await client.is_model_ready(URL, "identity")


async def check_rest_infer(client: InferenceRESTClient) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for binary in (True, False):
        answer = await client.infer(URL, request("identity", array, "FP32", binary), model_name="identity")
        assert (answer.id, answer.model_name) == ("an id", "identity")
        assert answer.outputs[0].as_numpy().tolist() == array.tolist()


async def check_rest_texts(client: InferenceRESTClient) -> None:
    array = np.array([["ü".encode(), b"", b"a"]], object)
    for binary in (True, False):
        asked = request("identity_bytes", array, "BYTES", binary)
        answer = await client.infer(URL, asked, model_name="identity_bytes")
        texts = [
            each if isinstance(each, bytes) else each.encode() for each in answer.outputs[0].as_numpy().flat
        ]
        assert texts == array.ravel().tolist(), texts


async def check_rest_many_at_once(client: InferenceRESTClient) -> None:
    arrays = [np.full((1, 3), n, np.float32) for n in range(50)]
    answers = await asyncio.gather(
        *[
            client.infer(URL, request("identity", each, "FP32", True), model_name="identity")
            for each in arrays
        ]
    )
    assert [each.outputs[0].as_numpy()[0, 0] for each in answers] == list(range(50))


async def check_rest_errors(client: InferenceRESTClient) -> None:
    wrong = np.zeros((1, 4), np.float32)
    said = {"nobody": (404, "no model 'nobody'"), "identity": (400, "input x")}
    for model, (status, words) in said.items():
        asked = client.infer(URL, request(model, wrong, "FP32", True), model_name=model)
        [error] = await asyncio.gather(asked, return_exceptions=True)
        assert isinstance(error, httpx.HTTPStatusError), error
        assert error.response.status_code == status, error
        assert words in str(error), f"the client does not show the text: {error}"


async def outcome(name: str) -> str:
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=SECONDS, retries=0))
    try:
        await globals()[name](client)
    except Exception:  # whatever it is, the other checks go on
        return traceback.format_exc()
    finally:
        await client.close()
    return ""


async def main() -> None:
    logging.disable()  # its client logs every error
    names = [name for name in globals() if name.startswith("check_")]
    print(json.dumps({name: await outcome(name) for name in names}))


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)
