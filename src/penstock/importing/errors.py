"""Why a model is not imported."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


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


@contextmanager
def exporting(title: str, what: str = "its export to ONNX") -> Iterator[None]:
    """Around an exporter of another library, whose errors have no root in common.

    Args:
        title: the model.
        what: what fails, for the message.

    Raises:
        Refused: it fails.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ModuleNotFoundError, Refused):
        raise
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        said = f"{type(error).__name__}: {first.strip()[:300]}"
        raise Refused(f"{title}: {what} fails: {said}") from error
