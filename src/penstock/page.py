"""Builds the page that the operations port shows, for a server and for the supervisor of several processes.

The page is one file. It shows what `/events` sends, and calls models by `/call`, which passes the call on to
the server's own HTTP port: so it is one more request to the same services, with the same limits and errors.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from importlib.resources import files
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from penstock import __version__
from penstock.core.address import address
from penstock.observability.families import Family
from penstock.observability.page import figures
from penstock.observability.page.feed import Feed, TooManyWatchers
from penstock.operations import Page, Question, Reply

HTML, EVENTS, PLAIN = "text/html; charset=utf-8", "text/event-stream", "text/plain; charset=utf-8"
JSON = "application/json"
CALL_SECONDS = 60.0
"""The longest that a call from the page may take."""
PASSED_ON = re.compile(r"penstock-(?!timing$)[a-z-]+|authorization")
"""The headers of a call that are passed on."""
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Where a server that listens on all addresses is reached from its own machine."""

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer of the page."""


class Seen(NamedTuple):
    """What the page shows.

    Attributes:
        families: all metrics.
        models: JSON of every version of every model; see `penstock.described`.
        errors: the recent errors, the newest first; see `penstock.observability.page.errors.Entry`.
    """

    families: Sequence[Family]
    models: Sequence[str]
    errors: Sequence[Mapping[str, Any]]


class Ports(NamedTuple):
    """Where the server is reached.

    Attributes:
        host: the host that it listens on.
        grpc: the port of gRPC.
        http: the port of HTTP; 0 if it is switched off.
    """

    host: str
    grpc: int
    http: int


class StatusPage:
    """The page, with its stream of events and its calls.

    Args:
        see: returns what is shown; called once a second while the page is open.
        ready: whether requests can be served, and why not.
        ports: returns where the server is reached.
        names: host names by which the page may be asked for, beside localhost and IP addresses.
    """

    def __init__(
        self,
        see: Callable[[], Seen],
        ready: Callable[[], tuple[bool, str]],
        ports: Callable[[], Ports],
        names: Collection[str] = (),
    ) -> None:
        self._see = see
        self._ready = ready
        self._ports = ports
        self._names = frozenset(name.lower() for name in ("localhost", *names))
        self._figures = figures.Figures()
        self._feed = Feed(self._news)
        self._file: tuple[bytes, str] | None = None  # and its Content-Security-Policy

    def pages(self) -> Mapping[str, Page]:
        """The pages, by path, for the operations server."""
        return {
            "/": Page(self._own(self._html), media_type="text/html"),
            "/events": Page(self._own(self._events)),
            "/call": Page(self._own(self._call), method="POST"),
        }

    def close(self) -> None:
        """Ends all streams of events."""
        self._feed.close()

    def _own(self, answer: Callable[[Question], Reply]) -> Callable[[Question], Reply]:
        """A page that is only for requests that name this server as their host."""

        def checked(question: Question) -> Reply:
            if (reason := why_misnamed(question.headers.get("host", ""), self._names)) is not None:
                return _problem(403, "Forbidden", reason)
            return answer(question)

        return checked

    def _html(self, question: Question) -> Reply:
        if self._file is None:
            data = (files("penstock.observability.page") / "page.html").read_bytes()
            self._file = data, policy(data.decode())
        data, allowed = self._file
        return Reply(200, HTML, data, {**SAFE, "Content-Security-Policy": allowed, "Vary": "Accept"})

    def _events(self, question: Question) -> Reply:
        try:
            watcher = self._feed.watch()
        except TooManyWatchers as error:
            return Reply(503, PLAIN, f"{error}\n".encode(), {**SAFE, "Retry-After": "5"})
        return Reply(200, EVENTS, watcher, {**SAFE, "X-Accel-Buffering": "no"})

    def _news(self) -> dict[str, bytes]:
        """The data of each event."""
        seen = self._see()
        ready, reason = self._ready()
        ports = self._ports()
        shown = self._figures.update(figures.look(seen.families, time.monotonic()))
        shown |= {"at": time.time(), "ready": ready, "reason": reason}
        about = json.dumps({"version": __version__, "grpc": ports.grpc, "http": ports.http})
        models = f'{about[:-1]}, "models": [{", ".join(seen.models)}]}}'
        news = {"models": models, "errors": json.dumps(seen.errors), "figures": json.dumps(shown)}
        return {name: text.encode() for name, text in news.items()}

    def _call(self, question: Question) -> Reply:
        """Passes a call on to the server's HTTP port."""
        if (reason := why_foreign(question.headers)) is not None:
            return _problem(403, "Forbidden", reason)
        ports = self._ports()
        if not ports.http:
            return _problem(
                404, "Not Found", "HTTP is switched off (server.http): the page cannot call models"
            )
        asked = {key: values[-1] for key, values in parse_qs(question.query).items()}
        if "model" not in asked:
            return _problem(
                400, "Bad Request", "the query names no model, expected ?model=NAME&version=VERSION"
            )
        path = f"/predict/{quote(asked['model'], safe='')}"
        if "version" in asked:
            path += f"/versions/{quote(asked['version'], safe='')}"
        headers = {key: value for key, value in question.headers.items() if PASSED_ON.fullmatch(key)}
        headers |= {"content-type": JSON, "penstock-timing": "true"}
        host = ANY_ADDRESS.get(ports.host, ports.host)
        connection = HTTPConnection(host, ports.http, timeout=CALL_SECONDS)
        try:
            connection.request("POST", path, question.body, headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as error:
            where = address(host, ports.http)
            return _problem(
                502, "Bad Gateway", f"the call to {where} failed: {error or type(error).__name__}"
            )
        finally:
            connection.close()
        timing = answer.getheader("server-timing")
        more = {"Server-Timing": timing} if timing else {}
        return Reply(answer.status, answer.getheader("content-type", JSON), body, {**SAFE, **more})


def why_foreign(headers: Mapping[str, str]) -> str | None:
    """Why a call may come from another site's page, which must not call models; None if it does not.

    Args:
        headers: of the call, names in lower case.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        return f"content-type is {headers.get('content-type', '')[:100]!r}, expected {JSON}"
    site = headers.get("sec-fetch-site", "same-origin")
    if site != "same-origin":
        return f"the call comes from another site's page (sec-fetch-site: {site[:100]})"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return f"the call comes from a page of {origin[:100]}, not of this server"
    return None


def why_misnamed(host: str, names: Collection[str]) -> str | None:
    """Why a request may come from another site's page whose name leads to this server; None if it does not.

    For a browser, such a page is of the same origin as this server (DNS rebinding). An IP address cannot be
    led elsewhere, and a client that names no host is no browser.

    Args:
        host: the header, maybe with a port.
        names: those of this server, in lower case.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        name = host
    if not host or name in names or _is_address(name):
        return None
    return f"the host is {host[:100]!r}, expected an IP address, localhost or a name in server.page_names"


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _problem(status: int, title: str, detail: str) -> Reply:
    fields = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Reply(status, "application/problem+json", json.dumps(fields).encode(), SAFE)


def policy(html: str) -> str:
    """The Content-Security-Policy for a page: its own style and script, and nothing else."""
    hashes = {}
    for tag in ("style", "script"):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[tag] = f"'sha256-{digest}'"
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {hashes['style']}",
            f"script-src {hashes['script']}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
