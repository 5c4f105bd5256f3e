"""What the tests of protocols share."""

from __future__ import annotations

import pytest

from penstock.protocols import turns


@pytest.fixture(autouse=True)
def _one_turn_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests hand over the next message at once, so each message is handled in one turn."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 1e9)
