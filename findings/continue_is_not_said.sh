#!/usr/bin/env bash
# uvicorn says "100 Continue" only if an application asks for the body before it begins its answer. An application that
# answers while it reads, line by line, begins first; then a client that asks with "Expect: 100-continue" is told nothing
# but the 200, and does not send: curl, which asks by itself with `-T`, waits for a second before each such upload.
#
# Versions: uvicorn 0.54.0 with h11 0.16.0 and with httptools 0.9.0, hypercorn 0.18.0; Python 3.11, Linux.
#
# Why: by RFC 9110 (10.1.1), a server either tells a client to go on, or sends a final status in place of that. uvicorn
# takes the first bytes of the answer for such a status, though it goes on reading the body. ASGI has no message for the
# interim answer, so one expects the server to say it with the first `receive`, as hypercorn does.
#
# Seen on 2026-11-30, as the first line that the client gets:
#   uvicorn, h11, reads first: HTTP/1.1 100 Continue
#   uvicorn, h11, answers first: HTTP/1.1 200 OK
#   uvicorn, httptools, reads first: HTTP/1.1 100 Continue
#   uvicorn, httptools, answers first: HTTP/1.1 200 OK
#   hypercorn, reads first: HTTP/1.1 100
#   hypercorn, answers first: HTTP/1.1 100
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  uvicorn==0.54.0 h11==0.16.0 httptools==0.9.0 hypercorn==0.18.0

cat >"$folder/application.py" <<'PYTHON'
import os

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    if os.environ["FIRST"] == "answers":
        await send(HEAD)
        await send({"type": "http.response.body", "body": b"", "more_body": True})
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    if os.environ["FIRST"] == "reads":
        await send(HEAD)
    await send({"type": "http.response.body", "body": body})
PYTHON

cat >"$folder/client.py" <<'PYTHON'
import os
import socket
import subprocess
import sys
import time

name, *command = sys.argv[1:]
for first in ("reads", "answers"):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [each.format(port=port) for each in command]
    server = subprocess.Popen(words, env={**os.environ, "FIRST": first}, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                client = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.05)
        client.settimeout(10)
        client.sendall(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        print(f"{name}, {first} first: {client.recv(1000).splitlines()[0].decode().rstrip()}")
        client.close()
    finally:
        server.kill()
        server.wait()
PYTHON

cd "$folder"
python="$folder/venv/bin/python"
{
  for http in h11 httptools; do
    "$python" client.py "uvicorn, $http" "$python" -m uvicorn --log-level warning --http "$http" --lifespan off --port '{port}' application:application
  done
  "$python" client.py hypercorn "$python" -m hypercorn -b '127.0.0.1:{port}' application:application
} >seen
cd - >/dev/null

cat "$folder/seen"
sed -n 's/^#   \(.* first: .*\)/\1/p' "$0" | diff - "$folder/seen"
