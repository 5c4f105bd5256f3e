"""`make openapi` is for more examples; see `__main__`."""

from __future__ import annotations

import pytest

from tests.openapi import __main__ as openapi


@pytest.mark.soak
def test_nothing_undocumented_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    if not openapi.PROGRAM.exists():
        pytest.skip("schemathesis is not installed: make .venv-openapi/.made")
    monkeypatch.setattr("sys.argv", ["openapi"])
    assert openapi.main() == 0
