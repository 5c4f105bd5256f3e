"""Cases that end their process or take too long are failures, and the others are run all the same."""

from __future__ import annotations

import os
import time

import pytest

from importing import workers


def task(what: str) -> str:
    """A task that ends its process, takes too long, or gives its name."""
    if what == "ends":
        os._exit(3)
    if what == "hangs":
        time.sleep(600)
    return what


@pytest.mark.timeout(120)
def test_one_bad_task_is_one_bad_row() -> None:
    names = ["first", "ends", "hangs", "ends", "last"]
    found = {each.place: each for each in workers.run(task, [(each,) for each in names], 2, 5)}
    assert [found[i].result for i in range(5)] == ["first", None, None, None, "last"]
    assert [found[i].failure for i in range(5)] == [
        "",
        "its process ended with status 3",
        "no result within 5 s",
        "its process ended with status 3",
        "",
    ]
    assert found[2].seconds >= 5
