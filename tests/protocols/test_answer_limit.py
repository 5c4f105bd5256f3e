"""An answer beyond protobuf's limit is an error of its request, in whatever form its values are written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock.core.errors import ModelFailed
from penstock.core.request import Response, Run
from penstock.core.tensors import DataType
from penstock.protocols.penstock_v1 import encoder
from penstock.protocols.typed_lists import FEW_WRITTEN
from support.work import model, signature_of, spec

ROWS = 2 * FEW_WRITTEN


@pytest.mark.parametrize("typed", [True, False])
def test_more_than_protobuf_carries_fails(monkeypatch: pytest.MonkeyPatch, typed: bool) -> None:
    """Written as a typed list, a negative integer of four bytes takes ten."""
    made = model(signature_of([spec("x")], [spec("y", ("N", 1), DataType.INT32)]))
    run = Run(1.0, 1.0, 2.0, ROWS, {"y": np.full((ROWS, 1), -1, np.int32)})
    asked: Any = SimpleNamespace(model=made, id="", tag=0, form=typed)
    response = Response(run, ("y",), 0.0, 0, ROWS)
    monkeypatch.setattr(encoder, "UNLIMITED", 5 * ROWS)
    answer = encoder.encode(response, asked)
    if typed:
        assert isinstance(answer, ModelFailed)
        assert "above protobuf's limit" in str(answer)
    else:
        assert isinstance(answer, bytes)
