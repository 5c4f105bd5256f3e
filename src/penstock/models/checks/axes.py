"""Finds the axis along which the rows of each input and output lie: the batch axis.

It is the first axis, unless something says otherwise. In this order: `batching.axes` of model.toml; the
analysis of the graph, for outputs; the names that the graph gives to open axes; runs of generated rows, for
outputs whose names say nothing.

A name of an open axis says something only if several tensors have it. Exporters make up another name for
every open axis whose name they do not know, such as `unk__314` or `Slice_out_dim_0`. The name of the rows is
the one that the inputs have in common. An output with that name has its rows there, wherever the axis is.

The declared lengths of outputs are hints: some exporters declare `[1]` for an output of one value a row.
Generated runs correct them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.backends.backend import Backend
from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.tensors import Signature, TensorSpec
from penstock.models.checks.trying import try_in_turn
from penstock.models.checks.turned import turned
from penstock.models.samples import UNKNOWN, Sample, manners

NO_NAME = "?"
MEANS_ROWS = re.compile(r"[a-z0-9_]*batch[a-z0-9_]*|bsz?", re.IGNORECASE)
"""Names that mean the rows even where they are not first, as in [time, batch, features]."""
ROWS_TRIED = (3, 2)
"""The batch sizes of the runs that show where an output has its rows: two, since an axis may have one of
these lengths anyway."""


@dataclass(frozen=True, slots=True)
class RowAxes:
    """Where the rows of each tensor lie.

    Attributes:
        signature: the model's, with the axis of the rows in each tensor. An output's axis of rows is open.
        name: the name that the graph gives to the rows; "" if it gives none.
        decided: the tensors whose axis is known; for all others the first one is a guess.
    """

    signature: Signature
    name: str
    decided: frozenset[str]

    @property
    def moved(self) -> Mapping[str, int]:
        """The tensors whose rows lie along another axis than the first, and their axes."""
        return {spec.name: spec.row_axis for spec in _tensors(self.signature) if spec.row_axis}

    def __str__(self) -> str:
        places: dict[int, list[str]] = {}
        for name, axis in self.moved.items():
            places.setdefault(axis, []).append(name)
        return ", ".join(f"rows along axis {axis} of {' and '.join(names)}" for axis, names in places.items())


def find_row_axes(
    backend: Backend,
    configured: Mapping[str, int],
    sample: Sample = UNKNOWN,
    from_graph: Mapping[str, int] | None = None,
    *,
    may_run: bool = True,
) -> RowAxes:
    """Finds the axis of the rows of each input and output.

    Args:
        backend: the model.
        configured: `batching.axes` of model.toml.
        sample: what is known of a request.
        from_graph: the axes of outputs that the analysis of the graph has found, if the rows of the inputs
            lie as `axes_by_name` says.
        may_run: whether to run the model where names say nothing.

    Raises:
        ModelLoadError: `configured` does not fit the model.
    """
    axes = axes_by_name(backend.signature, configured, from_graph)
    unclear = [spec.name for spec in axes.signature.outputs.values() if _is_unclear(spec, axes)]
    inputs = [spec for spec in axes.signature.inputs.values() if spec.shape != ()]
    open_inputs = all(spec.shape and isinstance(spec.shape[spec.row_axis], str) for spec in inputs)
    if not unclear or not may_run or not inputs or not open_inputs:
        return axes
    return _by_runs(backend, axes, unclear, sample)


def axes_by_name(
    signature: Signature, configured: Mapping[str, int], from_graph: Mapping[str, int] | None = None
) -> RowAxes:
    """The axes of the rows, without running the model.

    Args:
        signature: the graph's.
        configured: `batching.axes` of model.toml.
        from_graph: the axes of outputs that the analysis of the graph has found.

    Raises:
        ModelLoadError: `configured` does not fit the model.
    """
    _check(configured, signature)
    shared = shared_names(_tensors(signature))
    known = {**(from_graph or {}), **configured}
    said = {_symbol(spec, configured[name]) for name, spec in signature.inputs.items() if name in configured}
    axes: dict[str, int] = {}
    inputs = [spec for spec in signature.inputs.values() if spec.shape]
    others = [spec for spec in inputs if spec.name not in configured and not _follow(spec, said, axes)]
    name = _rows_name(others, shared)
    if MEANS_ROWS.fullmatch(name):
        for spec in others:
            _follow(spec, {name}, axes)
    firsts = {_symbol(spec, axes.get(spec.name, 0)) for spec in others} & shared
    decided = {*known, *axes}
    if len(firsts) < 2:
        decided.update(spec.name for spec in inputs)
    for spec in signature.outputs.values():
        if _follow(spec, {name}, axes) or _follow(spec, said, axes):
            decided.add(spec.name)
    name = name or next(iter(sorted(said - {NO_NAME})), "")
    return _with_axes(RowAxes(signature, name, frozenset(decided)), {**axes, **known})


def shared_names(tensors: Iterable[TensorSpec]) -> set[str]:
    """The names of open axes that several tensors have. All others say nothing."""
    counts = Counter(
        name for spec in tensors for name in {each for each in spec.shape or () if isinstance(each, str)}
    )
    return {name for name, count in counts.items() if count > 1 and name != NO_NAME}


def _tensors(signature: Signature) -> Sequence[TensorSpec]:
    return (*signature.inputs.values(), *signature.outputs.values())


def _symbol(spec: TensorSpec, axis: int) -> str:
    """The name of an axis; NO_NAME if its length is fixed."""
    length = (spec.shape or (NO_NAME,))[axis]
    return length if isinstance(length, str) else NO_NAME


def _places(spec: TensorSpec, names: Collection[str]) -> list[int]:
    """The axes with one of these names."""
    return [axis for axis, length in enumerate(spec.shape or ()) if length in names and length != NO_NAME]


def _follow(spec: TensorSpec, names: Collection[str], axes: dict[str, int]) -> bool:
    """Notes the axis of a tensor that has one of these names, if exactly one has."""
    places = _places(spec, names)
    if len(places) == 1:
        axes[spec.name] = places[0]
    return len(places) == 1


def _rows_name(inputs: Sequence[TensorSpec], shared: Collection[str]) -> str:
    """The name that the graph gives to the rows; "" if it gives none, or several."""
    firsts = {_symbol(spec, 0) for spec in inputs} & {*shared}
    meant = {name for name in firsts if MEANS_ROWS.fullmatch(name)}
    if not meant and inputs:
        everywhere = [name for name in shared if all(len(_places(spec, {name})) == 1 for spec in inputs)]
        meant = {name for name in everywhere if MEANS_ROWS.fullmatch(name)}
    found = meant or firsts
    return next(iter(found)) if len(found) == 1 else ""


def _is_unclear(spec: TensorSpec, axes: RowAxes) -> bool:
    """Whether an output may have its rows elsewhere than along its first axis, or is declared wrongly."""
    if spec.name in axes.decided or not spec.shape:
        return False
    opened = [axis for axis, length in enumerate(spec.shape) if isinstance(length, str)]
    return opened != [0]


def _by_runs(backend: Backend, axes: RowAxes, unclear: Collection[str], sample: Sample) -> RowAxes:
    """Runs generated rows, and looks for the only axis that is as long as there are rows."""
    places: dict[str, set[int]] = {}
    model = turned(backend, axes.signature, (), axes.name)
    sample = sample.turned(axes.signature)
    for rows in ROWS_TRIED:
        try:
            tried = try_in_turn(model, rows, rows, manners(model.signature, sample), sample)
        except ModelFailed:
            return axes
        for name, array in zip(axes.signature.outputs, tried.outputs, strict=True):
            found = {axis for axis, length in enumerate(array.shape) if length == rows}
            places[name] = places.get(name, found) & found
        if not any(places[name] for name in unclear):
            return axes
    known = {name: next(iter(places[name])) for name in unclear if len(places[name]) == 1}
    shared = shared_names(_tensors(axes.signature))
    decided = {
        name for name, axis in known.items() if axis or _symbol(axes.signature.outputs[name], 0) not in shared
    }
    return _with_axes(replace(axes, decided=axes.decided | decided), known)


def _with_axes(axes: RowAxes, known: Mapping[str, int]) -> RowAxes:
    """With these axes of rows. If the graph declares a fixed length there, it is replaced."""
    if not known:
        return axes
    signature = axes.signature
    inputs = {
        name: spec if known.get(name, spec.row_axis) == spec.row_axis else replace(spec, row_axis=known[name])
        for name, spec in signature.inputs.items()
    }
    outputs = {
        name: _opened(spec, known[name], axes.name) if name in known else spec
        for name, spec in signature.outputs.items()
    }
    return replace(axes, signature=replace(signature, inputs=inputs, outputs=outputs))


def _opened(spec: TensorSpec, axis: int, name: str) -> TensorSpec:
    shape = spec.shape
    if shape is not None and axis < len(shape) and isinstance(shape[axis], int):
        shape = (*shape[:axis], name or NO_NAME, *shape[axis + 1 :])
    is_same = shape is spec.shape and axis == spec.row_axis
    return spec if is_same else replace(spec, shape=shape, row_axis=axis)


def _check(configured: Mapping[str, int], signature: Signature) -> None:
    for name, axis in configured.items():
        taken = signature.inputs.get(name)
        spec = taken or signature.outputs.get(name)
        if spec is None:
            has = ", ".join(map(str, _tensors(signature)))
            raise ModelLoadError(f"batching.axes names {name}, which does not exist; the model has {has}")
        role = "input" if taken else "output"
        if not spec.shape:
            has = "declares no shape" if spec.shape is None else "is a scalar"
            raise ModelLoadError(f"batching.axes: {role} {spec} {has}, so it has no axis {axis} for rows")
        if axis >= len(spec.shape):
            raise ModelLoadError(
                f"batching.axes: {role} {spec} has no axis {axis}; expected 0 to {len(spec.shape) - 1}"
            )
        if taken and isinstance(spec.shape[axis], int):
            opened = [str(place) for place, length in enumerate(spec.shape) if isinstance(length, str)]
            raise ModelLoadError(
                f"batching.axes: axis {axis} of input {spec} has the fixed length {spec.shape[axis]}; "
                f"rows need an open axis; open axes: {', '.join(opened) or 'none'}"
            )
