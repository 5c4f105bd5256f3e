"""Frozen dataclasses as JSON and back, validated: for data that the server keeps in files of its own."""

from __future__ import annotations

from functools import cached_property
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

_T = TypeVar("_T")


class PlainData(Generic[_T]):
    """The JSON of one dataclass, whose fields are numbers, texts, enums, tuples, mappings and dataclasses.

    Args:
        kind: the dataclass.
    """

    def __init__(self, kind: type[_T]) -> None:
        self._kind = kind

    def dump(self, value: _T) -> bytes:
        """The JSON of a value."""
        return self._adapter.dump_json(value)

    def load(self, data: bytes) -> _T:
        """The value that a JSON text holds.

        Raises:
            ValueError: the text is not JSON, or does not fit the dataclass.
        """
        try:
            return self._adapter.validate_json(data)
        except ValidationError as error:
            raise ValueError(str(error)) from None

    @cached_property
    def _adapter(self) -> TypeAdapter[_T]:
        return TypeAdapter(self._kind)  # built on first use, which takes some milliseconds
