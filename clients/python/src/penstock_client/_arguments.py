"""Checks the arguments of the client's methods: an error says which one is wrong, and what came."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from operator import index
from typing import Any

_LARGEST_PRIORITY = 2**31 - 1


def is_number(value: object) -> bool:
    """Whether it is a number of Python's or numpy's, and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Whether it is an integer of Python's or numpy's, and not a bool."""
    if isinstance(value, bool):
        return False
    try:
        index(value)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        return False
    return True


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Checks an integer.

    Args:
        name: of the argument.
        value: that came.
        least: the least that it may be.
        most: the most that it may be; None for no limit.

    Raises:
        TypeError: it is no integer.
        ValueError: it is out of its range.
    """
    allowed = f"at least {least}" if most is None else f"{least} to {most}"
    if not is_whole(value):
        raise TypeError(f"{name} is an integer, {allowed}, not {value!r}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name} is {allowed}, not {value!r}")


def check_text(name: str, value: object) -> None:
    """Checks a text.

    Raises:
        TypeError: it has another type.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str, not {value!r}")


def check_version(version: object) -> None:
    """Checks the version of a model.

    Raises:
        TypeError: it is neither a text nor an integer.
    """
    if not isinstance(version, str) and not is_whole(version):
        raise TypeError(f'version is a number, a label, or "" for the default, not {version!r}')


def check_fields(
    model: object, version: object, outputs: tuple[object, ...] | None, priority: object
) -> None:
    """Checks the fields of a request that stay the same from call to call.

    Args:
        model: the model's name.
        version: a version number, a label, or "" for the default.
        outputs: the names of outputs; None for all.
        priority: of the request.

    Raises:
        TypeError: one has a wrong type.
        ValueError: the priority has more than 32 bits.
    """
    check_text("model", model)
    check_version(version)
    if outputs is not None and not all(isinstance(name, str) for name in outputs):
        raise TypeError(no_names(outputs))
    check_whole("priority", priority, -_LARGEST_PRIORITY - 1, _LARGEST_PRIORITY)


def no_names(outputs: object) -> str:
    """The text of the error for outputs that are no names."""
    return f"outputs is a list of names, a name, or None for all, not {outputs!r}"


def check_headers(pairs: Iterable[tuple[object, object]]) -> None:
    """Checks the metadata of all calls of a client.

    Raises:
        TypeError: a key is no text, or a value neither text nor bytes.
    """
    for key, value in pairs:
        if not isinstance(key, str) or not isinstance(value, (str, bytes)):
            raise TypeError(f"metadata is a str, or bytes, for a str, not {value!r} for {key!r}")
