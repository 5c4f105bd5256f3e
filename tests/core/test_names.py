"""Names in messages."""

from __future__ import annotations

import pytest

from penstock.core.names import are, many, missing


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


def test_one_has_no_plural() -> None:
    assert [many(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert many(12345, "byte", ",") == "12,345 bytes"
    assert (are(1, "row"), are(2, "row")) == ("1 row is", "2 rows are")
