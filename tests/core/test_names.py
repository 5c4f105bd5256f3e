"""Names in messages."""

from __future__ import annotations

import pytest

from penstock.core.names import missing


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["x"], "input x is missing"),
        (["support calls"], "input 'support calls' is missing"),
        (["a", "b, c", "größe"], "inputs a, 'b, c', größe are missing"),
    ],
)
def test_inputs_that_are_missing(names: list[str], words: str) -> None:
    assert missing(names) == words
