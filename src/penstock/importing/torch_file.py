"""PyTorch programs: recognised, and not converted here."""

from __future__ import annotations

from pathlib import Path

from penstock.importing.errors import Refused
from penstock.importing.original import Original


def load(path: Path) -> Original:
    """Says how to go on.

    Raises:
        Refused: always.
    """
    raise Refused(
        f"{path} is a PyTorch program, which is not converted here: "
        "write it with torch.onnx.export(program, ..., dynamo=True, dynamic_shapes={...: {0: 'batch'}}); "
        "then put it into "
        "models/NAME/1/model.onnx, and golden rows beside it (docs/importing.md)"
    )
