"""How cores are shared out."""

from __future__ import annotations

import pytest

from penstock.config import Config, RunnersConfig
from penstock.processes.split import described, shares


@pytest.mark.parametrize(
    ("cores", "processes", "expected"),
    [(8, 1, [8]), (8, 2, [4, 4]), (8, 3, [3, 3, 2]), (2, 2, [1, 1]), (2, 5, [1, 1, 1, 1, 1])],
)
def test_every_process_has_its_share_and_at_least_one(cores, processes, expected) -> None:
    assert shares(cores, processes) == expected


@pytest.mark.parametrize(
    ("cores", "processes", "words"),
    [
        (8, 2, "2 on 8 cores: 4 cores each "),
        (8, 3, "3 on 8 cores: 2 or 3 cores each "),
        (2, 2, "2 on 2 cores: 1 core each "),
        (2, 5, "5 on 2 cores, which they share: 1 runner thread each"),
    ],
)
def test_the_split_in_words(cores, processes, words) -> None:
    assert described(cores, shares(cores, processes), Config()).startswith(words)


def test_threads_that_the_settings_ask_for_are_no_split() -> None:
    config = Config(runners=RunnersConfig(threads=3))
    assert "each with runners.threads = 3 and" in described(8, [4, 4], config)
