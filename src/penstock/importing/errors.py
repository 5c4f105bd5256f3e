"""Why a model is not imported."""

from __future__ import annotations


class Refused(Exception):
    """A model cannot be imported, or its ONNX file is not right; the text says why and what to do."""
