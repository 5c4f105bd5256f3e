#!/bin/sh
# Makes the stubs and the program target/debug/stubs. No protoc is needed: build.rs reads the descriptors.
set -eu
cd "$(dirname "$0")"

cargo build --quiet
