"""What people do by hand with what a server prints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.servers import RunningServer

BOUND_SECONDS = 30.0
STANDIN = f"""#!{sys.executable}
# grpcurl for one call, where it is not installed: -plaintext -d REQUEST ADDRESS SERVICE/METHOD
import sys
import grpc
from google.protobuf import json_format
from penstock_proto.v1 import prediction_pb2 as pb
_, plaintext, d, request, address, method = sys.argv
assert (plaintext, d, method) == ("-plaintext", "-d", "penstock.v1.PredictionService/Predict"), sys.argv
sent = json_format.Parse(request, pb.PredictRequest())
with grpc.insecure_channel(address) as channel:
    serialize, parse = pb.PredictRequest.SerializeToString, pb.PredictResponse.FromString
    try:
        answer = channel.unary_unary("/" + method, serialize, parse)(sent, timeout={BOUND_SECONDS})
    except grpc.RpcError as error:
        sys.exit(f"{{error.code()}}: {{error.details()}}")
print(json_format.MessageToJson(answer))
"""


def tried(server: RunningServer, folder: Path) -> dict[str, Any]:
    """The outputs of what is printed under "Try it:", run by a shell.

    Args:
        server: what has printed it.
        folder: an empty one, for a stand-in where grpcurl is not installed.
    """
    line = server.stdout.partition("Try it:\n")[2]
    path = folder / "bin"
    path.mkdir()
    if shutil.which("grpcurl") is None:
        (path / "grpcurl").write_text(STANDIN)
        (path / "grpcurl").chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", f'PATH="{path}:$PATH"\n{line}'],
        capture_output=True,
        text=True,
        timeout=2 * BOUND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs: dict[str, Any] = json.loads(done.stdout)["outputs"]
    return outputs
