"""Hugging Face folders: recognised, and not converted here."""

from __future__ import annotations

from pathlib import Path

from penstock.importing.errors import Refused
from penstock.importing.original import Original

WRITTEN = "optimum-cli export onnx --model FOLDER OUT"


def load(path: Path) -> Original:
    """Says how to go on.

    Raises:
        Refused: always.
    """
    raise Refused(
        f"{path} is a Hugging Face folder, which is not converted here: its inputs are tokens, not columns "
        "of a table. ONNX carries the network, and not the tokenizer: that stays with the caller, or in a "
        f"service before the model (examples/text). Write the network with `{WRITTEN}`; then put it into "
        "models/NAME/1/model.onnx, and golden rows beside it (docs/importing.md)"
    )
