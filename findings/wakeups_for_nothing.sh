#!/usr/bin/env bash
# A busy server of grpc.aio spends its event loop on wake-ups that find nothing: two passes for every message of a stream,
# where a twentieth of one is enough. And the thread of gRPC that sends them stands still most of the time.
#
# Versions: grpcio 1.85.3; Python 3.11, Linux.
#
# Why: the thread writes one byte into a socket for each event, and the loop's reader takes one byte and all events that
# are ready. The bytes that are left wake the loop once each. A socket of Linux holds 278 such bytes, and one who writes to
# a full one is woken only after three quarters of them have been read. One expects a thread that reads the network to wait
# for the network only; here it waits for some 200 passes of the loop, and a new call, which needs several of its steps,
# waits for as long. Below, a selector of asyncio reports the socket as often as it has bytes; nothing else differs.
#
# Seen on 2026-12-01 (100 streams, 44,137 and 75,748 messages):
#   as it is: about 2 passes a message, at most 278 wake-ups wait
#   each wake-up reported: less than 1 pass a message
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python=$folder/venv/bin/python
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check grpcio==1.85.3

cat >"$folder/server.py" <<'PYTHON'
import asyncio
import fcntl
import os
import selectors
import signal
import struct
import sys
import termios

import grpc
import grpc.aio

reports_each = sys.argv[1] == "each"
messages = 0


class Selector(selectors.DefaultSelector):
    most = passes = 0

    def select(self, timeout=None):
        ready, more = super().select(timeout), []
        self.passes += 1
        for key, events in ready:
            waiting = struct.unpack("i", fcntl.ioctl(key.fd, termios.FIONREAD, bytes(4)))[0]
            self.most = max(self.most, waiting)
            if reports_each:
                more += [(key, events)] * (waiting - 1)
        return ready + more


async def echo(received, context):
    global messages
    async for message in received:
        messages += 1
        yield message


async def main():
    server = grpc.aio.server()
    method = {"Stream": grpc.stream_stream_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("an.Echo", method),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    each = selector.passes / messages
    if reports_each:
        print("less than 1 pass a message" if each < 1 else f"{each:.1f} passes a message", flush=True)
    else:
        print(f"about {each:.0f} passes a message, at most {selector.most} wake-ups wait", flush=True)
    os._exit(0)


selector = Selector()
asyncio.SelectorEventLoop(selector).run_until_complete(main())
PYTHON

cat >"$folder/callers.py" <<'PYTHON'
import asyncio
import sys

import grpc.aio


async def caller(open_stream):
    call = open_stream()
    while True:
        await call.write(b"a message")
        await call.read()


async def main():
    async with grpc.aio.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
        open_stream = channel.stream_stream("/an.Echo/Stream")
        tasks = [asyncio.create_task(caller(open_stream)) for _ in range(100)]
        await asyncio.wait(tasks, timeout=5)
        for task in tasks:
            task.cancel()


asyncio.run(main())
PYTHON

seen() { # how, what it is called
    "$python" "$folder/server.py" "$1" >"$folder/said.$1" &
    server=$!
    until [ -s "$folder/said.$1" ]; do sleep 0.05; done
    "$python" "$folder/callers.py" "$(head -n 1 "$folder/said.$1")" 2>"$folder/errors"
    kill "$server"
    wait "$server"
    echo "$2: $(tail -n 1 "$folder/said.$1")"
}

{ seen one "as it is"; seen each "each wake-up reported"; } | tee "$folder/seen"
sed -n 's/^#   \([a-z -]*: .*\)/\1/p' "$0" | diff - "$folder/seen"
