"""Callers that send one message again and again, as fast as they are answered.

    python benchmarks/programs/attackers.py TARGET METHOD MESSAGE_FILE CALLERS SECONDS KIND

Each caller has a connection of its own. KIND "unary" makes one unary call after another; "each" sends the
message on one stream again when it is answered; "once" opens a stream for every message; "unread" sends on
one stream what the server takes, and never reads an answer. Prints JSON: how many `messages` were sent, and
`ended`, how many calls ended with an error.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

TIMEOUT = 60.0
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class Attacker:
    """One caller, on a thread of its own."""

    def __init__(self, target: str, method: str, message: bytes, kind: str) -> None:
        self.messages = self.ended = 0
        self._channel = grpc.insecure_channel(target, options=OPTIONS)
        self._call_unary = self._channel.unary_unary(method)
        self._call_stream = self._channel.stream_stream(method)
        self._message = message
        self._is_over = threading.Event()
        self._answered = threading.Semaphore()
        attacks = {"unary": self._unary, "each": self._each, "once": self._once, "unread": self._unread}
        self._attack = attacks[kind]
        self._thread = threading.Thread(target=self._repeat)
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._answered.release()
        self._channel.close()
        self._thread.join(TIMEOUT)

    def _repeat(self) -> None:
        while not self._is_over.is_set():
            try:
                self._attack()
            except (grpc.RpcError, ValueError):  # ValueError: the channel is closed
                self.ended += not self._is_over.is_set()

    def _unary(self) -> None:
        self._call_unary(self._message, timeout=TIMEOUT)
        self.messages += 1

    def _once(self) -> None:
        for _ in self._call_stream(iter((self._message,)), timeout=TIMEOUT):
            pass
        self.messages += 1

    def _each(self) -> None:
        self._answered = threading.Semaphore()
        for _ in self._call_stream(self._sent(), timeout=TIMEOUT):
            self._answered.release()

    def _unread(self) -> None:
        call = self._call_stream(self._sent(waits=False), timeout=TIMEOUT)
        self._is_over.wait()
        call.cancel()

    def _sent(self, waits: bool = True) -> Iterator[bytes]:
        while not self._is_over.is_set():
            if waits:
                self._answered.acquire()
            self.messages += 1
            yield self._message


def main() -> None:
    target, method, path, callers, seconds, kind = sys.argv[1:]
    message = Path(path).read_bytes()
    attackers = [Attacker(target, method, message, kind) for _ in range(int(callers))]
    time.sleep(float(seconds))
    figures = {
        "messages": sum(each.messages for each in attackers),
        "ended": sum(each.ended for each in attackers),
    }
    for each in attackers:
        each.stop()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
