"""How many examples Hypothesis makes up, the same ones every time."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

few = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
"""For every run of the tests."""
many = settings(few, max_examples=5000)
"""For `make soak`."""
