"""First states, values that stay and states that grow, in the batcher of a model that is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from penstock.backends.onnx import OnnxBackend
from penstock.config import Config, RuntimeConfig
from penstock.core.errors import InvalidRequest, ModelLoadError, RequestError, SequenceTooLong, StatesTooLarge
from penstock.core.request import Step
from penstock.core.tensors import Array
from penstock.models.model import Model
from penstock.models.registry import ModelRegistry
from penstock.models.repository import scan
from penstock.protocols.tensors import layout
from support import steps, zoo
from support.work import MadeRequest, Tally, caller, request


def load(root: Path, graph: onnx.ModelProto, settings: str) -> tuple[Model, Tally]:
    zoo.repository(root, {"m": graph})
    (root / "m" / "model.toml").write_text(f"[sequence]\n{settings}\n")
    told: list[Model] = []
    tally = Tally()
    config = Config(runtime=RuntimeConfig(intra_op_threads=1))
    ModelRegistry(config, OnnxBackend, lambda model: tally).load_all(scan(root), told.append)
    return told[0], tally


class Stream:
    """Owns a sequence."""


def step(model: Model, key: object, *, start: bool = False, end: bool = False, **inputs: Any) -> MadeRequest:
    arrays = {name: np.array(value, np.float32) for name, value in inputs.items()}
    rows, shape_key = layout(model, arrays)
    made = request(arrays, rows=rows, shape_key=shape_key)
    made.sequence = Step(key, start, end, key if isinstance(key, Stream) else None)
    return made


def run(model: Model, *requests: MadeRequest) -> list[list[float] | type[RequestError]]:
    """Puts steps in, runs until nothing waits, and gives the answers."""
    for each in requests:
        try:
            model.batcher.put(each)
        except RequestError as error:
            each.reply(error)
    while model.batcher.run_once():
        pass
    return [
        type(result) if isinstance(result, RequestError) else result.outputs["y"].ravel().tolist()
        for each in requests
        for result in caller(each).results
    ]


BROUGHT = 'state = { memory = "memory_out" }\nsent_at_start = ["memory"]'
SPOKEN = 'state = { sum = "sumN" }\nconstant = ["speaker"]'
GROWING = 'state = { past = "present" }\ngrows = { past = 1 }'


# A first state that a step brings


def test_a_step_brings_the_first_state(tmp_path: Path) -> None:
    model, tally = load(tmp_path, steps.decoder(), BROUGHT)
    assert (model.optional_inputs, list(model.start_inputs)) == ({"memory"}, ["memory"])
    assert list(model.signature.inputs) == ["x", "memory"]
    one = step(model, "a", start=True, x=[[1]], memory=[[[1, 2], [3, 6]]])  # the state is then 2, 3, 4, 7
    assert run(model, one, step(model, "a", x=[[1]])) == [[13.0], [17.0]]
    # Those of equal lengths run together, others do not.
    tally.batches.clear()
    some = [step(model, key, start=True, x=[[0]], memory=[[[key, 0]] * (1 + key % 2)]) for key in range(4)]
    run(model, *some)
    assert run(model, *[step(model, key, x=[[0]]) for key in range(4)]) == [[0.0], [2.0], [2.0], [6.0]]
    assert tally.batches[-2:] == [2, 2]


def test_only_the_first_step_brings_it_and_it_must(tmp_path: Path) -> None:
    model, _ = load(tmp_path, steps.decoder(), BROUGHT)
    memory = [[[1, 2]]]
    lacking = step(model, "a", start=True, x=[[1]])
    run(model, lacking)
    assert str(caller(lacking).error()) == (
        "input memory is missing: a step that begins a sequence has to send it; later steps may leave it out"
    )
    again = step(model, "a", x=[[1]], memory=memory)
    assert run(model, step(model, "a", start=True, x=[[1]], memory=memory), again)[1] is InvalidRequest
    assert str(caller(again).error()) == (
        "only a step that begins a sequence may send memory: the server keeps it for the later steps; set "
        "start to begin the sequence anew"
    )
    assert run(model, step(model, "a", x=[[1]])) == [[6.0]]  # as it was
    assert run(model, step(model, "a", start=True, x=[[1]], memory=[[[0, 0]]])) == [[1.0]]


def test_the_first_step_of_a_stream_needs_no_start(tmp_path: Path) -> None:
    model, _ = load(tmp_path, steps.decoder(), BROUGHT)
    stream, other = Stream(), Stream()
    assert run(
        model,
        step(model, stream, x=[[1]], memory=[[[1, 2]]]),
        step(model, stream, x=[[1]], memory=[[[1, 2]]]),
        step(model, stream, x=[[1]]),
    ) == [[4.0], InvalidRequest, [6.0]]
    # What follows a first step that was rejected begins nothing.
    kinds = [str(each) for each in run(model, step(model, other, x=[[1]]), step(model, other, x=[[1]]))]
    assert ["InvalidRequest" in kinds[0], "UnknownSequence" in kinds[1]] == [True, True]


def test_a_first_state_of_a_fixed_shape_may_be_left_out(tmp_path: Path) -> None:
    model, tally = load(tmp_path, zoo.running_mean(), 'state = { h = "hn" }\nsent_at_start = ["h"]')
    assert (model.optional_inputs, list(model.start_inputs)) == ({"h"}, [])
    h = np.full((2, 1, 3), 2.0)
    some = [step(model, "a", start=True, x=[[0, 0, 0]]), step(model, "b", start=True, x=[[0, 0, 0]], h=h)]
    assert run(model, *some) == [[0.0] * 3, [1.0] * 3]
    assert tally.batches == [2]


# Values that are sent once


def test_a_value_stays_until_another_is_sent(tmp_path: Path) -> None:
    model, tally = load(tmp_path, steps.spoken(), SPOKEN)
    assert (model.optional_inputs, list(model.start_inputs)) == ({"speaker"}, ["speaker"])
    first = [step(model, key, start=True, x=[[1]], speaker=[[key, key]]) for key in range(3)]
    run(model, *first)
    assert run(model, *[step(model, key, x=[[1]]) for key in range(3)]) == [[0.0], [4.0], [8.0]]
    assert tally.batches[-1] == 3
    assert run(model, step(model, 1, x=[[1]], speaker=[[5, 5]]), step(model, 1, x=[[1]])) == [[14.0], [24.0]]
    assert run(model, step(model, 1, start=True, x=[[1]])) == [InvalidRequest]
    # Of other widths they do not share a batch.
    run(model, step(model, "w", start=True, x=[[1]], speaker=[[1]]))
    assert run(model, step(model, 1, x=[[1]]), step(model, "w", x=[[1]])) == [[34.0], [2.0]]


def test_a_value_does_not_hold_its_message(tmp_path: Path) -> None:
    model, _ = load(tmp_path, steps.spoken(), SPOKEN)
    sent = step(model, "a", start=True, x=[[1]], speaker=[[1, 2]])
    message = np.zeros(10_000, np.float32)
    sent.inputs = {**sent.inputs, "speaker": message[:2].reshape(1, 2)}
    run(model, sent)
    batcher = model.sequences
    assert batcher is not None
    state = batcher._sequences.state_of(step(model, "a", x=[[1]]))
    assert state is not None
    assert all(each.base is None or each.base.nbytes < 100 for each in state)


def test_scalars_that_stay_part_batches(tmp_path: Path) -> None:
    model, tally = load(tmp_path, steps.rated(), 'state = { sum = "sumN" }\nconstant = ["rate"]')
    run(model, *[step(model, key, start=True, x=[[1]], rate=key % 2) for key in range(4)])
    tally.batches.clear()
    assert run(model, *[step(model, key, x=[[1]]) for key in range(4)]) == [[0.0], [2.0], [0.0], [2.0]]
    assert tally.batches == [2, 2]


def test_a_model_may_keep_nothing_but_values(tmp_path: Path) -> None:
    model, _ = load(tmp_path, zoo.add(), 'constant = ["b"]')
    assert run(
        model, step(model, "a", start=True, a=[[1, 2, 3]], b=[[1, 1, 1]]), step(model, "a", a=[[0, 0, 0]])
    ) == [[2.0, 3.0, 4.0], [1.0, 1.0, 1.0]]


# States that grow


def test_a_state_grows(tmp_path: Path) -> None:
    model, tally = load(tmp_path, steps.cache(), GROWING)
    assert model.batching.enabled, model.batching.reason
    assert str(model.sequence_state) == (
        "past from present (up to 4096 long), dropped 60 s after the last step"
    )
    run(model, *[step(model, key, start=True, x=[[[key, 1]]]) for key in range(3)])
    for turn in range(2, 5):
        got = run(model, *[step(model, key, x=[[[key, 1]]]) for key in range(3)])
        assert got == [[key * turn, turn] for key in range(3)]
    assert tally.batches[-1] in (2, 3)  # the first of a new shape runs alone
    assert run(model, *[step(model, 0, x=[[[0, 1], [0, 1]]]), step(model, 0, x=[[[0, 1]]])]) == [
        [0.0, 6.0],
        [0.0, 7.0],
    ]


@pytest.mark.parametrize("masked", [False, True])
def test_sequences_of_equal_lengths_share_batches(tmp_path: Path, masked: bool) -> None:
    graph = steps.attention() if masked else steps.cache()
    axis = 2 if masked else 1
    model, tally = load(tmp_path, graph, f'state = {{ past = "present" }}\ngrows = {{ past = {axis} }}')

    def one(key: object, turn: int) -> MadeRequest:
        x: Array = np.full((1, 1, 1, 2) if masked else (1, 1, 2), 1.0)
        more = {"mask": np.ones((1, turn))} if masked else {}
        return step(model, key, start=turn == 1, x=x, **more)

    for keys in ("ab", "cd"):  # the second time all shapes are known
        for turn in (1, 2, 3):
            assert run(model, *[one(key, turn) for key in keys]) == [[turn, turn]] * 2
    assert tally.batches[-3:] == ([1, 1, 1] if not model.batching.enabled else [2, 2, 2])
    assert model.batching.enabled or masked


def test_a_state_grows_to_its_bound(tmp_path: Path) -> None:
    model, tally = load(tmp_path, steps.cache(), f"{GROWING}\nmax_length = 3")
    ones = [step(model, "a", start=not turn, x=[[[1, 1]]]) for turn in range(5)]
    assert run(model, *ones) == [[1, 1], [2, 2], [3, 3], SequenceTooLong, SequenceTooLong]
    assert str(caller(ones[3]).error()) == (
        "the state past is 3 long, the limit is 3 (sequence.max_length); begin the sequence anew"
    )
    assert len(tally.batches) == 3
    long = step(model, "b", start=True, x=np.ones((1, 4, 2)))
    assert run(model, long) == [SequenceTooLong]
    assert "would be 4 long after this step" in str(caller(long).error())
    assert run(model, step(model, "a", start=True, x=[[[1, 1]]])) == [[1, 1]]


def test_steps_beyond_a_bound_do_not_open_the_breaker(tmp_path: Path) -> None:
    model, tally = load(tmp_path, steps.cache(), f"{GROWING}\nmax_length = 3")
    for _ in range(20):
        assert run(model, step(model, "b", start=True, x=np.ones((1, 4, 2)))) == [SequenceTooLong]
    assert (model.batcher.breaker.failures_in_row, tally.events) == (0, [])


def test_states_have_a_bound_in_bytes(tmp_path: Path) -> None:
    model, _ = load(tmp_path, steps.cache(), f"{GROWING}\nmax_state_bytes = 48")  # six rows of two values
    assert run(model, step(model, "a", start=True, x=np.ones((1, 4, 2)))) == [[4, 4]]
    over = step(model, "b", start=True, x=np.ones((1, 3, 2)))
    assert run(model, over) == [StatesTooLarge]
    assert str(caller(over).error()) == (
        "the states of all sequences take 32 bytes, the step needs 24 more, the limit is 48 "
        "(sequence.max_state_bytes); end some sequences"
    )
    assert run(model, step(model, "b", start=True, x=np.ones((1, 2, 2)))) == [[2, 2]]
    assert run(model, step(model, "b", x=np.ones((1, 1, 2)))) == [StatesTooLarge]
    sequences = model.sequences
    assert sequences is not None
    assert sequences._sequences.state_bytes == 48
    assert run(model, step(model, "a", end=True, x=np.ones((1, 9, 2)))) == [[13, 13]]  # it makes room
    assert run(model, step(model, "b", x=np.ones((1, 1, 2)))) == [[3, 3]]
    assert sequences._sequences.state_bytes == 24
    run(model, step(model, "b", end=True, x=np.ones((1, 1, 2))))
    assert (sequences.sequences, sequences._sequences.state_bytes) == (0, 0)


# What is tried at load


@pytest.mark.parametrize(
    ("graph", "settings", "words"),
    [
        (
            steps.cache("Q", 2),
            GROWING,
            r"every second step would fail: state output present has shape \[1, 4, 4\]",
        ),
        (
            steps.added(),
            'state = { h = "hn" }\ninitial = { h = "h.npy" }',
            "every step that begins a sequence would fail, because the model fails on its first state: .*Add",
        ),
        (
            steps.once(),
            'state = { h = "hn" }',
            "every second step of a sequence would fail, because the model fails on the state that it gave "
            "itself: .*out of data bounds",
        ),
        (steps.only_new(), GROWING, r"output present FP32\[N,.,2\] became shorter than input past"),
        (steps.cache(), 'state = { past = "present" }', r"such as grows = { past = 1 }"),
        (steps.cache(), GROWING + "\naxis = { past = 1 }", "not an open axis besides the batch axis"),
        (steps.cache(5), GROWING, r"axis 1 of output present FP32\[N,5,2\] has a fixed length"),
        (steps.cache(), 'state = { past = "present" }\ngrows = { x = 1 }', "sequence.grows names x"),
        (steps.cache(), GROWING + '\nsent_at_start = ["x"]', "sequence.sent_at_start names x"),
        (steps.cache(), GROWING + '\nconstant = ["z"]', "constant names input z, which does not exist"),
        (steps.cache(), GROWING + '\nconstant = ["past"]', "constant names past, which is a state"),
    ],
)
def test_what_would_always_fail_is_refused(
    tmp_path: Path, graph: onnx.ModelProto, settings: str, words: str
) -> None:
    (tmp_path / "m").mkdir()
    np.save(tmp_path / "m" / "h.npy", np.zeros((1, 2), np.float32))
    with pytest.raises(ModelLoadError, match=words):
        load(tmp_path, graph, settings)
