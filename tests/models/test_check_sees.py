"""The graph decides where it can; where it cannot, the check has to see that rows differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from penstock.core.errors import ModelFailed
from penstock.core.tensors import Array, DataType
from penstock.models.analysis.facts import GraphFacts, Verdict
from penstock.models.checks.batching import check_batching
from penstock.models.checks.comparing import BLIND, RANDOM
from penstock.models.model import Batching
from penstock.models.samples import UNKNOWN, Sample
from support import zoo
from support.work import HandBackend, RunByHand, opened, signature_of, spec

ROW_WISE = GraphFacts(Verdict.ROW_WISE, "")
MIXES = GraphFacts(Verdict.MIXES, "node 17 DynamicQuantizeLinear takes one scale over the whole batch")
UNKNOWN_GRAPH = GraphFacts(Verdict.UNKNOWN, "node 3 Strange is not known")
IDS = signature_of([spec("x", ("N", "L"), DataType.INT64)], [spec("y", ("N", "L"))])


def by_hand(
    run: RunByHand,
    facts: GraphFacts = UNKNOWN_GRAPH,
    *,
    exact: bool = False,
    sample: Sample = UNKNOWN,
    backend: HandBackend | None = None,
) -> Batching:
    return check_batching(backend or HandBackend(run), True, False, 8, sample, facts, exact)


def same(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
    return [inputs["x"] * 2]


def constant(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
    return [np.zeros(inputs["x"].shape, np.float32)]


# What the graph says


def test_rows_that_mix_by_the_graph_need_no_run() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        raise AssertionError("it was run")

    found = by_hand(run, MIXES)
    assert found == Batching(False, MIXES.reason, proven=Verdict.MIXES)
    assert found.why == (f"by the graph, rows mix: {MIXES.reason}",)


def test_a_row_wise_graph_is_batched_even_if_all_rows_are_equal() -> None:
    found = by_hand(constant, ROW_WISE)
    assert found.enabled
    assert found.reason == "the graph is row-wise; rows run together and alone agree bit for bit"
    assert found.proven is Verdict.ROW_WISE
    assert found.why[1] == "compared in batches of 2, 3, 8 rows; the rows never differed in y"
    known = Sample({}, {"x": 1.0}, {"x": 1.0})
    assert by_hand(same, ROW_WISE, sample=known).enabled
    assert not by_hand(same, sample=known).enabled


def test_a_row_wise_graph_still_has_to_agree() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        return [inputs["x"] - inputs["x"].mean(axis=0)]

    found = by_hand(run, ROW_WISE)
    assert not found.enabled
    assert "although the graph is row-wise, output y differs in a batch by" in found.reason


def test_an_unknown_graph_is_decided_by_the_check() -> None:
    found = by_hand(same)
    assert found == Batching(True, "rows run together and alone agree bit for bit")
    assert found.why[0] == "the graph does not show whether rows mix: node 3 Strange is not known"


# Rows that show nothing


def test_rows_that_are_all_equal_show_nothing() -> None:
    assert by_hand(constant) == Batching(False, BLIND)


def quantized_ids(unused: int) -> onnx.ModelProto:
    """Token ids that share an embedding below `unused`; then one scale over the whole batch."""
    random = np.random.default_rng(0)
    table = random.standard_normal((100, 8)).astype(np.float32)
    table[:unused] = 0
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "L"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "L", 8])],
        [numpy_helper.from_array(table, "table")],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", zoo.OPSET)], ir_version=zoo.IR_VERSION
    )


@pytest.mark.parametrize("unused", [2, 8, 60])
@pytest.mark.parametrize("bounds", [{}, {"ids": 100}])
def test_larger_ids_are_tried_until_rows_differ(unused: int, bounds: dict[str, int], tmp_path: Path) -> None:
    backend = opened(quantized_ids(unused), tmp_path)
    facts = GraphFacts(Verdict.UNKNOWN, "not known", index_bounds=bounds)
    found = check_batching(backend, True, False, 8, facts=facts)
    assert not found.enabled
    assert "output y depends on the other rows" in found.reason


def test_ids_stay_within_what_the_graph_looks_up() -> None:
    highest = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        highest.append(int(inputs["x"].max()))
        return [inputs["x"].astype(np.float32)]

    facts = GraphFacts(Verdict.UNKNOWN, "not known", index_bounds={"x": 37})
    assert by_hand(run, facts, backend=HandBackend(run, IDS)).enabled
    assert 30 < max(highest) < 37


def test_ids_that_the_model_does_not_take_are_no_reason() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if inputs["x"].max() >= 50:
            raise ModelFailed("out of the table")
        return [inputs["x"].astype(np.float32)]

    assert by_hand(run, backend=HandBackend(run, IDS)).enabled


def test_scalars_are_not_made_large() -> None:
    """They are often counts of what the model does."""
    signature = signature_of([spec("x"), spec("steps", (), DataType.INT64)], [spec("y")])
    steps = []

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        steps.append(int(inputs["steps"]))
        return constant(outputs, inputs)

    assert not by_hand(run, backend=HandBackend(run, signature)).enabled
    assert max(steps) < 4


def test_lengths_of_sequences_are_not_made_up() -> None:
    """A model may fail badly where a row is said to be longer or shorter than it can take."""
    signature = signature_of(
        [spec("x", ("N", "L")), spec("lengths", ("N",), DataType.INT64)], [spec("y", ("N", "L"))]
    )
    seen = set()

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        if inputs["x"].shape[1] < 500:
            raise ModelFailed("too short")
        seen.update(inputs["lengths"].tolist())
        return [inputs["x"]]

    assert by_hand(run, backend=HandBackend(run, signature)).enabled
    assert seen == {512}


def test_rows_that_mix_for_large_values_only() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        x = inputs["x"]
        return [np.where(np.abs(x) > 20, x - x.mean(), x)]

    assert not by_hand(run).enabled


def test_rows_that_mix_where_one_comes_twice() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        x = inputs["x"]
        return [x / (x[:, None] == x[None]).all(axis=2).sum(axis=1, keepdims=True)]

    assert not by_hand(run).enabled


def test_negative_numbers_are_tried_where_others_show_nothing() -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        below = np.minimum(inputs["x"], 0).astype(np.float32)
        return [below - below.mean()]

    assert "depends on the other rows" in by_hand(run, backend=HandBackend(run, IDS)).reason


def test_whole_recordings_are_tried_where_short_ones_show_nothing() -> None:
    signature = signature_of(
        [spec("x", ("N", "L")), spec("lengths", ("N",), DataType.INT64)], [spec("y", ("N", "L"))]
    )

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        return [inputs["x"] * (inputs["lengths"][:, None] > 100)]

    found = by_hand(run, backend=HandBackend(run, signature))
    assert found.enabled, found.reason


# Lengths


def test_a_second_length_is_compared() -> None:
    seen = set()
    signature = signature_of([spec("x", ("N", "L"))], [spec("y", ("N", "L"))])

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        x = inputs["x"]
        seen.add(x.shape[1])
        return [x - x.mean(axis=0) if x.shape[1] > 8 else x]

    for facts in (UNKNOWN_GRAPH, ROW_WISE):
        assert not by_hand(run, facts, backend=HandBackend(run, signature)).enabled
    assert len(seen) > 1


def test_bit_for_bit_is_said_only_if_it_held_at_each_length() -> None:
    signature = signature_of([spec("x", ("N", "L"))], [spec("y", ("N", "L"))])

    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        x = inputs["x"]
        return [x * (1 + 1e-6) if x.shape[1] > 8 and len(x) > 1 else x]

    found = by_hand(run, backend=HandBackend(run, signature))
    assert found.enabled
    assert 0 < found.tolerance < 1e-5
    assert "within" in found.reason
    assert "2 lengths" in found.why[1]


# Random numbers


def drawing() -> RunByHand:
    random = np.random.default_rng(0)
    return lambda outputs, inputs: [random.random(inputs["x"].shape, np.float32)]


def test_a_model_that_draws_is_told_so() -> None:
    assert by_hand(drawing()) == Batching(False, RANDOM)


def test_a_model_that_draws_row_by_row_is_batched() -> None:
    found = by_hand(drawing(), ROW_WISE)
    assert found.enabled
    assert found.reason == f"the graph is row-wise; {RANDOM}"
    assert not by_hand(drawing(), ROW_WISE, exact=True).enabled


def test_the_node_that_draws_is_named_where_the_graph_does_not_show_that_rows_are_apart() -> None:
    facts = GraphFacts(Verdict.UNKNOWN, "not known", random_node="node 3 RandomNormal")
    assert by_hand(same, facts).reason == "node 3 RandomNormal draws random numbers"


# Exact


@pytest.mark.parametrize("facts", [UNKNOWN_GRAPH, ROW_WISE])
def test_exact_batching_takes_the_last_bit_seriously(facts: GraphFacts) -> None:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> Sequence[Array]:
        x = inputs["x"]
        return [x * np.float32(1 + 1e-6) if len(x) > 1 else x]

    assert by_hand(run, facts).enabled
    found = by_hand(run, facts, exact=True)
    assert not found.enabled
    assert "only, and batching.exact is set" in found.reason
    exact = by_hand(same, facts, exact=True)
    assert exact.enabled
    assert exact.exact
