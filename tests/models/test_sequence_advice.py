"""A state is proposed by the names of many exporters, and only as it would be accepted."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import onnx
import pytest

from penstock.config import ModelSequence
from penstock.core.tensors import DataType
from penstock.models.rows_first import RowsFirst
from penstock.models.samples import UNKNOWN
from penstock.models.sequence import read_sequence_state
from penstock.models.sequence_advice import proposal, tried_proposal
from penstock.models.sequence_trial import check_steps
from support import steps, zoo
from support.work import opened, signature_of, spec


def section_of(advice: str) -> dict[str, Any]:
    """The settings that advice names, as they are pasted above what model.toml has already."""
    line = advice.partition("put this line at the top of model.toml: ")[2]
    found = tomllib.loads(f"{line}\n[batching]\nmax_rows = 4\n")["sequence"]
    assert isinstance(found, dict)
    return found


def pairs(*names: tuple[str, str], shape: tuple[int | str, ...] = (2, "N", 3)) -> Any:
    return signature_of(
        [spec("x"), *[spec(taken, shape) for taken, _ in names]],
        [spec("y"), *[spec(given, shape) for _, given in names]],
    )


@pytest.mark.parametrize(
    "names",
    [
        [("cache_in_0", "cache_out_0"), ("cache_in_1", "cache_out_1")],
        [("past_key_values.0.key", "present.0.key"), ("past_key_values.0.value", "present.0.value")],
        [("past_key_values.0.key", "present_key_values.0.key")],
        [("past_key_0", "present_key_0")],
        [("h0", "hn"), ("c0", "cn")],
        [("h_0", "h_n"), ("c_0", "c_n")],
        [("state", "stateN")],
        [("state", "new_state")],
        [("in_state", "out_state")],
        [("prev_state", "next_state")],
        [("prev_state", "new_state")],
        [("input_states_1", "output_states_1"), ("input_states_2", "output_states_2")],
        [("input_cache", "output_cache")],
        [("cache_last_channel", "cache_last_channel_next")],
        [("cached_key_0", "new_cached_key_0")],
        [("hidden.in", "hidden.out")],
        [("mem", "updated_mem")],
    ],
)
def test_the_names_of_many_exporters(names: list[tuple[str, str]]) -> None:
    assert section_of(proposal(pairs(*names))) == {"state": dict(names)}


def test_the_state_among_names_that_are_all_alike() -> None:
    signature = signature_of(
        [spec("audio_in", ("N", 160)), spec("state_in", ("N", 8))],
        [spec("audio_out", ("N", 160)), spec("state_out", ("N", 8))],
    )
    assert section_of(proposal(signature)) == {"state": {"state_in": "state_out"}}


def test_what_grows_is_proposed_with_its_axis() -> None:
    shapes = ("N", 2, "past", 4), ("N", 2, "past + 1", 4)
    signature = signature_of(
        [spec("ids", ("N", 1), DataType.INT64), spec("past_key_values.0.key", shapes[0])],
        [spec("logits", ("N", 1, 9)), spec("present.0.key", shapes[1])],
    )
    assert section_of(proposal(signature)) == {
        "state": {"past_key_values.0.key": "present.0.key"},
        "grows": {"past_key_values.0.key": 2},
    }


def test_an_axis_that_the_graph_leaves_open_is_proposed() -> None:
    signature = signature_of(
        [spec("x"), spec("h_in", ("batch", 3))], [spec("y"), spec("h_out", ("batch", 3))]
    )
    assert section_of(proposal(signature)) == {"state": {"h_in": "h_out"}, "axis": {"h_in": 0}}


@pytest.mark.parametrize(
    "signature",
    [
        pairs(("h", "hn"), shape=("N", "L")),  # of unknown length
        pairs(("h", "hn"), shape=(2, "M", 3)),  # with a batch axis that the graph does not name
        pairs(("image_in", "pixels_out"), shape=("N", 3)),
        pairs(("input_image", "output_image"), shape=("N", 3)),  # more likely before and after
        pairs(("text", "text_out"), shape=()),
        signature_of([spec("x"), spec("h", (1, 3))], [spec("y"), spec("hn", (1, 4))]),
        signature_of(
            [spec("x"), spec("h", datatype=DataType.BYTES)], [spec("y"), spec("hn", datatype=DataType.BYTES)]
        ),
    ],
)
def test_what_would_be_refused_is_not_proposed(signature: Any) -> None:
    assert proposal(signature) == ""


@pytest.mark.parametrize("graph", [zoo.running_sum(), zoo.running_mean(), steps.cache(), steps.attention()])
def test_what_is_proposed_is_accepted(graph: onnx.ModelProto, tmp_path: Path) -> None:
    backend = opened(graph, tmp_path)
    advice = tried_proposal(backend, UNKNOWN)
    state = read_sequence_state(Path(), ModelSequence(**section_of(advice)), backend.signature)
    assert state is not None
    check_steps(RowsFirst(backend, state), state, UNKNOWN)


@pytest.mark.parametrize("graph", [steps.once(), steps.only_new()])
def test_what_fails_at_the_second_step_is_not_proposed(graph: onnx.ModelProto, tmp_path: Path) -> None:
    backend = opened(graph, tmp_path)
    assert proposal(backend.signature) != ""
    assert tried_proposal(backend, UNKNOWN) == ""
