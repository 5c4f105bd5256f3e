"""Operations over HTTP, by real clients on real sockets."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from penstock.core.errors import StartupError
from penstock.operations import OpsServer
from support.threads import NewThreads


class Parts:
    """What the server asks; tests change it."""

    def __init__(self) -> None:
        self.ready: tuple[bool, str] = (True, "ok")
        self.alive: tuple[bool, str] = (True, "ok")
        self.render: Callable[[str], tuple[str, bytes]] = lambda accept: ("text/x", f"for {accept}".encode())

    def server(self, host: str = "127.0.0.1", port: int = 0, timeout: float = 10.0) -> OpsServer:
        return OpsServer(
            host,
            port,
            render_metrics=lambda accept: self.render(accept),  # noqa: PLW0108 - tests replace it
            ready=lambda: self.ready,
            alive=lambda: self.alive,
            timeout_seconds=timeout,
        )


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
def port(parts: Parts) -> Iterator[int]:
    server = parts.server()
    yield server.start()
    server.stop()


def ask(
    port: int, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_the_pages(port: int, parts: Parts) -> None:
    response, text = ask(port, "/livez")
    assert (response.status, text) == (200, "ok\n")
    assert response.getheader("Server") == "penstock"  # and no versions
    response, text = ask(port, "/")
    assert (response.status, text.split()) == (200, ["/metrics", "/livez", "/readyz"])
    response, text = ask(port, "/metrics?x=1", Accept="application/openmetrics-text")
    assert (response.status, text) == (200, "for application/openmetrics-text")
    assert response.getheader("Content-Type") == "text/x"
    assert response.getheader("Content-Length") == str(len(text))


def test_readiness_follows_the_server_and_says_why(port: int, parts: Parts) -> None:
    assert ask(port, "/readyz")[0].status == 200
    parts.ready = (False, "lead_scoring is loading")
    response, text = ask(port, "/readyz")
    assert (response.status, text) == (503, "lead_scoring is loading\n")
    assert ask(port, "/livez")[0].status == 200
    parts.ready = (True, "ok")
    assert ask(port, "/readyz")[0].status == 200


def test_a_process_that_cannot_do_its_work_says_so(port: int, parts: Parts) -> None:
    parts.alive = (False, "a run hangs")
    response, text = ask(port, "/livez")
    assert (response.status, text) == (503, "a run hangs\n")


def test_head_is_get_without_the_body(port: int) -> None:
    for path in ("/", "/metrics", "/livez", "/readyz", "/none"):
        got, text = ask(port, path)
        head, nothing = ask(port, path, "HEAD")
        assert (head.status, nothing) == (got.status, "")
        assert head.getheader("Content-Length") == str(len(text)) == got.getheader("Content-Length")


@pytest.mark.parametrize("path", ["/none", "/metrics/", "/livez/x", "/../etc/passwd"])
def test_other_pages_do_not_exist(port: int, path: str) -> None:
    response, text = ask(port, path)
    assert response.status == 404
    assert "/metrics" in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_refused(port: int, method: str) -> None:
    response, _ = ask(port, "/livez", method, b"x" * 1000)
    assert response.status == 405
    assert response.getheader("Allow") == "GET, HEAD"
    assert ask(port, "/none", method)[0].status == 404


def test_a_body_is_taken_before_the_answer_which_could_be_lost_otherwise(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=0.2) as client:
        client.sendall(b"POST /livez HTTP/1.1\r\nContent-Length: 5\r\n\r\n12")
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(10)
        client.sendall(b"345")
        assert b" 405 " in client.recv(4096).partition(b"\r\n")[0]


def test_a_failure_is_answered_and_logged_without_its_text(
    port: int, parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_accept: str) -> tuple[str, bytes]:
        raise ValueError("secret")

    parts.render = fail
    with caplog.at_level(logging.ERROR):
        response, text = ask(port, "/metrics")
    assert response.status == 500
    assert "secret" not in text
    assert "secret" in caplog.text
    assert ask(port, "/livez")[0].status == 200


def test_requests_are_not_logged(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    ask(port, "/livez")
    ask(port, "/none")
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"rubbish\r\n\r\n")
        while client.recv(4096):
            pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET /" + b"x" * 100_000])
def test_garbage_harms_nobody(port: int, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        try:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            answer = client.recv(4096)
        except OSError:  # refused before all of it was sent, or before we knew that it was
            answer = b""
    assert b"200" not in answer
    assert ask(port, "/livez")[0].status == 200


def test_endless_headers_are_refused(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n")
        assert b" 431 " in client.recv(4096).partition(b"\r\n")[0]


def test_a_port_in_use_is_said(port: int, parts: Parts) -> None:
    with pytest.raises(
        StartupError, match=f"cannot listen on 127.0.0.1:{port} for operations: .*in use; --ops-port "
    ):
        parts.server(port=port).start()


def test_a_host_that_is_not_ours_is_said(parts: Parts) -> None:
    with pytest.raises(StartupError, match=r"cannot listen on 192.0.2.1:0 for operations: "):
        parts.server("192.0.2.1").start()
    with pytest.raises(StartupError, match=r"cannot listen on no host:0 for operations: "):
        parts.server("no host").start()


def test_ipv6(parts: Parts) -> None:
    server = parts.server("::1")
    try:
        port = server.start()
    except StartupError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    connection = http.client.HTTPConnection("::1", port, timeout=10)
    connection.request("GET", "/livez")
    assert connection.getresponse().status == 200
    connection.close()
    server.stop()


def test_stuck_clients_hold_up_neither_others_nor_the_stop(parts: Parts) -> None:
    threads = NewThreads()
    server = parts.server(timeout=60)
    port = server.start()
    # More than there may be: the oldest ones make room.
    stuck = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    for client in stuck:
        client.sendall(b"GET /livez HTTP/1.1\r\n")
    assert ask(port, "/livez")[0].status == 200
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 30  # it did not wait for their timeouts
    wait_for(lambda: not threads.named("process_request"))
    for client in stuck:
        client.close()


def test_a_client_that_takes_nothing_holds_up_nobody(parts: Parts) -> None:
    threads = NewThreads()
    parts.render = lambda _: ("text/plain", b"x" * 50_000_000)
    server = parts.server(timeout=60)
    port = server.start()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        client.recv(1)
        assert ask(port, "/livez")[0].status == 200
        server.stop()
        wait_for(lambda: not threads.named("process_request"))


def test_a_client_that_takes_an_answer_slowly_gets_all_of_it(parts: Parts) -> None:
    text = b"x" * 12_000_000  # more than the buffers of both ends hold
    parts.render = lambda _: ("text/plain", text)
    server = parts.server(timeout=1)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.connect(("127.0.0.1", server.start()))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        taken, since = 0, time.monotonic()
        while data := client.recv(1 << 17):
            taken += len(data)
            time.sleep(max(0.0, since + 3 * taken / len(text) - time.monotonic()))
    assert taken > len(text)
    server.stop()


def test_a_slow_client_is_given_up(parts: Parts) -> None:
    server = parts.server(timeout=0.1)
    with socket.create_connection(("127.0.0.1", server.start()), timeout=10) as client:
        client.sendall(b"GET /livez")
        assert client.recv(1) == b""
    server.stop()


def test_fifty_clients_at_once(port: int) -> None:
    seen: list[int] = []
    threads = [
        threading.Thread(target=lambda: seen.append(ask(port, "/metrics")[0].status)) for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [200] * 50


def test_stopping_frees_the_port_and_may_be_done_twice(parts: Parts) -> None:
    server = parts.server()
    server.stop()
    port = server.start()
    assert ask(port, "/livez")[0].status == 200
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/livez")
    again = parts.server(port=port)
    assert again.start() == port
    again.stop()
