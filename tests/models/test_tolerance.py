"""`batching.tolerance`: the difference that the settings accept between rows together and alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from penstock.config import BatchingConfig
from penstock.core.tensors import Array, DataType
from penstock.models.analysis.facts import GraphFacts, Verdict
from penstock.models.checks.closeness import accepted
from penstock.models.checks.fit import fit
from penstock.models.checks.live import LiveCheck
from penstock.models.model import Batching
from penstock.models.samples import UNKNOWN
from support.work import HandBackend, spec

ROW_WISE = GraphFacts(Verdict.ROW_WISE, "")


def coarse(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
    """y = x, rounded more coarsely in a batch."""
    x = inputs["x"]
    return [x * np.float32(1.003) if len(x) > 1 else x]


def verdict(**settings: object) -> Batching:
    return fit(HandBackend(coarse), "auto", BatchingConfig.model_validate(settings), UNKNOWN, ROW_WISE)[0]


def test_without_it_such_a_model_runs_alone_and_the_setting_is_named() -> None:
    reason = verdict().reason
    assert "differs in a batch by 3.0e-03, more than 1e-04" in reason
    assert "batching.tolerance accepts more" in reason


def test_with_it_the_model_is_batched_and_says_so() -> None:
    found = verdict(tolerance=0.01)
    assert found.enabled, found.reason
    assert found.reason == (
        "the graph is row-wise; rows run together and alone agree within 3.0e-03, which "
        "batching.tolerance = 0.01 accepts"
    )
    assert found.tolerance == pytest.approx(0.003, rel=0.01)


@pytest.mark.parametrize("settings", [{"tolerance": 0.001}, {"tolerance": 0.01, "exact": True}])
def test_more_than_that_and_exact_models_stay_alone(settings: Mapping[str, object]) -> None:
    assert not verdict(**settings).enabled


def test_live_requests_are_held_to_the_same() -> None:
    def found(tolerance: float) -> object:
        check = LiveCheck({"y": spec("y", ("N",))}, Batching(True, "", 0.003), tolerance)
        return check([{"y": np.float32([1.003])}], [{"y": np.float32([1.0])}])

    assert found(0.0) is not None
    assert found(0.01) is None


@pytest.mark.parametrize(
    ("datatype", "tolerance", "most"),
    [
        (DataType.FP32, 0.0, 1e-4),
        (DataType.FP32, 1e-6, 1e-6),
        (DataType.FP32, 0.01, 0.01),
        (DataType.FP16, 1e-6, 1e-2),
        (DataType.FP64, 0.01, 0.01),
        (DataType.INT64, 0.0, 0.0),
    ],
)
def test_what_is_accepted(datatype: DataType, tolerance: float, most: float) -> None:
    assert accepted(datatype, tolerance) == most
