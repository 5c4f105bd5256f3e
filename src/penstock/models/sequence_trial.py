"""Tries two steps of a sequence when a model is loaded, so that what would always fail is seen there.

The first step begins a sequence with the state that a real one begins with. The second continues from the
state that the first one gave. Inputs are generated; the lengths of axes that have the name of an axis that
grows, or the name of a sum with it such as `past + 1`, follow the state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from penstock.backends.backend import Backend
from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.tensors import Array, Signature, TensorSpec
from penstock.models.checks.trying import runs_on_generated_input
from penstock.models.checks.turned import front
from penstock.models.samples import SIZES, UNKNOWN, Sample, samples
from penstock.models.sequence import SequenceState
from penstock.scheduling.packing.states import check_state


def check_steps(rows_first: Backend, state: SequenceState, sample: Sample) -> None:
    """Runs the first and the second step of a sequence.

    A model that fails on every generated input is not rejected: the input may be the reason.

    Args:
        rows_first: the model, as `penstock.models.rows_first.RowsFirst` shows it.
        state: what is kept between its steps.
        sample: what is known of a request.

    Raises:
        ModelLoadError: every first step or every second step would fail; with the model's error.
    """
    must_be_sent = () if state.step_inputs is None else state.step_inputs.required
    kept: dict[str, Array] = {
        each.input: front(each.initial, each.axis or 0)
        for each in state.tensors
        if each.input not in must_be_sent
    }
    first = _first_that_runs(rows_first, state, kept, sample)
    if isinstance(first, ModelFailed):
        if sample is not UNKNOWN or runs_on_generated_input(rows_first, sample):
            raise ModelLoadError(
                "[sequence]: every step that begins a sequence would fail, because the model fails on its "
                f"first state: {first}"
            )
        return
    _check_states(rows_first, state, first)
    kept |= {each.input: first[1][each.output] for each in state.tensors}
    second = _first_that_runs(rows_first, state, kept, sample, (1, None, *SIZES))
    if not isinstance(second, ModelFailed):
        _check_states(rows_first, state, second)
    elif not _may_need_other_lengths(rows_first.signature, state):
        raise ModelLoadError(
            "[sequence]: every second step of a sequence would fail, because the model fails on the state "
            f"that it gave itself: {second}"
        )


Run = tuple[Mapping[str, Array], Mapping[str, Array]]
"""The inputs and the outputs of a run."""


def _first_that_runs(
    backend: Backend,
    state: SequenceState,
    kept: Mapping[str, Array],
    sample: Sample,
    sizes: Sequence[int | None] = (None, *SIZES),
) -> Run | ModelFailed:
    """The first run of a step that succeeds, from the given states; the first error if none does."""
    names, error = tuple(backend.signature.outputs), None
    for inputs in _inputs(backend.signature, state, kept, sample, sizes):
        try:
            return inputs, dict(zip(names, backend.run(names, inputs), strict=True))
        except ModelFailed as failure:
            error = error or failure
    return error or ModelFailed("it has no inputs to generate")


def _inputs(
    signature: Signature,
    state: SequenceState,
    kept: Mapping[str, Array],
    sample: Sample,
    sizes: Sequence[int | None],
) -> Iterator[dict[str, Array]]:
    """Generated inputs of one row, with these states."""
    lengths = _lengths(signature, state, kept)
    for size in sizes if lengths else (None,):
        inputs = {name: _with_lengths(spec, lengths, size) for name, spec in signature.inputs.items()}
        for made in samples(Signature(inputs, signature.outputs), None, 0, sample):
            yield {**made, **kept}


def _lengths(signature: Signature, state: SequenceState, kept: Mapping[str, Array]) -> dict[str, int]:
    """The lengths of the states' open axes, by the names of these axes."""
    lengths: dict[int | str, int] = {}
    for tensor in state.tensors:
        shape = signature.inputs[tensor.input].shape or ()
        if tensor.open_axes and tensor.input in kept:
            lengths |= zip(shape[1:], kept[tensor.input].shape[1:], strict=True)
    return {name: length for name, length in lengths.items() if isinstance(name, str) and name != "?"}


def _with_lengths(spec: TensorSpec, lengths: Mapping[str, int], size: int | None) -> TensorSpec:
    """An input whose open inner axes have these lengths; names of sums are computed.

    Args:
        spec: the input.
        lengths: the known lengths, by the names of axes.
        size: the length of all other axes after the first; None to leave them open.
    """
    if not spec.shape:
        return spec

    def length_of(name: int | str) -> int | str:
        if isinstance(name, int):
            return name
        parts = [each.strip() for each in name.split("+")]
        known = [int(each) if each.isdecimal() else lengths.get(each, size) for each in parts]
        return name if None in known else sum(each for each in known if each is not None)

    return replace(spec, shape=(spec.shape[0], *map(length_of, spec.shape[1:])))


def _check_states(backend: Backend, state: SequenceState, run: Run) -> None:
    """Checks that the states that a step gave fit the next step."""
    inputs, outputs = run
    for tensor in state.tensors:
        before, array = inputs[tensor.input], outputs[tensor.output]
        in_place = (
            array if not tensor.axis or array.ndim <= tensor.axis else np.moveaxis(array, 0, tensor.axis)
        )
        try:
            check_state(tensor, in_place, 1)
        except ModelFailed as error:
            raise ModelLoadError(f"[sequence]: every second step would fail: {error}") from error
        if tensor.grows is not None and array.size < before.size:
            raise ModelLoadError(
                f"sequence.grows: output {backend.signature.outputs[tensor.output]} became shorter than "
                f"input {tensor.input}: the state that a step gives has to contain the state that it took"
            )


def _may_need_other_lengths(signature: Signature, state: SequenceState) -> bool:
    """Whether an input may need a length that follows the state in a way that its names do not tell."""
    if all(tensor.grows is None for tensor in state.tensors):
        return False
    states = {tensor.input for tensor in state.tensors}
    return any(spec.has_open_inner_axis() for name, spec in signature.inputs.items() if name not in states)
