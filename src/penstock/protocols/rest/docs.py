"""`/docs`: a page to read and try `/openapi.json`, made of Swagger UI's files.

They come from a package of the extra `docs`, which is never imported: only its files are read. The page loads
nothing from other machines.
"""

from __future__ import annotations

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import grpc

from penstock.protocols.rest.pages import page
from penstock.transport.grpc.call import OK, Methods, Status
from penstock.transport.http.bodies import coding
from penstock.transport.http.call import HttpCall
from penstock.transport.http.routes import Route

DOCS = "/penstock.rest/Docs"
DOCS_FILE = "/penstock.rest/DocsFile"
ROUTES = (Route("GET", "/docs", DOCS), Route("GET", "/docs/{file}", DOCS_FILE))

PACKAGE, FOLDER = "flask_swagger_ui", "dist"
FILES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
"""The files of the package that are served, and what they are."""
START = "start.js"
"""The page's own script: the policy allows none within the page."""

MISSING = (
    "the page /docs needs Swagger UI's files: pip install '.[docs]' in Penstock's checkout; the description "
    "itself is at /openapi.json"
)
HTML = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Penstock: REST</title>
<link rel="icon" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<noscript>This page needs JavaScript; the description is <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
SCRIPT = b"""SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null, tryItOutEnabled: true,
});
"""
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles within the page."""


def methods() -> Methods:
    """The methods, by full name."""
    return {DOCS: page(_docs), DOCS_FILE: page(_file)}


def _docs(call: HttpCall) -> tuple[Status, bytes | None]:
    if folder() is None:
        return Status(grpc.StatusCode.NOT_FOUND, MISSING), None
    call.answer_headers += [(b"content-security-policy", POLICY), (b"referrer-policy", b"no-referrer")]
    _is(call, "text/html; charset=utf-8", "no-store")
    return OK, HTML


def _file(call: HttpCall) -> tuple[Status, bytes | None]:
    name = call.parameters["file"]
    if folder() is None:
        return Status(grpc.StatusCode.NOT_FOUND, MISSING), None
    if name == START:
        _is(call, FILES["swagger-ui-bundle.js"], "no-store")
        return OK, SCRIPT
    if name not in FILES:
        names = ", ".join((START, *FILES))
        return Status(grpc.StatusCode.NOT_FOUND, f"there is no file {name[:100]}; there are {names}"), None
    plain, compressed = contents(name)
    _is(call, FILES[name], "max-age=3600")
    if coding(call.headers.get("accept-encoding", "")) != "gzip":
        return OK, plain
    # Compressing it for each client would hold up other calls.
    call.answer_headers += [(b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")]
    return OK, compressed


def _is(call: HttpCall, content_type: str, kept: str) -> None:
    call.header(b"content-type", content_type)
    call.header(b"cache-control", kept)
    call.header(b"x-content-type-options", "nosniff")


@cache
def folder() -> Path | None:
    """Where Swagger UI's files lie; None if the package is not installed."""
    spec = find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = Path(places[0]) / FOLDER if places else None
    return found if found is not None and (found / "swagger-ui-bundle.js").is_file() else None


@cache
def contents(name: str) -> tuple[bytes, bytes]:
    """A file as it is and compressed, read once."""
    place = folder()
    assert place is not None, "asked before"
    data = (place / name).read_bytes()
    return data, gzip.compress(data, 1)
