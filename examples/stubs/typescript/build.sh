#!/bin/sh
# Makes the stubs in build/ and the program build/js/main.js. PROTOC says how protoc is called here.
set -eu
cd "$(dirname "$0")"
CONTRACT=../../../clients/python/src/penstock_proto/descriptors.binpb

mkdir -p build
npm install --silent --no-package-lock --no-audit --no-fund
${PROTOC:-protoc} --descriptor_set_in="$CONTRACT" --plugin=node_modules/.bin/protoc-gen-ts_proto \
    --ts_proto_out=build --ts_proto_opt=outputServices=grpc-js,esModuleInterop=true,useExactTypes=false \
    penstock_proto/v1/prediction.proto penstock_proto/v1/model.proto
npx tsc
