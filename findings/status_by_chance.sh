#!/usr/bin/env bash
# Between 8 and 16 KiB of metadata, gRPC decides by chance whether a call passes. The status of an error travels as
# metadata too: an INVALID_ARGUMENT with a text of 12,000 characters arrives as RESOURCE_EXHAUSTED in half the calls.
#
# Versions: grpcio 1.85.3, client and server; Python 3.11, Linux.
#
# Why: gRPC has a soft limit (8 KiB) and a hard limit (16 KiB). From the one to the other, the share of refused calls
# grows. One expects a limit, not odds: a large token or a long error text fails only sometimes, and a retry of a
# RESOURCE_EXHAUSTED often passes. With both limits set to the same number, on the side that receives, chance ends.
#
# Seen on 2026-11-29, calls of 200 that came back with RESOURCE_EXHAUSTED:
#   a header of 7,000: 0, of 9,000: 36, of 11,000: 69, of 14,000: 150, of 17,000: 200
#   an error text of 7,000: 0, of 12,000: 102, of 17,000: 200
#   a header of 11,000 with both limits at 16,384: 0, with both at 10,000: 200
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check grpcio==1.85.3

"$folder/venv/bin/python" - <<'PYTHON'
from concurrent.futures import ThreadPoolExecutor

import grpc

CALLS = 200


class Echo(grpc.GenericRpcHandler):
    """Answers a call, or ends it with an error text of the length that the request names."""

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request, context):
        if request:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "x" * int(request))
        return b"answered"


def refused(header=0, text=0, limit=None):
    options = [("grpc.max_metadata_size", limit), ("grpc.absolute_max_metadata_size", limit)] if limit else []
    server = grpc.server(ThreadPoolExecutor(2), [Echo()], options=options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    count = 0
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/finding.Echo/Call")
        for _ in range(CALLS):
            try:
                call(str(text or "").encode(), metadata=[("authorization", "x" * header)], timeout=30)
            except grpc.RpcError as error:
                count += error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    server.stop(None).wait()
    return count


headers = [refused(header=size) for size in (7_000, 9_000, 11_000, 14_000, 17_000)]
texts = [refused(text=size) for size in (7_000, 12_000, 17_000)]
limits = [refused(header=11_000, limit=size) for size in (16_384, 10_000)]
print(f"of {CALLS}: headers {headers}, error texts {texts}, with one limit {limits}")
assert headers[0] == 0 < headers[1] < headers[3] < headers[4] == CALLS
assert texts[0] == 0 < texts[1] < texts[2] == CALLS
assert limits == [0, CALLS]
PYTHON
