"""What a handler can know of its caller: metadata, address, and who it proved to be by mutual TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock.transport.grpc.call import ServerCall, Transport
from support.calls import OWN_CONNECTION, SECONDS, Echo, Handlers, Served, served, unary

CERTS = Path(__file__).parent / "certs"
"""Made by `certs/make.sh`, for this only."""


class Asking(Echo):
    """Asks its call everything while it lasts."""

    def __init__(self, call: ServerCall) -> None:
        super().__init__(call)
        self.peer = call.peer()
        self.identities = call.identities()
        self.auth_context = call.auth_context()


def read(name: str) -> bytes:
    return (CERTS / name).read_bytes()


def connect(server: Served, **more: Any) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(read("ca.pem"), **more)
    options = (*OWN_CONNECTION, ("grpc.ssl_target_name_override", "penstock-test-server"))
    return grpc.secure_channel(f"localhost:{server.port}", credentials, options)


@pytest.fixture
def asking() -> Handlers:
    return Handlers(Asking)


@pytest.fixture(params=[False, True], ids=["tls", "mutual-tls"])
def mutual(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def secure_server(transport: type[Transport], asking: Handlers, mutual: bool) -> Iterator[Served]:
    pair = (read("server.key"), read("server.pem"))
    credentials = grpc.ssl_server_credentials([pair], read("ca.pem") if mutual else None, mutual)
    with served(transport, {"/t/M": unary(asking)}, credentials=credentials) as server:
        yield server


def test_metadata(transport: type[Transport], asking: Handlers) -> None:
    with served(transport, {"/t/M": unary(asking)}) as server, server.channel() as channel:
        sent = (("model", "lead_scoring"), ("x-bin", b"\x00\xff"), ("twice", "1"), ("twice", "2"))
        channel.unary_unary("/t/M")(b"", metadata=sent, timeout=SECONDS)
        call = asking.only().call
        assert [pair for pair in call.metadata if pair[0] in ("model", "x-bin", "twice")] == list(sent)
        assert "grpc-python" in dict(call.metadata)["user-agent"]
        assert all(isinstance(key, str) for key, _ in call.metadata)


def test_a_plain_caller(transport: type[Transport], asking: Handlers) -> None:
    with served(transport, {"/t/M": unary(asking)}) as server, server.channel() as channel:
        channel.unary_unary("/t/M")(b"", timeout=SECONDS)
        handler = asking.only()
        assert handler.peer.startswith("ipv4:127.0.0.1:")
        assert list(handler.identities) == []
        assert handler.auth_context["transport_security_type"] == [b"insecure"]


@pytest.mark.parametrize("mutual", [True], indirect=True)
def test_a_caller_with_a_certificate(secure_server: Served, asking: Handlers) -> None:
    mine = {"private_key": read("client.key"), "certificate_chain": read("client.pem")}
    with connect(secure_server, **mine) as channel:
        assert channel.unary_unary("/t/M")(b"x", timeout=SECONDS) == b"x"
    handler = asking.only()
    assert list(handler.identities) == [b"penstock-test-client", b"localhost"]
    assert handler.auth_context["x509_common_name"] == [b"penstock-test-client"]
    assert handler.auth_context["transport_security_type"] == [b"ssl"]


def test_a_caller_without_a_certificate(secure_server: Served, asking: Handlers, mutual: bool) -> None:
    with connect(secure_server) as channel:
        call = channel.unary_unary("/t/M")
        if mutual:
            with pytest.raises(grpc.RpcError) as raised:
                call(b"", timeout=SECONDS)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert asking.made == []
        else:
            assert call(b"x", timeout=SECONDS) == b"x"
            assert list(asking.only().identities) == []


def test_a_plain_caller_of_a_secure_port(secure_server: Served, asking: Handlers) -> None:
    with secure_server.channel() as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/t/M")(b"", timeout=SECONDS)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert asking.made == []
