"""A peer: MLServer with a model that calls ONNX Runtime on the batches it is given.

    python benchmarks/programs/mlserver_peer.py MODEL_FILE WORKERS [ROWS]

Runs in MLServer's environment and prints its address; the model may still be loading then. Up to ROWS rows
are batched (32 where left out, 0 for no batching), waiting up to 1 ms. Metrics and access logs are off, which
is to its advantage. With WORKERS = 0 the model runs in the server's process, otherwise in processes of their
own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile

import uvloop
from mlserver import MLServer, ModelSettings, Settings
from mlserver.settings import ModelParameters
from mlserver_model import OnnxModel


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def main() -> None:
    os.chdir(tempfile.mkdtemp())  # it writes folders of its own where it is started
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=free_port(),
        grpc_port=free_port(),
        metrics_endpoint=None,
        parallel_workers=int(sys.argv[2]),
        load_models_at_startup=False,
    )
    model = ModelSettings(
        name="tiny_mlp",
        implementation=OnnxModel,
        max_batch_size=int(sys.argv[3]) if len(sys.argv) > 3 else 32,
        max_batch_time=0.001,
        parameters=ModelParameters(uri=sys.argv[1]),
    )
    print(f"gRPC        127.0.0.1:{settings.grpc_port}", flush=True)
    print(f"REST        127.0.0.1:{settings.http_port}", flush=True)
    await MLServer(settings).start([model])


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main())
