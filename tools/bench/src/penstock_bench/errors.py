"""The error of the load tool."""

from __future__ import annotations


class BenchError(Exception):
    """A measurement cannot be made; the text tells the user why."""
