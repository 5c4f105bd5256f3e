"""What schemathesis must be told: how lines are sent. It runs in an environment of its own."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context: Any, value: Any) -> bytes:
    """A body of lines: whatever is made up, as it is."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
