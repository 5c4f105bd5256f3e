"""The base of all sections of settings, and fields with a unit, limits and a description."""

from __future__ import annotations

import json
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator


def setting(default: Any, description: str, unit: str = "", **limits: Any) -> Any:
    """A field with its description and unit, and limits such as `ge=1`. Floats are always finite."""
    if isinstance(default, float):
        limits["allow_inf_nan"] = False
    return Field(default=default, description=description, json_schema_extra={"unit": unit}, **limits)


def inherited(section: type[BaseModel], name: str) -> Any:
    """A field that replaces the one of the same name in `section` for one model; None inherits it."""
    field = section.model_fields[name]
    text = f"Overrides `{section.__name__.removesuffix('Config').lower()}.{name}` for this model."
    return Field(default=None, description=text, json_schema_extra=field.json_schema_extra)


def _split(value: object) -> object:
    """Text such as `a, b` or `["a", "b"]`, as the environment and flags give lists, becomes a list."""
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        return json.loads(value)
    return tuple(part.strip() for part in value.split(",") if part.strip())


NonEmpty = Annotated[str, Field(min_length=1)]
AnyNames = Annotated[tuple[NonEmpty, ...], BeforeValidator(_split)]
Names = Annotated[AnyNames, Field(min_length=1)]


class Section(BaseModel):
    """The base of all sections: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: object, info: ValidationInfo) -> object:
        """Rejects booleans for numbers: in Python True equals 1, so `port = true` would be port 1.

        And the other way round: `exact = 1` is more likely a number of something than the word for true. The
        environment and flags give text.
        """
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and "bool" not in str(field.annotation):
            raise ValueError("should not be true or false")
        if isinstance(value, int | float) and not isinstance(value, bool) and _is_truth(field.annotation):
            raise ValueError("should be true or false")
        return value


def _is_truth(annotation: object) -> bool:
    """Whether a field may be true or false, and no number."""
    kinds = get_args(annotation)
    return annotation is bool or (bool in kinds and int not in kinds and float not in kinds)
