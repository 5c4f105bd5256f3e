"""The contract of a backend, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from penstock.tensors import Array, Signature


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a model's file says of itself.

    Attributes:
        metadata: producer, domain, description and its own key-value pairs.
        opsets: the version of every operator set it was written against, by domain.
        sha256: of the file's bytes, in hexadecimal.
        size_bytes: of the file, without external data.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    opsets: Mapping[str, int] = field(default_factory=dict)
    sha256: str = ""
    size_bytes: int = 0


class Backend(Protocol):
    """One loaded model. `run` may be called by several threads at once."""

    signature: Signature
    file: ModelFile
    providers: Sequence[str]

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        """Runs the graph once.

        Args:
            outputs: the outputs wanted, by name.
            inputs: every input of the signature; see `penstock.tensors` for the convention.

        Returns:
            The outputs, in the order asked for.

        Raises:
            ModelFailed: the graph failed on these inputs.
        """

    def close(self) -> None:
        """Lets go of the model's memory."""
