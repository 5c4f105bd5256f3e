"""All rows of an output come from one model: a version number alone does not tell, a SHA-256 does."""

from __future__ import annotations

from threading import Lock
from time import monotonic, sleep

from penstock_client import Client, DeadlineExceeded, ModelInfo, NotFound, Unavailable

DIGEST_SECONDS = 60.0
"""How long the SHA-256 of a large file is waited for, which a server works out after it has loaded it."""
_POLL_SECONDS = 0.2


def described(client: Client, name: str, version: str) -> ModelInfo:
    """The model with its SHA-256, which is waited for; "" if the server cannot tell it.

    Raises:
        PenstockError: it cannot be asked for.
    """
    until = monotonic() + DIGEST_SECONDS
    while True:
        info = client.model(name, version)
        if info.sha256 or info.state != "READY" or monotonic() >= until:
            return info
        sleep(_POLL_SECONDS)


class OtherModel(Exception):
    """A server serves another model as the same version."""


class OneModel:
    """Finds out whether a server still serves the version of the beginning. Several threads use it at once.

    A request under way fails when its server ends, so the thread that sees that calls `lost`, and no answer
    counts until `ensure` has asked. A server may also be replaced while no request is under way: `is_same`
    is asked before rows are declared done.

    Args:
        client: the connection.
        info: the model at the beginning.

    Attributes:
        is_other: whether it has turned out to be another one.
    """

    def __init__(self, client: Client, info: ModelInfo) -> None:
        self.is_other = False
        self._client = client
        self._info = info
        self._lock = Lock()
        self._losses = 0
        self._checked = 0

    def lost(self) -> None:
        """The server was gone."""
        with self._lock:
            self._losses += 1

    def ensure(self) -> None:
        """Asks the server, if it was gone since it was asked last.

        Raises:
            OtherModel: it serves another model as this version.
            PenstockError: it cannot be asked.
        """
        if self._checked == self._losses:  # the usual case costs no lock
            return
        with self._lock:
            if self._checked != self._losses:
                try:
                    self._ask()
                except (Unavailable, DeadlineExceeded) as error:  # never the fault of a row
                    raise Unavailable(f"asking for the model: {error}") from None
                self._checked = self._losses

    def is_same(self) -> bool:
        """Asks the server; False if it cannot be asked now.

        Raises:
            OtherModel: it serves another model as this version.
        """
        try:
            self._ask()
        except (Unavailable, DeadlineExceeded, NotFound):
            return False
        return True

    def _ask(self) -> None:
        before = self._info
        if not before.sha256:
            return
        now = described(self._client, before.name, before.version)
        if now.state == "READY" and now.sha256 != before.sha256:
            self.is_other = True
            raise OtherModel(
                f"version {before.version} of {before.name} is another model than at the beginning: SHA-256 "
                f"{before.sha256} then, {now.sha256 or 'unknown'} now; --restart begins again"
            )
