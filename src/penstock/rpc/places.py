"""Where the parts of a serialized request are that differ from one to the next."""

from __future__ import annotations

from typing import TypeAlias

Span: TypeAlias = tuple[int, int]
NOWHERE: Span = (0, 0)


class Places:
    """The parts; NOWHERE for those that a request has not.

    Attributes:
        inputs: the raw values of each input.
        id: the text of the id.
        tag: the number that is the tag.
    """

    __slots__ = ("id", "inputs", "tag")

    def __init__(self) -> None:
        self.id = self.tag = NOWHERE
        self.inputs: dict[str, Span] = {}


def once(before: Span, start: int, end: int) -> Span:
    """The place of a field that may be there once only.

    Raises:
        ValueError: it has been there before, or is empty.
    """
    if before != NOWHERE or start == end:
        raise ValueError("a field is there twice, or empty")
    return start, end
