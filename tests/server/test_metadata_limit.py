"""`server.max_metadata_bytes` on a running server."""

from __future__ import annotations

import grpc
import numpy as np

from server import kit
from server.conftest import Serve
from support import zoo


def test_the_setting(serve: Serve) -> None:
    server = serve({"identity": zoo.identity()}, env={"PENSTOCK_SERVER__MAX_METADATA_BYTES": "65536"})
    request = kit.request("identity", x=np.ones((1, 3), np.float32))
    with kit.connect(server.target) as channel:
        predict = kit.stub_of(channel).Predict
        for size, code in ((60_000, None), (65_536, grpc.StatusCode.RESOURCE_EXHAUSTED)):
            future = predict.future(request, metadata=(("authorization", "x" * size),), timeout=kit.BOUND)
            error = future.exception()
            assert (error.code() if error else None) is code
