"""Why a model is not imported."""

from __future__ import annotations

from collections.abc import Sequence


class Refused(Exception):
    """A model cannot be imported, or its ONNX file is not right; the text says why and what to do."""


class LacksColumns(Refused):
    """The sample lacks columns of the model.

    Args:
        text: why.
        missing: their names.
    """

    def __init__(self, text: str, missing: Sequence[str]) -> None:
        super().__init__(text)
        self.missing = missing
