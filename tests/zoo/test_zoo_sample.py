"""Eight small models that people ship, on a real server; `make zoo` serves all of the zoo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from penstock_client import Client, ModelInfo
from tests.support.servers import running_server
from tests.zoo.bare import Bare, Rows, examine
from tests.zoo.compare import Compared
from tests.zoo.fetch import FOLDER, missing
from tests.zoo.packages import ZooModel, listed
from tests.zoo.serve import call_at_once, call_one_by_one, lay_out

SAMPLE = [each for each in listed() if each.sample]
ABSENT = missing(SAMPLE)
TURNS = 3
"""Calls of each of the 16 callers to each model."""
GAINS_NOTHING = "rows together take as long as one by one"

pytestmark = pytest.mark.skipif(
    bool(ABSENT),
    reason=f"{len(ABSENT)} of {len(SAMPLE)} models are not here: python -m tests.zoo.fetch --sample",
)


class Called(NamedTuple):
    """A model, and what it answered."""

    found: Bare
    info: ModelInfo
    alone: Compared
    together: Compared
    shared: int


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Called]]:
    """All of the sample on one server: each called alone, then by 16 callers."""
    root = lay_out(SAMPLE, FOLDER, tmp_path_factory.mktemp("zoo"))
    with running_server(root) as server, Client(server.target) as client:
        yield {each.name: _call(client, each) for each in SAMPLE}


def _call(client: Client, model: ZooModel) -> Called:
    found = examine(model, model.path(FOLDER))
    alone, answers = call_one_by_one(client, model, found)
    together, shared = call_at_once(client, model, found, answers, TURNS)
    return Called(found, client.model(model.name), alone, together, shared)


def test_every_answer_alone_is_that_of_onnx_runtime(called: dict[str, Called]) -> None:
    assert {name: each.alone.first for name, each in called.items() if each.alone.wrong} == {}


def test_every_answer_in_company_is_that_of_the_request_alone(called: dict[str, Called]) -> None:
    assert {name: str(each.together) for name, each in called.items() if each.together.wrong} == {}


def test_what_mixes_runs_alone(called: dict[str, Called]) -> None:
    mixed = {name: each for name, each in called.items() if each.found.rows is Rows.MIXED}
    assert mixed
    assert [name for name, each in mixed.items() if each.info.batching.enabled] == []


def test_rows_that_stay_apart_are_batched_unless_that_gains_nothing(called: dict[str, Called]) -> None:
    """What a run takes differs from machine to machine, and so does whether a batch gains time."""
    apart = {name: each.info.batching for name, each in called.items() if each.found.rows is Rows.INDEPENDENT}
    assert apart
    assert {
        name: each.reason
        for name, each in apart.items()
        if not each.enabled and GAINS_NOTHING not in each.reason
    } == {}


def test_no_proof_is_refuted(called: dict[str, Called]) -> None:
    assert {name for name, each in called.items() if each.found.refuted} == set()
    assert sum(each.found.graph is not None for each in called.values()) == len(SAMPLE)
