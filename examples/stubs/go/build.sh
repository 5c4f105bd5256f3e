#!/bin/sh
# Makes the stubs in build/penstock_proto and the program build/stubs. PROTOC says how protoc is called here.
set -eu
cd "$(dirname "$0")"
CONTRACT=../../../clients/python/src/penstock_proto/descriptors.binpb
export GOBIN="$PWD/build/bin" PATH="$PWD/build/bin:$PATH"

mkdir -p build
go install google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
${PROTOC:-protoc} --descriptor_set_in="$CONTRACT" --go_out=build --go-grpc_out=build \
    penstock_proto/v1/tensor.proto penstock_proto/v1/prediction.proto penstock_proto/v1/model.proto
go build -o build/stubs .
