"""`make openapi` is for more examples; see `__main__`."""

from __future__ import annotations

import pytest

from tests.openapi import __main__ as openapi


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    if not openapi.PROGRAM.exists():
        pytest.skip("schemathesis is not installed: make .venv-openapi/.made")
    monkeypatch.setattr("sys.argv", ["openapi", *words])
    return openapi.main()


@pytest.mark.timeout(600)
def test_nothing_undocumented_comes_in_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "-n", "2", "--seed", "1", "--phases", "fuzzing") == 0


@pytest.mark.soak
def test_nothing_undocumented_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch) == 0
