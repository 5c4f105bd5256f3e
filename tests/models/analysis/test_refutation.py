"""Rows that are run together and alone do not refute the analysis: of ONNX's own cases and of random graphs.

`make test` tries a part; all of it runs behind `make soak`, or as `python -m tests.conformance.proofs`.
"""

from __future__ import annotations

import pytest

from penstock.models.analysis.facts import Verdict
from penstock.models.analysis.proof import analyse_model
from tests.conformance.cases import LIGHT, all_cases, missing
from tests.conformance.mixers import MIXERS, UNSEEN
from tests.conformance.proofs import Tally, tried
from tests.models.analysis.random_graphs import examined
from tests.support import zoo

EACH = 40
"""`make test` tries one case of 40."""
RANDOM_GRAPHS, ALL_RANDOM_GRAPHS = 300, 40_000


def _tally(each: int) -> Tally:
    tally = Tally()
    for case in [case for case in all_cases() if case.kind != LIGHT][::each]:
        for one in tried(case):
            tally.take(one)
    return tally


@pytest.mark.skipif(missing() is not None, reason="no conformance cases")
def test_no_case_of_a_sample_refutes_the_analysis() -> None:
    tally = _tally(EACH)
    assert tally.refuted == []
    assert tally.runs > 50


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.skipif(missing() is not None, reason="no conformance cases")
def test_no_case_refutes_the_analysis() -> None:
    tally = _tally(1)
    assert tally.refuted == []
    assert tally.verdicts["row-wise"] > 2000


def _refuted(count: int) -> list[tuple[int, str]]:
    found = [(seed, examined(seed, 1 + seed % 6)[1]) for seed in range(count)]
    return [(seed, refuted) for seed, refuted in found if refuted not in ("", "-")]


def test_no_random_graph_of_a_sample_refutes_the_analysis() -> None:
    assert _refuted(RANDOM_GRAPHS) == []


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_no_random_graph_refutes_the_analysis() -> None:
    assert _refuted(ALL_RANDOM_GRAPHS) == []


RANDOM = ("in_training_dropout", "noise")


@pytest.mark.parametrize("name", [*MIXERS, *UNSEEN])
def test_models_whose_rows_mix(name: str) -> None:
    """Also those that no made-up row of moderate values gives away."""
    model = (MIXERS | UNSEEN)[name]
    found = analyse_model(model, {info.name: 0 for info in model.graph.input})
    assert found.verdict is (Verdict.UNKNOWN if name in RANDOM else Verdict.MIXES), found.reason
    assert bool(found.random_node) == (name in RANDOM)
    assert found.reason.startswith("node ")


@pytest.mark.parametrize(
    "model",
    [
        zoo.identity(),
        zoo.scale(2.0),
        zoo.add(),
        zoo.row_sum(),
        zoo.multi_output(),
        zoo.two_open_axes(),
        zoo.fails_on(3),
        zoo.slow_by_rounds(3),
        zoo.tiny_mlp(),
        zoo.divided(),
        zoo.running_sum(),
    ],
    ids=lambda model: model.graph.name or "model",
)
def test_models_of_the_tests_whose_rows_stay_apart(model: object) -> None:
    found = analyse_model(model, {info.name: 0 for info in model.graph.input})  # type: ignore[attr-defined, arg-type]
    assert (found.verdict, found.reason) == (Verdict.ROW_WISE, "")


def test_a_state_whose_rows_lie_on_another_axis() -> None:
    found = analyse_model(zoo.running_mean(), {"x": 0, "h": 1})
    assert (found.verdict, found.output_axes) == (Verdict.ROW_WISE, {"y": 0, "hn": 1})


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (zoo.centred_rows(), "node 0 ReduceMean combines all rows"),
        (zoo.softmax_over_rows(), "node 0 Softmax is taken over all rows"),
        (zoo.cumulative_rows(), "node 0 CumSum adds up rows one after another"),
        (zoo.reversed_rows(), "node 0 Slice takes rows by their place in the batch"),
        (zoo.divided_by_rows(), "node 2 Div takes the number of rows as a value"),
        (zoo.as_slow_as_asked(), "node 1 Loop ends for all rows at once, by values"),
    ],
)
def test_models_of_the_tests_whose_rows_mix(model: object, reason: str) -> None:
    found = analyse_model(model, {info.name: 0 for info in model.graph.input})  # type: ignore[attr-defined, arg-type]
    assert (found.verdict, found.reason) == (Verdict.MIXES, reason)
