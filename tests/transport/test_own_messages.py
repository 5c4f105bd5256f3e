"""Large messages that nobody else reads: their memory is given back once gRPC has its copy."""

from __future__ import annotations

from penstock.core.large_bytes import HUGE_BYTES
from penstock.transport.grpc.call import OK, Transport
from penstock.transport.grpc.portable import Portable
from support.calls import SECONDS, Served, Silent, served, stream, unary, wait_until

SIZE = 2 * HUGE_BYTES
SENT = b"1" * SIZE
MIDDLE = SIZE // 2


class Sending(Silent):
    """A stream that sends a message of its own at once, and another when that has left."""

    def __init__(self, call) -> None:
        super().__init__(call)
        self.own = [bytes(bytearray(SENT)) for _ in range(2)]

    def received(self, message: bytes) -> None:
        super().received(message)
        self.call.send_own(self.own[0])

    def sent(self) -> None:
        super().sent()
        if self.told.count("sent") == 1:
            self.call.send_own(self.own[1])
        else:
            self.call.finish()


class Answering(Sending):
    """A unary method that answers with a message of its own."""

    def received(self, message: bytes) -> None:
        super(Sending, self).received(message)
        self.call.finish_own(OK, self.own[0])


def wait_until_known(server: Served) -> None:
    """Until the portable transport has found out that gRPC copies."""
    transport = server.transport
    if isinstance(transport, Portable):
        wait_until(lambda: transport.copies)


def is_given_back(message: bytes) -> bool:
    """What is left of it is zeros: only a copy can have been sent."""
    return message[MIDDLE] == 0


def test_a_stream_that_does_not_read_keeps_one_copy(transport: type[Transport]) -> None:
    made: list[Sending] = []

    def make(call) -> Sending:
        made.append(Sending(call))
        return made[-1]

    with served(transport, {"/t/S": stream(make)}) as server, server.channel() as channel:
        wait_until_known(server)
        call = channel.unary_stream("/t/S")(b"", timeout=SECONDS)  # reads nothing before it is iterated
        wait_until(lambda: made and is_given_back(made[0].own[0]))
        assert list(call) == [SENT, SENT]
        wait_until(lambda: is_given_back(made[0].own[1]))


def test_a_unary_answer_arrives_and_its_memory_is_given_back(transport: type[Transport]) -> None:
    made: list[Answering] = []

    def make(call) -> Answering:
        made.append(Answering(call))
        return made[-1]

    with served(transport, {"/t/U": unary(make)}) as server, server.channel() as channel:
        wait_until_known(server)
        assert channel.unary_unary("/t/U")(b"", timeout=SECONDS) == SENT
        wait_until(lambda: is_given_back(made[0].own[0]))


def test_before_it_is_known_whether_grpc_copies_nothing_is_given_back() -> None:
    made: list[Answering] = []

    def make(call) -> Answering:
        made.append(Answering(call))
        return made[-1]

    with served(Portable, {"/t/U": unary(make)}) as server, server.channel() as channel:
        wait_until_known(server)
        assert isinstance(server.transport, Portable)
        server.transport.copies = False
        assert channel.unary_unary("/t/U")(b"", timeout=SECONDS) == SENT
        server.wait_until_empty()
    assert not is_given_back(made[0].own[0])
