"""What keeps a measurement from being made."""

from __future__ import annotations


class BenchError(Exception):
    """No measurement can be made; the text says why, fit for the user."""
