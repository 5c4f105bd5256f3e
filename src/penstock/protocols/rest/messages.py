"""Messages of protobuf as objects of JSON, as Triton writes them: with their field names, and numbers."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message


def fields_of(message: Message) -> dict[str, Any]:
    """The fields of a message; those without a value are left out if the message knows that."""
    found = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        found[field.name] = _value(field, getattr(message, field.name))
    return found


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return fields_of(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, int) and field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    if isinstance(value, str | int | float):
        return value
    if hasattr(value, "items"):
        kind = field.message_type.fields_by_name["value"]
        return {str(key): _value(kind, value[key]) for key in value}
    return [_value(field, each) for each in value]
