"""What model.toml says of a state is held against the graph; what seems to be one is proposed, no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from penstock.backends.onnx import OnnxBackend
from penstock.config import ModelSequence
from penstock.core.errors import ModelLoadError
from penstock.core.tensors import DataType, Signature
from penstock.models.checks.batching import check_batching
from penstock.models.model import Batching
from penstock.models.rows_first import RowsFirst
from penstock.models.sequence import read_sequence_state
from penstock.models.sequence_advice import proposal
from support import zoo
from support.work import HandBackend, opened, signature_of, spec

BIT_FOR_BIT = "rows run together and alone agree bit for bit"
WIDE = signature_of([spec("x"), spec("h", (2, "N", 3))], [spec("y"), spec("hn", (2, "N", 3))])


def settings(**changes: Any) -> ModelSequence:
    return ModelSequence(**{"state": {"h": "hn"}, **changes})


def axis_of(signature: Signature, **changes: Any) -> int | None:
    state = read_sequence_state(Path(), settings(**changes), signature)
    assert state is not None
    return state.tensors[0].axis


def test_a_state_is_what_is_declared_and_zeros_at_first() -> None:
    state = read_sequence_state(Path(), settings(idle_seconds=5.0), WIDE)
    assert state is not None
    (tensor,) = state.tensors
    assert (tensor.input, tensor.output, tensor.axis) == ("h", "hn", 1)
    assert (tensor.initial.shape, tensor.initial.dtype, tensor.initial.any()) == (
        (2, 1, 3),
        np.float32,
        False,
    )
    assert state.rows_of == ("x",)
    assert str(state) == "h from hn, dropped 5 s after the last step"
    assert state.without(WIDE) == signature_of([spec("x")], [spec("y")])


def test_nothing_is_kept_where_nothing_is_declared() -> None:
    assert read_sequence_state(Path(), ModelSequence(), WIDE) is None
    with pytest.raises(ModelLoadError, match=r"\[sequence\] lacks state, such as"):
        read_sequence_state(Path(), ModelSequence(idle_seconds=5.0), WIDE)


@pytest.mark.parametrize(
    ("shape", "changes", "axis"),
    [
        ((2, "N", 3), {}, 1),
        (("N", 3), {}, 0),
        (("?", "N"), {"initial": {"h": "h.npy"}}, 1),
        (("L", 3), {"axis": {"h": 0}}, 0),
        ((1, 3), {}, None),
        ((), {}, None),
    ],
)
def test_the_batch_axis(
    shape: tuple[int | str, ...], changes: dict[str, Any], axis: int | None, tmp_path: Path
) -> None:
    np.save(tmp_path / "h.npy", np.zeros((4, 1), np.float32))
    signature = signature_of([spec("x"), spec("h", shape)], [spec("y"), spec("hn", shape)])
    state = read_sequence_state(tmp_path, settings(**changes), signature)
    assert state is not None
    assert state.tensors[0].axis == axis


def test_the_state_begins_as_the_file_says(tmp_path: Path) -> None:
    first = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    np.save(tmp_path / "h.npy", first)
    state = read_sequence_state(tmp_path, settings(initial={"h": "h.npy"}), WIDE)
    assert state is not None
    assert np.array_equal(state.tensors[0].initial, first)


def with_state(taken: Any = (2, "N", 3), given: Any = (2, "N", 3), **how: DataType) -> Signature:
    return signature_of(
        [spec("x"), spec("h", taken, **how)], [spec("y"), spec("hn", given), spec("h2", given)]
    )


@pytest.mark.parametrize(
    ("signature", "changes", "words"),
    [
        (WIDE, {"state": {"g": "hn"}}, "names input g, which does not exist; the model has x, h"),
        (
            WIDE,
            {"state": {"hn": "h"}},
            "wrong way round: hn is an output and h an input; expected input = output",
        ),
        (WIDE, {"state": {"h": "gn"}}, "names output gn, which does not exist; the model has y, hn"),
        (WIDE, {"state": {"h": "hn", "x": "hn"}}, "names an output twice"),
        (WIDE, {"axis": {"x": 0}}, "sequence.axis names x, which sequence.state does not"),
        (WIDE, {"initial": {"x": "x.npy"}}, "sequence.initial names x, which sequence.state does not"),
        (WIDE, {"axis": {"h": 0}}, "axis 0 of input h FP32[2,N,3] is not an open axis"),
        (WIDE, {"axis": {"h": 3}}, "axis 3 of input h FP32[2,N,3] is not an open axis"),
        (with_state(("N", "N")), {}, "output hn FP32[2,N,3] does not fit input h FP32[N,N]"),
        (
            with_state(("N", "N"), ("N", "N")),
            {},
            "does not define the batch axis of input h FP32[N,N]",
        ),
        (with_state(("L", 3), ("L", 3)), {}, "set it in model.toml, such as [sequence] axis = { h = 0 }"),
        (with_state(("N", "L"), ("N", "L")), {}, "has open axes besides its batch axis"),
        (with_state(None), {}, "input h declares no shape"),
        (with_state(datatype=DataType.BYTES), {}, "is text, and text cannot be a state"),
        (with_state(datatype=DataType.FP64), {}, "output hn FP32[2,N,3] does not fit input h FP64[2,N,3]"),
        (WIDE, {"initial": {"h": "none.npy"}}, "sequence.initial of input h: cannot read none.npy"),
        (WIDE, {"initial": {"h": "wide.npy"}}, "wide.npy holds float32[2,2,3], expected float32[2,1,3]"),
        (WIDE, {"initial": {"h": "double.npy"}}, "holds float64[2,1,3], expected float32[2,1,3]"),
        (WIDE, {"initial": {"h": "flat.npy"}}, "holds float32[6], expected float32[2,1,3]"),
        (WIDE, {"initial": {"h": "some.npz"}}, "sequence.initial of input h: cannot read some.npz"),
    ],
)
def test_what_does_not_fit_is_said(
    signature: Signature, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((2, 2, 3), np.float32))
    np.save(tmp_path / "double.npy", np.zeros((2, 1, 3)))
    np.save(tmp_path / "flat.npy", np.zeros(6, np.float32))
    np.savez(tmp_path / "some.npz", np.zeros(6))
    with pytest.raises(ModelLoadError) as raised:
        read_sequence_state(tmp_path, settings(**changes), signature)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("taken", "given"),
    [("state", "stateN"), ("h", "hn"), ("h0", "h1"), ("h0", "hn"), ("h_in", "h_out"), ("mem", "new_mem")],
)
def test_what_is_plain_is_proposed(taken: str, given: str) -> None:
    signature = signature_of([spec("x"), spec(taken, (2, "N", 3))], [spec("y"), spec(given, (2, "?", 3))])
    assert proposal(signature) == (
        f"the next step seems to need {given} as {taken}; to keep it, "
        "put this line at the top of model.toml: "
        f'sequence = {{ state = {{ {taken} = "{given}" }} }}'
    )


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([spec("x")], [spec("y")]),
        ([spec("h")], [spec("hn")]),
        ([spec("x"), spec("h")], [spec("hn")]),
        ([spec("x"), spec("h")], [spec("y"), spec("hn", ("N", 2))]),
        ([spec("x"), spec("h")], [spec("y"), spec("hn", datatype=DataType.FP64)]),
        ([spec("x"), spec("h")], [spec("y"), spec("hn"), spec("h1")]),
        ([spec("x"), spec("h"), spec("h0")], [spec("y"), spec("hn")]),
    ],
)
def test_what_is_not_plain_is_not(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    assert proposal(signature_of(inputs, outputs)) == ""


# Batching


def rows_first(model: onnx.ModelProto, folder: Path, state: dict[str, str]) -> tuple[OnnxBackend, RowsFirst]:
    backend = opened(model, folder)
    declared = read_sequence_state(folder, ModelSequence(state=state), backend.signature)
    assert declared is not None
    return backend, RowsFirst(backend, declared)


@pytest.mark.parametrize(
    ("make", "state"), [(zoo.running_sum, {"sum": "sumN"}), (zoo.running_mean, {"h": "hn"})]
)
def test_models_with_a_state_are_batched(
    make: Callable[[], onnx.ModelProto], state: dict[str, str], tmp_path: Path
) -> None:
    _, shown = rows_first(make(), tmp_path, state)
    assert check_batching(shown, True, False, 32) == Batching(True, BIT_FOR_BIT)


def test_states_that_mix_are_seen() -> None:
    def mixing(outputs: Any, inputs: Any) -> Any:
        after = inputs["h"] + inputs["h"].mean(axis=1, keepdims=True)
        return [{"y": inputs["x"], "hn": after}[name] for name in outputs]

    state = read_sequence_state(Path(), settings(), WIDE)
    assert state is not None
    found = check_batching(RowsFirst(HandBackend(mixing, WIDE), state), True, False, 8)
    assert not found.enabled
    assert found.reason.startswith("output hn depends on the other rows of a batch")


def test_scalars_do_not_rule_batching_out(tmp_path: Path) -> None:
    assert check_batching(opened(zoo.scaled(), tmp_path), True, False, 32) == Batching(True, BIT_FOR_BIT)
    alone = signature_of([spec("s", ())], [spec("y")])
    assert check_batching(HandBackend(lambda *_: [], alone), True, False, 8) == Batching(
        False, "all its inputs are scalars"
    )
