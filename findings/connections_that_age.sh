#!/usr/bin/env bash
# A gRPC server asks clients to move to a new connection (max_connection_age), which loses no call by design. Calls
# of connect-node fail at that moment, with the code INTERNAL, which retry policies leave alone. Those of grpc-js pass.
#
# Versions: @connectrpc/connect and connect-node 2.3.0, @bufbuild/protobuf 2.17.0, @grpc/grpc-js 1.14.7; Node 20.20.2;
# the server: grpcio 1.85.3, grpcio-health-checking 1.85.1; Python 3.11, Linux.
#
# Why: calls that meet the end of a connection on the wire are refused unread (REFUSED_STREAM), so a client may send
# them again on the next connection. With grpc-js no caller notices; connect-node hands the caller an error, and maps
# it to INTERNAL instead of UNAVAILABLE. One expects a graceful end to be invisible, or at least marked as safe to
# repeat.
#
# Seen on 2026-11-29 (32 callers, connections of 1 s, until 5 calls have failed; figures vary):
#   connect-node: 12 of 240 calls failed, all with INTERNAL
#   grpc-js: 0 of 2,043 calls failed in 10 s
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  grpcio==1.85.3 grpcio-health-checking==1.85.1
(cd "$folder" && npm install --silent --no-audit --no-fund --no-package-lock --prefix . \
  @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @bufbuild/protobuf@2.17.0 @grpc/grpc-js@1.14.7)

cat >"$folder/server.py" <<'PYTHON'
import base64
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

ages = [("grpc.max_connection_age_ms", 1000), ("grpc.max_connection_age_grace_ms", 5000)]
server = grpc.server(ThreadPoolExecutor(8), options=ages)
health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, base64.b64encode(health_pb2.DESCRIPTOR.serialized_pb).decode(), flush=True)
sys.stdin.read()  # until the client closes it
PYTHON

cat >"$folder/client.mjs" <<'NODE'
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { create, createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import grpc from "@grpc/grpc-js";

const server = spawn("venv/bin/python", ["server.py"], { stdio: ["pipe", "pipe", "inherit"] });
const [port, descriptor] = (await once(createInterface(server.stdout), "line"))[0].split(" ");
const file = [fromBinary(FileDescriptorProtoSchema, Buffer.from(descriptor, "base64"))];
const service = createFileRegistry(create(FileDescriptorSetSchema, { file })).getService("grpc.health.v1.Health");
const connect = createClient(service, createGrpcTransport({ baseUrl: `http://127.0.0.1:${port}` }));
const js = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
const method = ["/grpc.health.v1.Health/Check", (x) => x, (x) => x];
const check = () =>
  new Promise((done, fail) => js.makeUnaryRequest(...method, Buffer.alloc(0), (e) => (e ? fail(e) : done())));

async function failures(name, call, seconds) {
  const codes = [], end = Date.now() + seconds * 1000;
  let calls = 0;
  await Promise.all(Array.from({ length: 32 }, async () => {
    for (; Date.now() < end && codes.length < 5; calls++) await call().catch((error) => codes.push(error.code));
  }));
  console.log(`${name}: ${codes.length} of ${calls} calls failed`);
  return codes;
}
const ofConnect = await failures("connect-node", () => connect.check({}), 60);
const ofJs = await failures("grpc-js", check, 10);
server.stdin.end();
process.exit(ofConnect.length > 0 && ofConnect.every((code) => code === Code.Internal) && ofJs.length === 0 ? 0 : 1);
NODE

cd "$folder" && node client.mjs
