"""Finds the method for a path, such as `/predict/{model}`: segments in braces match any text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import grpc

from penstock.transport.grpc.call import Status
from penstock.transport.http.status import HttpStatus, bad_request

MOST_KNOWN, LONGEST_KNOWN = 1024, 256
"""How many paths are remembered, and the longest of them in bytes."""


class Route(NamedTuple):
    """A path that can be called.

    Attributes:
        verb: "GET" or "POST".
        template: the path; `{name}` stands for one segment.
        method: the full name of the method.
        json_size: the header with the size of the JSON in a body, if binary data may follow it; "" if all
            of a body is JSON.
    """

    verb: str
    template: str
    method: str
    json_size: str = ""


class Found(NamedTuple):
    """What a path leads to.

    Attributes:
        method: the full name of the method.
        parameters: the segments that stand in braces, by name.
        json_size: as `Route` has it.
    """

    method: str
    parameters: Mapping[str, str]
    json_size: str = ""


class Routes:
    """All paths that can be called.

    Args:
        routes: each of them.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        self._known: dict[tuple[str, bytes], Found] = {}  # most requests are for few paths
        self._by_length: dict[int, list[tuple[list[str], Route]]] = {}
        for route in routes:
            parts = route.template.split("/")
            self._by_length.setdefault(len(parts), []).append((parts, route))

    def find(self, verb: str, raw_path: bytes) -> Found | Status:
        """The method for a request; the status that ends it if there is none.

        Args:
            verb: the method of HTTP, such as "POST"; HEAD asks as GET does.
            raw_path: the path as it was sent, with its percent-encoding.
        """
        known = self._known.get((verb, raw_path))
        if known is not None:
            return known
        found = self._find(verb, raw_path)
        if isinstance(found, Found) and len(raw_path) <= LONGEST_KNOWN:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[verb, raw_path] = found
        return found

    def _find(self, verb: str, raw_path: bytes) -> Found | Status:
        try:
            parts = [_text(each) for each in raw_path.split(b"/")]
        except UnicodeDecodeError:
            return bad_request("the path is not UTF-8")
        if len(parts) > 1 and not parts[-1]:
            parts.pop()  # a slash at the end means nothing
        asked = "GET" if verb == "HEAD" else verb
        allowed = []
        for route, parameters in self._matching(parts):
            if route.verb == asked:
                return Found(route.method, parameters, route.json_size)
            allowed.append(route.verb)
        path = "/".join(parts) or "/"
        if allowed:
            words = f"{verb} is not allowed for {path}, only {', '.join(allowed)}"
            headers = (("allow", ", ".join(allowed).replace("GET", "GET, HEAD")),)
            return HttpStatus(grpc.StatusCode.UNIMPLEMENTED, words, http=405, headers=headers)
        return Status(grpc.StatusCode.NOT_FOUND, f"there is no path {path[:200]}; {self._like(path)}")

    def _like(self, path: str) -> str:
        """The paths that begin as this one does; where none does, one of each kind."""
        templates = list(dict.fromkeys(each.template for each in self._routes))
        found = [each for each in templates if _first(each) == _first(path)]
        kinds = {_first(each): each for each in reversed(templates)}
        return "there are " + ", ".join(found or reversed(kinds.values()))

    def _matching(self, parts: list[str]) -> Iterator[tuple[Route, dict[str, str]]]:
        for template, route in self._by_length.get(len(parts), ()):
            parameters = {}
            for part, expected in zip(parts, template, strict=True):
                if expected[:1] == "{":
                    parameters[expected[1:-1]] = part
                elif part != expected:
                    break
            else:
                yield route, parameters


def _first(path: str) -> str:
    return "/".join(path.split("/")[:2])


def _text(segment: bytes) -> str:
    return (unquote_to_bytes(segment) if b"%" in segment else segment).decode()
