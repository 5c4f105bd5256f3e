#!/usr/bin/env bash
# A message field that comes in two pieces is merged by Google's parsers, as the protobuf encoding asks. The parser
# behind gRPC for Node keeps only the last piece and loses the rest without an error.
#
# Versions: protobufjs 7.6.6 (the one that @grpc/proto-loader 0.8.1, the newest, takes), protobufjs 8.8.1 (merges),
# protobuf 7.36.2 for Python; Node 20.20.2, Python 3.11.
#
# Why it matters: two serialized pieces of a message may be joined as bytes. A server that adds a field to an answer
# in this cheap way passes its tests in Python, and a client in Node reads half of the answer. protobufjs 8 merges,
# so a test of the newest protobufjs is no proof: the newest loader still takes version 7.
#
# Seen on 2026-11-29 (timing was sent as {queue: 1.5}, then {compute: 2.5}):
#   @grpc/proto-loader: {"compute":2.5}
#   protobufjs 8: {"queue":1.5,"compute":2.5}
#   protobuf for Python: {"queue": 1.5, "compute": 2.5}
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check protobuf==7.36.2
(cd "$folder" && npm install --silent --no-audit --no-fund --no-package-lock --prefix . \
  @grpc/proto-loader@0.8.1 protobufjs@7.6.6 protobufjs8@npm:protobufjs@8.8.1)

cat >"$folder/answer.proto" <<'PROTO'
syntax = "proto3";
message Timing { double queue = 1; double compute = 2; }
message Answer { Timing timing = 1; }
service Model { rpc Predict(Answer) returns (Answer); }
PROTO

cat >"$folder/read.mjs" <<'NODE'
import loader from "@grpc/proto-loader";
import protobufjs from "protobufjs8";

const { serialize, deserialize } = (() => {
  const { Predict } = loader.loadSync("answer.proto").Model;
  return { serialize: Predict.requestSerialize, deserialize: Predict.responseDeserialize };
})();
const bytes = Buffer.concat([{ queue: 1.5 }, { compute: 2.5 }].map((timing) => serialize({ timing })));
const type = protobufjs.loadSync("answer.proto").lookupType("Answer");
console.log(`@grpc/proto-loader: ${JSON.stringify(deserialize(bytes).timing)}`);
console.log(`protobufjs 8: ${JSON.stringify(type.toObject(type.decode(bytes)).timing)}`);
console.error(bytes.toString("hex"));
NODE

(cd "$folder" && node read.mjs) >"$folder/seen" 2>"$folder/bytes"
"$folder/venv/bin/python" - "$(cat "$folder/bytes")" <<'PYTHON' >>"$folder/seen"
import json
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

file = descriptor_pb2.FileDescriptorProto(name="answer.proto", syntax="proto3")
timing, answer = file.message_type.add(name="Timing"), file.message_type.add(name="Answer")
for number, name in enumerate(("queue", "compute"), 1):
    timing.field.add(name=name, number=number, type="TYPE_DOUBLE", label="LABEL_OPTIONAL")
answer.field.add(name="timing", number=1, type="TYPE_MESSAGE", type_name=".Timing", label="LABEL_OPTIONAL")
pool = descriptor_pool.DescriptorPool()
pool.Add(file)
message = message_factory.GetMessageClass(pool.FindMessageTypeByName("Answer")).FromString(bytes.fromhex(sys.argv[1]))
print("protobuf for Python:", json.dumps(json_format.MessageToDict(message)["timing"]))
PYTHON

cat "$folder/seen"
sed -n 's/^#   \(.*: {.*\)/\1/p' "$0" | diff - "$folder/seen"
