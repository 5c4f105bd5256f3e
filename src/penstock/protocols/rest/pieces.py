"""Parses large JSON in pieces, because orjson holds the interpreter for as long as one call takes.

A megabyte of JSON takes orjson 6 to 35 ms, and nothing else in the process runs meanwhile. So a large text
is cut at commas, each piece is completed with the brackets that are open at its ends, and parsed by itself.
Where the brackets and the commas are, numpy finds without holding the interpreter.

    {"instances": [[1, 2], [3,| 4], [5, 6]]}     is cut at the comma and becomes

    {"instances": [[1, 2], [3]]}      {KEY: [[4], [5, 6]]}
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from secrets import token_hex
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import orjson

from penstock.core.tensors import Array

PIECE = 2**17
"""About the size of a piece in bytes: at most 5 ms of parsing."""
SLICE = 16_384
"""Values that are freed at once."""
FEW = 64
"""Lists and objects with up to this many values are freed with what holds them."""
MOST_OPEN = 1024
"""Most lists and objects in each other, as orjson has it."""

QUOTE, BACKSLASH, COMMA, LIST = b'"\\,['
LOWER = 0x20  # makes "{" of "[", and "}" of "]"
ENDS = {"[": b"]", "{": b"}"}

KEY = f"continued-{token_hex(8)}"
"""Stands for the name of what goes on in a piece; no request can contain it."""

CONTAINERS = frozenset({list, dict})
Container: TypeAlias = "list[Any] | dict[str, Any]"


class NotJson(ValueError):
    """The text is not JSON.

    Args:
        words: what is wrong.
        position: where, in bytes.
    """

    def __init__(self, words: str, position: int) -> None:
        super().__init__(f"{words}: char {position}")


class Cut(NamedTuple):
    """A comma at which the text is cut.

    Attributes:
        position: of the comma.
        opened: where the lists and objects begin that are open there, from the outermost.
    """

    position: int
    opened: tuple[int, ...]


def loads(data: bytes, piece: int = PIECE) -> Any:
    """The value of a JSON text; as `orjson.loads`, and other threads run meanwhile.

    Args:
        data: the text.
        piece: the size of a piece in bytes.

    Raises:
        NotJson: it is not JSON.
    """
    merged = _Merged(data)
    try:
        for cut in cuts(data, piece):
            merged.add(cut)
            time.sleep(0)  # lets other threads have the interpreter
        return merged.end()
    except NotJson:
        let_go(merged.root)
        raise


class _Merged:
    """What the pieces of a text become.

    Args:
        data: the text.

    Attributes:
        root: the value so far.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._start = 0
        self._opened: tuple[int, ...] = ()
        self._spine: list[Container] = []  # those that are open at the last cut
        self.root: Any = None

    def add(self, cut: Cut) -> None:
        """Takes what stands before a cut."""
        self._take(cut.position, cut.opened)
        spine = []
        for level, place in enumerate(cut.opened):
            if level < len(self._opened) and self._opened[level] == place:
                spine.append(self._spine[level])
            elif not level:
                spine.append(self.root)
            else:
                spine.append(self._child(spine[-1], place))
        if not spine[-1]:
            raise NotJson("a comma without a value before it", cut.position)
        self._start, self._opened, self._spine = cut.position + 1, cut.opened, spine

    def end(self) -> Any:
        """Takes the rest; returns the value of the whole text."""
        self._take(len(self._data), ())
        return self.root

    def _take(self, end: int, opened: tuple[int, ...]) -> None:
        before = self._beginning()
        after = b"".join([ENDS[chr(self._data[each])] for each in reversed(opened)])
        try:
            found = orjson.loads(b"".join((before, self._data[self._start : end], after)))
        except orjson.JSONDecodeError as error:
            raise NotJson(error.msg, min(max(self._start - len(before) + error.pos, 0), end)) from None
        if not self._opened:
            self.root = found
            return
        levels = [found]
        for _ in self._opened[1:]:
            above = levels[-1]
            levels.append(above[0] if isinstance(above, list) else above[KEY])
        if not levels[-1]:
            raise NotJson("a comma without a value behind it", self._start - 1)
        last = len(levels) - 1
        for level, (target, new) in enumerate(zip(self._spine, levels, strict=True)):
            if isinstance(target, list):
                target.extend(new if level == last else new[1:])
            else:
                new.pop(KEY, None)
                target.update(new)

    def _beginning(self) -> bytes:
        """The brackets that are open where the piece begins."""
        names = f'{{"{KEY}":'.encode()
        outer = [b"[" if self._data[each] == LIST else names for each in self._opened[:-1]]
        return b"".join(outer) + b"".join([self._data[each : each + 1] for each in self._opened[-1:]])

    def _child(self, parent: Container, place: int) -> Any:
        """The container that begins at a position, the last one in another."""
        return parent[-1] if isinstance(parent, list) else parent[name_before(self._data, place)]


def name_before(data: bytes, place: int) -> str:
    """The name of the value that begins at a position of a valid object."""
    end = place - 1
    while data[end] != QUOTE:  # a colon, and spaces
        end -= 1
    start = data.rfind(b'"', 0, end)
    while _is_escaped(data, start):
        start = data.rfind(b'"', 0, start)
    name: str = orjson.loads(data[start : end + 1])
    return name


def _is_escaped(data: bytes, place: int) -> bool:
    before = place
    while before and data[before - 1] == BACKSLASH:
        before -= 1
    return bool((place - before) % 2)


def cuts(data: bytes, piece: int = PIECE) -> Iterator[Cut]:
    """Where to cut a text: about one cut for each piece.

    Raises:
        NotJson: lists or objects are nested too deeply.
    """
    scan = _Scan()
    for start in range(0, len(data) - piece, piece):
        cut = scan.block(data, start, piece)
        if scan.is_over:
            return  # what is left is no JSON, which the parser says
        if cut is not None:
            yield cut


class _Scan:
    """Reads a text block by block, as far as its quotes and brackets go.

    Attributes:
        is_over: whether more brackets were closed than opened.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._in_text = False
        self._is_escaped = False  # the next character
        self._opened: list[int] = []

    def block(self, data: bytes, start: int, size: int) -> Cut | None:
        """Reads the next block; returns the place in it where fewest brackets are open."""
        block = np.frombuffer(data, np.uint8, size, start)
        outside = self._outside(block)
        folded = block | LOWER
        opens, closes = (folded == ord("{")) & outside, (folded == ord("}")) & outside
        depths = np.cumsum(opens.view(np.int8) - closes.view(np.int8), dtype=np.int32) + len(self._opened)
        if depths.min() < 1:
            self.is_over = True
            return None
        if depths.max() > MOST_OPEN:
            raise NotJson("nested too deeply", start + int(depths.argmax()))
        commas = np.flatnonzero((block == COMMA) & outside)
        cut = None
        if len(commas):
            least = depths[commas]
            place = int(commas[len(commas) - 1 - int(np.argmin(least[::-1]))])
            cut = Cut(start + place, tuple(self._open_at(opens, depths, place, start)))
        self._opened = self._open_at(opens, depths, size - 1, start)
        return cut

    def _outside(self, block: Array) -> Array:
        """For each character whether it is outside of texts; bool."""
        quotes = block == QUOTE
        slashes = block == BACKSLASH
        if self._is_escaped:
            quotes[0] = slashes[0] = False
        self._is_escaped = False
        if slashes.any():
            index = np.arange(len(block), dtype=np.int32)
            others = np.maximum.accumulate(np.where(slashes, np.int32(-1), index))
            escapes = slashes & ((index - others) % 2 == 1)  # the first, third, ... of a row
            quotes[1:] &= ~escapes[:-1]
            self._is_escaped = bool(escapes[-1])
        inside = np.bitwise_xor.accumulate(quotes.view(np.uint8)) ^ np.uint8(self._in_text)
        self._in_text = bool(inside[-1])
        found: Array = inside == 0
        return found

    def _open_at(self, opens: Array, depths: Array, place: int, start: int) -> list[int]:
        """Where those begin that are open at a place of the block."""
        deep = int(depths[place])
        kept = min(int(depths[: place + 1].min()), len(self._opened))
        places = np.flatnonzero(opens[: place + 1])
        last = np.zeros(MOST_OPEN + 1, np.int64)
        last[depths[places]] = places + start  # of several at one depth, the last one counts
        return [*self._opened[:kept], *map(int, last[kept + 1 : deep + 1])]


def let_go(value: Any) -> None:
    """Empties lists and objects bit by bit: millions of objects at once take nearly as long as to make."""
    left = [value]
    while left:
        found = left.pop()
        while isinstance(found, list | dict) and found:
            if isinstance(found, dict):
                part = [found.popitem()[1] for _ in range(min(len(found), SLICE))]
            else:
                part = found[-SLICE:]
                del found[-SLICE:]
            if not CONTAINERS.isdisjoint(map(type, part)):
                left += [each for each in part if type(each) in CONTAINERS and _is_large(each)]
            if len(part) == SLICE:
                time.sleep(0)


def _is_large(value: Container) -> bool:
    if len(value) > FEW:
        return True
    if type(value) is list:
        return bool(value) and type(value[0]) in CONTAINERS
    return not CONTAINERS.isdisjoint(map(type, value.values()))  # type: ignore[union-attr]
