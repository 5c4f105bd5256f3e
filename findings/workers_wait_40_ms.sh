#!/usr/bin/env bash
# With `uvicorn --workers 2`, every answer on a connection that is kept waits about 40 ms, which it does not with one
# process. So a server that was given more processes for more speed answers a lone caller some forty times later.
#
# Versions: uvicorn 0.54.0 with its default parser in Python (h11 0.16.0) and asyncio's event loop; Python 3.11, Linux.
#
# Why: asyncio switches Nagle's algorithm off for connections whose socket says that its protocol is TCP. The socket that
# uvicorn makes to be shared by processes leaves the protocol open (0, which the kernel takes for TCP), and connections
# inherit that. An answer is written in two parts, head and body; the second one then waits for the client's delayed
# acknowledgement of the first. One process lets asyncio make the socket. uvloop, where it is installed, looks at the
# kind of the socket only, and has no such wait.
#
# Seen on 2026-11-29, median of 50 answers on one connection:
#   one process 1.8 ms, two workers 46.4 ms; two workers with uvloop 0.22.1 0.3 ms (a busy machine)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check uvicorn==0.54.0 h11==0.16.0 uvloop==0.22.1
cat > "$folder/answering.py" <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
PYTHON

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import http.client
import socket
import statistics
import subprocess
import sys
import time

folder = sys.argv[1]


def median_ms(*options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [f"{folder}/venv/bin/uvicorn", "answering:app", "--port", str(port), "--log-level", "error", *options]
    server = subprocess.Popen(command, cwd=folder)
    try:
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < end, "the server does not start"
                time.sleep(0.1)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        took = []
        for _ in range(50):
            began = time.perf_counter()
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"ok"
            took.append((time.perf_counter() - began) * 1000)
        return statistics.median(took)
    finally:
        server.terminate()
        server.wait()


one = median_ms("--loop", "asyncio")
two = median_ms("--loop", "asyncio", "--workers", "2")
uvloop = median_ms("--loop", "uvloop", "--workers", "2")
print(f"one process {one:.1f} ms, two workers {two:.1f} ms, two workers with uvloop {uvloop:.1f} ms")
sys.exit(0 if two > 30 > 10 > max(one, uvloop) else "the behaviour is not the same any more")
PYTHON
