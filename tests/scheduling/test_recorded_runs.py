"""While a batch is run, the page that another process reads names its model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import pytest

from penstock.core.run_recorder import RunRecorder, create_page, running_models
from penstock.core.tensors import Array
from penstock.scheduling.policy import Isolation
from support.work import batcher, echo, request, run_all

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory files are Linux's")


@pytest.mark.parametrize("fails", [False, True])
def test_a_batch_is_recorded_from_its_start_to_its_end(fails: bool) -> None:
    page, seen = create_page(), []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        seen.append(running_models(page))
        if fails:
            raise ValueError("no")
        return echo(outputs, inputs)

    recorded = RunRecorder(page).counter("m version 1")
    made, _ = batcher(run, isolation=Isolation(recorded=recorded))
    assert running_models(page) == []
    run_all(made, request())
    assert seen == [["m version 1"]]
    assert running_models(page) == []
    os.close(page)
