from __future__ import annotations

from penstock.telemetry.observer import Sparing


def test_a_flood_of_lines_is_cut_and_counted() -> None:
    sparing = Sparing(3)
    assert [sparing.has_room(0.1 * at) for at in range(5)] == [True] * 3 + [False] * 2
    assert (sparing.left_out(), sparing.left_out()) == (2, 0)
    assert [sparing.has_room(at) for at in (0.99, 1.0, 1.5, 1.9, 1.99, 2.0)] == [
        False, True, True, True, False, True,
    ]  # fmt: skip
    assert sparing.left_out() == 2
