"""The state that the server keeps for a model: as `model.toml` declares it, held against the graph.

Where names and shapes make it plain that an output is an input of the next step, but nothing is declared, it
is proposed, never switched on: only who knows the model knows that its requests are steps of sequences.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from penstock.backends.backend import Backend, Stop
from penstock.config import ModelSequence
from penstock.config.toml import toml_value
from penstock.errors import ModelLoadError
from penstock.scheduling.state import StateTensor
from penstock.tensors import Array, Kind, Signature, TensorSpec

FED_BACK = ("{}N", "{}n", "{}_n", "{}_N", "{}_out", "{}_new", "{}_next", "{}1", "new_{}", "next_{}", "out_{}")
"""What an output may be called that is the input {} of the next step."""
BEFORE = (("_in", "_out"), ("_prev", "_next"), ("_old", "_new"), ("0", "1"), ("0", "n"), ("0", "N"))
"""Endings of an input's name, and of such an output's in their place."""


@dataclass(frozen=True, slots=True)
class KeptState:
    """What the server keeps for each sequence, and for how long.

    Attributes:
        tensors: what is handed from step to step.
        idle_seconds: how long after its last step a sequence's state is kept.
        max_sequences: the most sequences whose state is kept.
        rows_of: the inputs whose first axis is the states' batch axis by name: a step has one row of each.
    """

    tensors: Sequence[StateTensor]
    idle_seconds: float
    max_sequences: int
    rows_of: Sequence[str] = ()

    def without(self, signature: Signature) -> Signature:
        """What callers send and get of a graph's signature."""
        inputs = {each.input for each in self.tensors}
        outputs = {each.output for each in self.tensors}
        return Signature(_less(signature.inputs, inputs), _less(signature.outputs, outputs))

    def names_among(self, names: Collection[str]) -> list[str]:
        """The state's inputs and outputs among these names."""
        return [name for each in self.tensors for name in (each.input, each.output) if name in names]

    def __str__(self) -> str:
        pairs = ", ".join(f"{each.input} from {each.output}" for each in self.tensors)
        return f"{pairs}, until no step has come for {self.idle_seconds:g} s"


def read_kept_state(folder: Path, settings: ModelSequence, signature: Signature) -> KeptState | None:
    """The state that `model.toml` declares; None where it declares none.

    Args:
        folder: the model's, which the files' names are relative to.
        settings: what is declared.
        signature: the graph's.

    Raises:
        ModelLoadError: it does not fit the graph, or a file cannot be read; says what was found and what was
            expected.
    """
    if not settings.state:
        if settings.model_fields_set:
            raise ModelLoadError('[sequence] lacks state, such as state = { state = "stateN" }')
        return None
    _check_names(settings, signature)
    tensors = []
    for name, output in settings.state.items():
        spec = signature.inputs[name]
        _check_pair(spec, signature.outputs[output])
        axis = _axis(spec, settings, signature)
        tensors.append(StateTensor(name, output, axis, _initial(folder, spec, axis, settings)))
    rows_of = _inputs_along(tensors, signature)
    return KeptState(tuple(tensors), settings.idle_seconds, settings.max_sequences, rows_of)


def proposal(signature: Signature) -> str:
    """What to write into `model.toml` where outputs are plainly meant for the next step; "" where none is."""
    pairs = {
        name: found.name
        for name, spec in signature.inputs.items()
        if (found := _fed_back(spec, signature.outputs)) is not None
    }
    count = len(set(pairs.values()))
    rest = min(len(signature.inputs), len(signature.outputs)) > count  # else nothing goes in or comes out
    if not pairs or count != len(pairs) or not rest:
        return ""
    table = ", ".join(f'{name} = "{output}"' for name, output in pairs.items())
    names = " and ".join(f"{output} as {name}" for name, output in pairs.items())
    return (
        f"it seems to take {names} at its next step; model.toml keeps it by [sequence] state = {{ {table} }}"
    )


def scalars_of(signature: Signature) -> tuple[str, ...]:
    """The inputs without axes."""
    return tuple(name for name, spec in signature.inputs.items() if spec.shape == ())


class RowsFirst:
    """A model with a state as one whose rows lie along the first axis of all its tensors: to be checked.

    Args:
        backend: the model.
        kept: its state.
    """

    def __init__(self, backend: Backend, kept: KeptState) -> None:
        self._backend = backend
        self._axes = {
            name: each.axis or 0
            for each in kept.tensors
            for name in (each.input, each.output)
            if each.initial.ndim
        }
        self.file, self.providers = backend.file, backend.providers
        shapes = {
            name: _rows_first(each, backend.signature.inputs[each.input])
            for each in kept.tensors
            for name in (each.input, each.output)
        }
        whole = backend.signature
        self.signature = Signature(_reshaped(whole.inputs, shapes), _reshaped(whole.outputs, shapes))

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, Array], stop: Stop | None = None
    ) -> Sequence[Array]:
        """Runs the graph once; see `penstock.backends.backend.Backend.run`."""
        turned = {
            name: np.ascontiguousarray(np.moveaxis(array, 0, self._axes[name]))
            if name in self._axes
            else array
            for name, array in inputs.items()
        }
        results = self._backend.run(outputs, turned, stop)
        return [
            _front(array, self._axes[name]) if name in self._axes else array
            for name, array in zip(outputs, results, strict=True)
        ]

    def close(self) -> None:
        """Lets go of the model's memory."""
        self._backend.close()


def _front(array: Array, axis: int) -> Array:
    return np.moveaxis(array, axis, 0) if axis < array.ndim else array


def _rows_first(tensor: StateTensor, spec: TensorSpec) -> tuple[int | str, ...]:
    """The shape of a state with its batch axis first; open axes have the length of the initial state's."""
    shape: list[int | str] = list(tensor.initial.shape)
    if tensor.axis is not None and spec.shape is not None:
        del shape[tensor.axis]
        shape.insert(0, spec.shape[tensor.axis])
    return tuple(shape)


def _reshaped(
    specs: Mapping[str, TensorSpec], shapes: Mapping[str, tuple[int | str, ...]]
) -> dict[str, TensorSpec]:
    return {
        name: replace(spec, shape=shapes[name]) if name in shapes else spec for name, spec in specs.items()
    }


def _less(specs: Mapping[str, TensorSpec], names: Collection[str]) -> dict[str, TensorSpec]:
    return {name: spec for name, spec in specs.items() if name not in names}


def _check_names(settings: ModelSequence, signature: Signature) -> None:
    for role, named, there in (
        ("input", settings.state, signature.inputs),
        ("output", settings.state.values(), signature.outputs),
    ):
        unknown = [name for name in named if name not in there]
        if unknown:
            _check_turned(settings.state, signature)
            has = ", ".join(there) or "none"
            raise ModelLoadError(
                f"sequence.state names the {role} {unknown[0]}, which is not there; there is {has}"
            )
    if len(set(settings.state.values())) != len(settings.state):
        raise ModelLoadError("sequence.state names an output twice: each is the next step's for one input")
    for setting, names in (("axis", settings.axis), ("initial", settings.initial)):
        unknown = [name for name in names if name not in settings.state]
        if unknown:
            raise ModelLoadError(f"sequence.{setting} names {unknown[0]}, which sequence.state does not")


def _check_turned(state: Mapping[str, str], signature: Signature) -> None:
    """Who takes the table for output = input is told so."""
    for name, value in state.items():
        if name in signature.outputs and value in signature.inputs:
            came, meant = toml_value({name: value}), toml_value({value: name})
            raise ModelLoadError(
                f"sequence.state: {came} is the wrong way round: {name} is an output and {value} an input; "
                f"expected input = output, as in {meant}"
            )


def _check_pair(taken: TensorSpec, given: TensorSpec) -> None:
    if taken.datatype.kind is Kind.BYTES:
        raise ModelLoadError(f"sequence.state: input {taken} is text, which cannot be kept")
    if taken.shape is None:
        raise ModelLoadError(f"sequence.state: input {taken.name} declares no shape")
    if not _may_be_same(taken, given):
        raise ModelLoadError(f"sequence.state: output {given} does not fit input {taken}")


def _may_be_same(taken: TensorSpec, given: TensorSpec) -> bool:
    """Whether what an output gives can be what an input takes, as far as the graph says."""
    if taken.datatype is not given.datatype or taken.shape is None:
        return False
    if given.shape is None:
        return True
    return len(taken.shape) == len(given.shape) and all(
        one == other or isinstance(one, str) or isinstance(other, str)
        for one, other in zip(taken.shape, given.shape, strict=True)
    )


def _axis(spec: TensorSpec, settings: ModelSequence, signature: Signature) -> int | None:
    """The batch axis of a state; None where it has no open one, so that sequences are run one by one."""
    shape = spec.shape or ()
    given = settings.axis.get(spec.name)
    if given is not None:
        if given >= len(shape) or isinstance(shape[given], int):
            raise ModelLoadError(f"sequence.axis: axis {given} of input {spec} is none whose length is open")
        return given
    if all(isinstance(length, int) for length in shape):
        return None
    others = [each for name, each in signature.inputs.items() if name not in settings.state]
    rows = {each.shape[0] for each in others if each.shape}
    found = [axis for axis, length in enumerate(shape) if isinstance(length, str) and length in rows]
    if len(found) != 1:
        raise ModelLoadError(
            f"the batch axis of input {spec} is not plain from the graph; give it in model.toml, such as "
            f"[sequence] axis = {{ {spec.name} = 0 }}"
        )
    return found[0]


def _inputs_along(tensors: Sequence[StateTensor], signature: Signature) -> tuple[str, ...]:
    """The inputs, states aside, whose first axis has the name of a state's batch axis."""
    shapes = {each.input: signature.inputs[each.input].shape or () for each in tensors}
    names = {shapes[each.input][each.axis] for each in tensors if each.axis is not None}
    return tuple(
        name
        for name, spec in signature.inputs.items()
        if name not in shapes and spec.shape and spec.shape[0] in names
    )


def _initial(folder: Path, spec: TensorSpec, axis: int | None, settings: ModelSequence) -> Array:
    """What a sequence begins with."""
    shape = tuple(1 if place == axis else length for place, length in enumerate(spec.shape or ()))
    file = settings.initial.get(spec.name)
    if file is None:
        fixed = tuple(length for length in shape if isinstance(length, int))
        if len(fixed) != len(shape):
            raise ModelLoadError(
                f"input {spec} has open axes beside its batch axis, whose lengths sequence.initial is to give"
            )
        return np.zeros(fixed, spec.datatype.dtype)
    try:
        with (folder / file).open("rb") as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"sequence.initial of input {spec.name}: cannot read {file}: {error}") from error
    if array.dtype != spec.datatype.dtype or not _is_of(array.shape, shape):
        came, wanted = _described(array.dtype, array.shape), _described(spec.datatype.dtype, shape)
        raise ModelLoadError(f"sequence.initial of input {spec.name}: {file} holds {came}, expected {wanted}")
    return np.ascontiguousarray(array)


def _is_of(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(want, str) or want == have for have, want in zip(shape, wanted, strict=True)
    )


def _described(dtype: object, shape: tuple[int | str, ...]) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"


def _fed_back(spec: TensorSpec, outputs: Mapping[str, TensorSpec]) -> TensorSpec | None:
    """The output that by its name and shape is this input at the next step."""
    name = spec.name
    names = [form.format(name) for form in FED_BACK]
    names += [name.removesuffix(old) + new for old, new in BEFORE if name.endswith(old)]
    found = [outputs[each] for each in names if each in outputs and _may_be_same(spec, outputs[each])]
    return found[0] if len(found) == 1 and spec.shape else None
