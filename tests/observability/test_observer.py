from __future__ import annotations

from penstock.observability.observer import LineLimit


def test_a_flood_of_lines_is_cut_and_counted() -> None:
    limit = LineLimit(3)
    assert [limit.has_room(0.1 * at) for at in range(5)] == [True] * 3 + [False] * 2
    assert (limit.left_out(), limit.left_out()) == (2, 0)
    assert [limit.has_room(at) for at in (0.99, 1.0, 1.5, 1.9, 1.99, 2.0)] == [
        False, True, True, True, False, True,
    ]  # fmt: skip
    assert limit.left_out() == 2
