"""Cancelling costs as much as there are requests: many tags that no request has cost next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from penstock.protocols.fast_path import known_requests
from protocols.test_cancel_tags import TAG, Talk, expected, learned


class OnlyLookedUp(set[int]):
    """Tags that may be looked up only: to walk through them would take as long as there are tags."""

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("all tags are walked through for each item that waits")


@pytest.fixture(autouse=True)
def _learning_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_requests, "LEARNING_SECONDS", 0.0)


@pytest.mark.parametrize("count", [3, 8], ids=["one by one", "a micro-batch"])
def test_tags_are_looked_up_and_not_walked_through(count: int) -> None:
    talk: Any = Talk(learned())
    talk.send(*range(count))
    talk._handler._cancel_tags(OnlyLookedUp({TAG + 1, TAG + 100, 0}))
    assert talk.end() == expected(count, 1)
