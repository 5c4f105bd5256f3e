"""Names and numbers in messages: a name that a caller sent, the names that exist, how many there are."""

from __future__ import annotations

from collections.abc import Sequence

LISTED = 20  # names in an error, at most
LINE_LENGTH = 100  # of a list on one line
SHOWN_LENGTH = 100  # of a name that was sent: errors are sent in headers, which must be short


def short(name: str) -> str:
    """At most `SHOWN_LENGTH` characters of a caller's name."""
    return name if len(name) <= SHOWN_LENGTH else f"{name[:SHOWN_LENGTH]}..."


def shown(name: str) -> str:
    """A caller's name in quotes, at most `SHOWN_LENGTH` characters of it."""
    return repr(short(name))


def missing(names: Sequence[str]) -> str:
    """That these inputs are missing; names with blanks or commas are in quotes."""
    told = listed([repr(name) if {*name} & {*" ,"} else name for name in names])
    return f"input {told} is missing" if len(names) == 1 else f"inputs {told} are missing"


def listed(names: Sequence[str]) -> str:
    """Names, at most `LISTED` of them and each at most `SHOWN_LENGTH` long, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(map(short, names[:LISTED])) or "none") + more


def many(number: int, noun: str, separator: str = "") -> str:
    """A number with its noun, in the singular for one; `separator` is that of thousands."""
    return f"{number:{separator}} {noun}{'' if number == 1 else 's'}"


def are(number: int, noun: str, separator: str = "") -> str:
    """As `many`, with "is" or "are"."""
    return f"{many(number, noun, separator)} {'is' if number == 1 else 'are'}"


def on_lines(title: str, texts: Sequence[str]) -> str:
    """A title and what it lists, on one line if that is short, else one below the other."""
    line = ", ".join(texts) or "none"
    if len(line) > LINE_LENGTH:
        line = f"\n{' ' * len(title)}".join(texts)
    return title + line
