"""A sample of the conformance cases against a real server; `make conformance` runs all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import onnxruntime
import pytest

from penstock_proto.v1 import model_pb2
from tests.conformance import cases, sample, suite
from tests.conformance.cases import LIGHT
from tests.conformance.page import MARK
from tests.conformance.protocols import METHODS, connect, listed
from tests.conformance.reference import Judged, Verdict
from tests.conformance.serving import lay_out, serving
from tests.conformance.suite import MIXER, Shared
from tests.conformance.surroundings import surroundings
from tests.conformance.variants import INDEPENDENT, Variant

PAGE = Path(__file__).parents[2] / "docs/conformance.md"

pytestmark = [
    pytest.mark.skipif(cases.missing() is not None, reason=str(cases.missing())),
    pytest.mark.timeout(300),
]


class Served(NamedTuple):
    """A server with the sample, and what it must answer."""

    target: str
    channel: grpc.Channel
    judged: list[Judged]
    variants: list[Variant]
    models: dict[str, model_pb2.Model]


@pytest.fixture(scope="module")
def judged() -> Iterator[list[Judged]]:
    """All cases but the networks: what becomes of them, found out in this process."""
    with surroundings():
        yield suite.judge_all([case for case in cases.all_cases() if case.kind != LIGHT])


@pytest.fixture(scope="module")
def server(judged: list[Judged], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server with the sample's cases, those with an open first axis, and the models made by hand."""
    folder = tmp_path_factory.mktemp("conformance")
    chosen = sample.chosen(suite.served(judged))
    variants = sample.chosen_variants(suite.variants_of(chosen, folder)) + suite.mixers_of(folder)
    models = {f"open_{each.name}": each.model for each in variants}
    for each in variants:
        each.name = f"open_{each.name}"
    repository = lay_out(folder / "repository", models | {each.case.name: each.case.path for each in chosen})
    with serving(repository) as running, connect(running.target) as channel:
        yield Served(running.target, channel, chosen, variants, listed(channel))


@pytest.fixture(scope="module")
def shared(server: Served) -> list[Shared]:
    """What became of rows that were sent together."""
    return suite.share(server.channel, server.variants, server.models)


def test_the_sample_has_everything_unusual(server: Served) -> None:
    assert len(server.judged) >= 200
    for kind, is_one in sample.UNUSUAL.items():
        assert any(map(is_one, server.judged)), kind


@pytest.mark.parametrize("method", METHODS)
def test_every_output_is_the_same_bit_for_bit(server: Served, method: str) -> None:
    passage = suite.pass_through(server.target, server.channel, method, server.judged)
    assert not passage.missing
    assert passage.failed == {}
    assert len(passage.passed) >= 200


def test_rows_that_run_together_are_answered_as_if_alone(shared: list[Shared]) -> None:
    assert {each.variant.name: each.failure for each in shared if each.failure is not None} == {}


def test_rows_do_run_together(shared: list[Shared]) -> None:
    batched = [each for each in shared if each.batched]
    assert len(batched) >= 100
    assert all(each.answered is not None and each.answered.together > 1 for each in batched)


def test_models_that_mix_rows_are_found_out_at_load(shared: list[Shared]) -> None:
    made = [each for each in shared if each.variant.name.startswith(f"open_{MIXER}")]
    assert len(made) >= 50
    assert not [each.variant.name for each in made if each.batched]
    assert not [each.variant.name for each in made if each.variant.verdict in INDEPENDENT]


def test_the_page_lists_every_case_that_is_not_served(judged: list[Judged]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    if f"onnxruntime {onnxruntime.__version__}" not in text.partition(MARK)[2]:
        pytest.skip("the page was written with another release of ONNX Runtime")
    unserved = [each for each in judged if each.verdict in (Verdict.REFUSED, Verdict.NOT_RUN)]
    unserved = [each for each in unserved if "locale" not in each.reason]  # where none could be made
    assert [each.case.name for each in unserved if f"`{each.case.name}`" not in text] == []
