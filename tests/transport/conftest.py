from __future__ import annotations

import pytest

from penstock.transport.grpc.call import Transport
from penstock.transport.grpc.portable import Portable
from penstock.transport.grpc.reactor import Reactor


@pytest.fixture(params=[Reactor, Portable], ids=["reactor", "portable"])
def transport(request: pytest.FixtureRequest) -> type[Transport]:
    """Every test of the contract runs on both transports."""
    kind: type[Transport] = request.param
    return kind
