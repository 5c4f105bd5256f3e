"""Sequence state: reads `[sequence]` of `model.toml` and compares it with the graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penstock.config import ModelSequence
from penstock.config.toml import toml_key, toml_value
from penstock.core.errors import ModelLoadError
from penstock.core.tensors import Array, Kind, Signature, TensorSpec
from penstock.models.checks.axes import axes_by_name
from penstock.scheduling.packing.states import NO_LIMITS, StateLimits, StateTensor
from penstock.scheduling.step_inputs import StepInputs


@dataclass(frozen=True, slots=True)
class SequenceState:
    """The state that the server keeps for each sequence, and for how long.

    Attributes:
        tensors: the tensors that one step passes to the next.
        idle_seconds: how long after its last step a sequence's state is kept.
        max_sequences: the most sequences whose state is kept.
        rows_of: the inputs whose axis of rows has the name of the states' batch axis: a step has one row of
            each.
        constants: the inputs that are sent at the start and kept.
        step_inputs: the inputs that some steps send and others do not; None if there are none.
        limits: how large states may become.
        shared: whether every caller may send steps of every sequence.
    """

    tensors: Sequence[StateTensor]
    idle_seconds: float
    max_sequences: int
    rows_of: Sequence[str] = ()
    constants: Sequence[StateTensor] = ()
    step_inputs: StepInputs | None = None
    limits: StateLimits = NO_LIMITS
    shared: bool = False

    def without(self, signature: Signature) -> Signature:
        """A graph's signature without the state: the inputs and outputs of requests."""
        inputs = {each.input for each in self.tensors if not self.may_be_sent(each)}
        outputs = {each.output for each in self.tensors}
        return Signature(_without_names(signature.inputs, inputs), _without_names(signature.outputs, outputs))

    def names_among(self, names: Collection[str]) -> list[str]:
        """The state's inputs and outputs among these names, except the inputs that a step may send."""
        return [
            name
            for each in self.tensors
            for name in (each.input, each.output)
            if name in names and not (name == each.input and self.may_be_sent(each))
        ]

    def may_be_sent(self, tensor: StateTensor) -> bool:
        """Whether a step that begins a sequence may send this state."""
        return self.step_inputs is not None and tensor.input in self.step_inputs.states

    def _described(self, tensor: StateTensor) -> str:
        text = f"{tensor.input} from {tensor.output}"
        if self.may_be_sent(tensor):
            text += " (or sent at the start)"
        if tensor.grows is not None:
            text += f" (up to {self.limits.max_length} long)"
        return text

    def __str__(self) -> str:
        parts = [self._described(each) for each in self.tensors]
        parts += [f"{each.input} as sent at the start" for each in self.constants]
        shared = ", shared by all callers" if self.shared else ""
        return f"{', '.join(parts)}, dropped {self.idle_seconds:g} s after the last step{shared}"


def read_sequence_state(
    folder: Path, settings: ModelSequence, signature: Signature, axes: Mapping[str, int] | None = None
) -> SequenceState | None:
    """The state that `model.toml` declares; None if it declares none.

    Args:
        folder: the model's, which the files' names are relative to.
        settings: what is declared.
        signature: the graph's.
        axes: `batching.axes` of `model.toml`.

    Raises:
        ModelLoadError: it does not fit the graph, or a file cannot be read; says what was found and what was
            expected.
    """
    if not settings.state and not settings.constant:
        if settings.model_fields_set:
            raise ModelLoadError('[sequence] lacks state, such as state = { state = "stateN" }')
        return None
    _check_names(settings, signature)
    signature = axes_by_name(signature, axes or {}).signature
    tensors = [_tensor(folder, name, settings, signature) for name in settings.state]
    constants = [_constant(signature.inputs[name]) for name in settings.constant]
    rows_of = _inputs_along(tensors, signature)
    return SequenceState(
        tuple(tensors),
        settings.idle_seconds,
        settings.max_sequences,
        rows_of,
        tuple(constants),
        _step_inputs(tensors, rows_of, settings),
        StateLimits(settings.max_length, settings.max_state_bytes if _counts_bytes(settings) else None),
        settings.shared,
    )


def _counts_bytes(settings: ModelSequence) -> bool:
    """Whether callers decide how large a state is, or the settings limit it."""
    return bool(settings.grows or settings.constant or settings.sent_at_start) or (
        "max_state_bytes" in settings.model_fields_set
    )


def _tensor(folder: Path, name: str, settings: ModelSequence, signature: Signature) -> StateTensor:
    spec, output = signature.inputs[name], settings.state[name]
    _check_pair(spec, signature.outputs[output])
    axis, grows = _axis(spec, settings, signature), settings.grows.get(name)
    shape = spec.shape or ()
    if grows is not None and (grows == axis or grows >= len(shape) or isinstance(shape[grows], int)):
        raise ModelLoadError(
            f"sequence.grows: axis {grows} of input {spec} is not an open axis besides the batch axis"
        )
    if grows is not None:
        _check_open(signature.outputs[output], grows)
    open_axes = tuple(
        place
        for place, length in enumerate(shape)
        if place == grows or (name in settings.sent_at_start and place != axis and isinstance(length, str))
    )
    return StateTensor(name, output, axis, _initial(folder, spec, axis, settings), open_axes, grows)


def _check_open(given: TensorSpec, axis: int) -> None:
    if given.shape is not None and isinstance(given.shape[axis], int):
        raise ModelLoadError(
            f"sequence.grows: axis {axis} of output {given} has a fixed length, so it cannot grow"
        )


def _constant(spec: TensorSpec) -> StateTensor:
    shape = spec.shape or ()
    if spec.shape is None:
        raise ModelLoadError(f"sequence.constant: input {spec.name} declares no shape")
    axis = 0 if shape and isinstance(shape[0], str) else None
    lengths = tuple(1 if place == axis else _fixed(length) for place, length in enumerate(shape))
    open_axes = tuple(place for place, length in enumerate(shape) if place and isinstance(length, str))
    return StateTensor(spec.name, "", axis, np.empty(lengths, spec.datatype.dtype), open_axes)


def _fixed(length: int | str) -> int:
    return length if isinstance(length, int) else 0


def _step_inputs(
    tensors: Sequence[StateTensor], rows_of: Sequence[str], settings: ModelSequence
) -> StepInputs | None:
    if not settings.sent_at_start and not settings.constant:
        return None
    sent = [each for each in tensors if each.input in settings.sent_at_start]
    required = [
        each.input
        for each in sent
        if each.input not in settings.initial and any(axis != each.grows for axis in each.open_axes)
    ]
    axes: dict[str, int | None] = {each.input: each.axis for each in sent}
    axes.update({name: 0 if name in rows_of else None for name in settings.constant})
    return StepInputs(
        tuple(each.input for each in sent), settings.constant, (*required, *settings.constant), axes
    )


def scalars_of(signature: Signature) -> tuple[str, ...]:
    """The inputs without axes."""
    return tuple(name for name, spec in signature.inputs.items() if spec.shape == ())


def _without_names(specs: Mapping[str, TensorSpec], names: Collection[str]) -> dict[str, TensorSpec]:
    return {name: spec for name, spec in specs.items() if name not in names}


def _check_names(settings: ModelSequence, signature: Signature) -> None:
    for role, named, there in (
        ("input", settings.state, signature.inputs),
        ("output", settings.state.values(), signature.outputs),
    ):
        unknown = [name for name in named if name not in there]
        if unknown:
            _check_direction(settings.state, signature)
            has = ", ".join(there) or "none"
            raise ModelLoadError(
                f"sequence.state names {role} {unknown[0]}, which does not exist; the model has {has}"
            )
    if len(set(settings.state.values())) != len(settings.state):
        raise ModelLoadError(
            "sequence.state names an output twice; each output can be the state of one input only"
        )
    for setting, names in (
        ("axis", settings.axis),
        ("initial", settings.initial),
        ("grows", settings.grows),
        ("sent_at_start", settings.sent_at_start),
    ):
        unknown = [name for name in names if name not in settings.state]
        if unknown:
            raise ModelLoadError(f"sequence.{setting} names {unknown[0]}, which sequence.state does not")
    for name in settings.constant:
        if name in settings.state:
            raise ModelLoadError(f"sequence.constant names {name}, which is a state in sequence.state")
        if name not in signature.inputs:
            has = ", ".join(each for each in signature.inputs if each not in settings.state) or "none"
            raise ModelLoadError(
                f"sequence.constant names input {name}, which does not exist; the model has {has}"
            )


def _check_direction(state: Mapping[str, str], signature: Signature) -> None:
    """Rejects a table of output = input, and shows the correct order."""
    for name, value in state.items():
        if name in signature.outputs and value in signature.inputs:
            came, meant = toml_value({name: value}), toml_value({value: name})
            raise ModelLoadError(
                f"sequence.state: {came} is the wrong way round: {name} is an output and {value} an input; "
                f"expected input = output, as in {meant}"
            )


def _check_pair(taken: TensorSpec, given: TensorSpec) -> None:
    if taken.datatype.kind is Kind.BYTES:
        raise ModelLoadError(f"sequence.state: input {taken} is text, and text cannot be a state")
    if taken.shape is None:
        raise ModelLoadError(f"sequence.state: input {taken.name} declares no shape")
    if not may_be_same(taken, given):
        raise ModelLoadError(f"sequence.state: output {given} does not fit input {taken}")


def may_be_same(taken: TensorSpec, given: TensorSpec) -> bool:
    """Whether an output can be an input of the next step, by datatype and shape."""
    if taken.datatype is not given.datatype or taken.shape is None:
        return False
    if given.shape is None:
        return True
    return len(taken.shape) == len(given.shape) and all(
        one == other or isinstance(one, str) or isinstance(other, str)
        for one, other in zip(taken.shape, given.shape, strict=True)
    )


def _axis(spec: TensorSpec, settings: ModelSequence, signature: Signature) -> int | None:
    """The batch axis of a state; None if it has no open axis, so that sequences run one by one."""
    shape = spec.shape or ()
    given = settings.axis.get(spec.name)
    if given is not None:
        if given >= len(shape) or isinstance(shape[given], int):
            raise ModelLoadError(f"sequence.axis: axis {given} of input {spec} is not an open axis")
        return given
    if all(isinstance(length, int) for length in shape):
        return None
    others = [each for name, each in signature.inputs.items() if name not in settings.state]
    rows = {each.shape[each.row_axis] for each in others if each.shape}
    found = [axis for axis, length in enumerate(shape) if isinstance(length, str) and length in rows]
    if len(found) != 1:
        raise ModelLoadError(
            f"the graph does not define the batch axis of input {spec}; set it in model.toml, such as "
            f"[sequence] axis = {{ {toml_key(spec.name)} = 0 }}"
        )
    return found[0]


def _inputs_along(tensors: Sequence[StateTensor], signature: Signature) -> tuple[str, ...]:
    """The inputs, states aside, whose axis of rows has the name of a state's batch axis."""
    shapes = {each.input: signature.inputs[each.input].shape or () for each in tensors}
    names = {shapes[each.input][each.axis] for each in tensors if each.axis is not None}
    return tuple(
        name
        for name, spec in signature.inputs.items()
        if name not in shapes and spec.shape and spec.shape[spec.row_axis] in names
    )


def _initial(folder: Path, spec: TensorSpec, axis: int | None, settings: ModelSequence) -> Array:
    """The state that a sequence begins with."""
    shape = tuple(1 if place == axis else length for place, length in enumerate(spec.shape or ()))
    file = settings.initial.get(spec.name)
    if file is None:
        grows, may_be_sent = settings.grows.get(spec.name), spec.name in settings.sent_at_start
        for place, length in enumerate(shape):
            if isinstance(length, str) and place != grows and not may_be_sent:
                raise ModelLoadError(
                    f"input {spec} has open axes besides its batch axis; set their lengths with a file in "
                    "sequence.initial, or, if it grows with every step, name the axis in sequence.grows, "
                    f"such as grows = {{ {toml_key(spec.name)} = {place} }}"
                )
        return np.zeros(tuple(map(_fixed, shape)), spec.datatype.dtype)
    try:
        with (folder / file).open("rb") as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"sequence.initial of input {spec.name}: cannot read {file}: {error}") from error
    if array.dtype != spec.datatype.dtype or not _has_shape(array.shape, shape):
        came, wanted = _described(array.dtype, array.shape), _described(spec.datatype.dtype, shape)
        raise ModelLoadError(f"sequence.initial of input {spec.name}: {file} holds {came}, expected {wanted}")
    return np.ascontiguousarray(array)


def _has_shape(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(want, str) or want == have for have, want in zip(shape, wanted, strict=True)
    )


def _described(dtype: object, shape: tuple[int | str, ...]) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"
