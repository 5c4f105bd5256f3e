#!/usr/bin/env bash
# A POST of Java's own HTTP client reaches an application behind uvicorn without its body. The client offers to go over
# to HTTP/2 ("Upgrade: h2c") unless it is told not to, which a server may ignore; uvicorn says in its log that it does.
#
# Versions: uvicorn 0.54.0 with httptools 0.8.0; with h11 0.16.0 the body comes. Python 3.11, Linux. The script makes
# the offer as RFC 7540 (3.2) has it; java.net.http.HttpClient prefers HTTP/2 by default. Java itself was not run.
#
# Why: httptools stops at the end of the head when a request offers an upgrade, and leaves what follows to the protocol
# that was agreed upon. uvicorn agrees to nothing, and hands the request on without the rest. `pip install
# uvicorn[standard]`, as guides have it, brings httptools, so the same server has the fault or not by what is installed.
# A service sees an empty JSON document, and its caller an error that speaks of a missing body.
#
# Seen on 2026-11-29, bytes of a body of 21 that the application received:
#   httptools 0, h11 21; without the offer 21 with both
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check uvicorn==0.54.0 h11==0.16.0 httptools==0.8.0
cat > "$folder/counting.py" <<'PYTHON'
async def app(scope, receive, send):
    """Answers with how many bytes the body has."""
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})
PYTHON

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import http.client
import socket
import subprocess
import sys
import time

folder = sys.argv[1]
BODY = b'{"instances": [1, 2]}'
OFFER = {
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
}


def received(parser):
    """How many bytes of the body come, with the offer and without it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [f"{folder}/venv/bin/uvicorn", "counting:app", "--port", str(port), "--log-level", "error", "--http", parser]
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
        counts = []
        for headers in (OFFER, {}):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("POST", "/", BODY, headers)
            counts.append(int(connection.getresponse().read()))
            connection.close()
        return counts
    finally:
        server.terminate()
        server.wait()


seen = {parser: received(parser) for parser in ("httptools", "h11")}
print("bytes received with the offer, and without it:", seen)
same = seen == {"httptools": [0, len(BODY)], "h11": [len(BODY), len(BODY)]}
sys.exit(0 if same else "the behaviour is not the same any more")
PYTHON
