from __future__ import annotations

import pytest

from penstock.transport.call import Transport
from penstock.transport.portable import Portable
from penstock.transport.reactor import Reactor


@pytest.fixture(params=[Reactor, Portable], ids=["reactor", "portable"])
def road(request: pytest.FixtureRequest) -> type[Transport]:
    """Every test of the contract runs on both roads."""
    kind: type[Transport] = request.param
    return kind
