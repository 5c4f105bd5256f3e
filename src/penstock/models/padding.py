"""`[padding]` of model.toml: held against the model's signature, and tried out before it is used.

Padding must not change an answer. So rows of several lengths are made up, padded to each bucket and run
together, and every one of them is run alone as it is. Where they do not agree, the model is not served.

As with batching, what is made up shows only so much: values are small, masks are all 1, and real data may
bring out what these do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from penstock.backends.backend import Backend
from penstock.bits import BY_BITS
from penstock.config import PaddingConfig
from penstock.config.toml import toml_value
from penstock.errors import ModelFailed, ModelLoadError
from penstock.messages import InferRequest, Run
from penstock.models.check import TOLERANCES, distance
from penstock.models.model import Batching
from penstock.models.samples import UNKNOWN, Sample, element, samples
from penstock.scheduling.padding import PaddedRows, PaddingPlan
from penstock.tensors import Array, DataType, Kind, Signature, TensorSpec

NO_NAME = "?"
ROWS_OF_A_LENGTH = 2
"""In each batch that is tried, so that a value is held against the largest of its place."""

MASK_ADVICE = "an input that is 1 for values and 0 for padding is named by padding.mask"
LENGTHS_ADVICE = "an input that takes how long each row is is named by padding.lengths"
ADVICE = (
    "leave [padding] out of model.toml, or, where the model takes a mask or the lengths of the rows, "
    "name that input by padding.mask or padding.lengths"
)


def plan_padding(settings: PaddingConfig, signature: Signature) -> PaddingPlan | None:
    """What the settings mean for a model of this signature; None where nothing is to be padded.

    Raises:
        ModelLoadError: they do not fit; names the key, what it says and what there is.
    """
    if settings == PaddingConfig():
        return None
    inputs = signature.inputs
    _check_names("axes", [*settings.axes], "input", inputs)
    _check_names("values", [*settings.values], "input", inputs)
    _check_names("mask", [settings.mask] if settings.mask else [], "input", inputs)
    _check_names("lengths", [settings.lengths] if settings.lengths else [], "input", inputs)
    _check_names("outputs", [*settings.outputs], "output", signature.outputs)
    _check_optional(settings, inputs)
    axes = _axes(settings, inputs)
    return PaddingPlan(
        dtypes={name: spec.datatype.dtype for name, spec in inputs.items()},
        axes=axes,
        fills={name: _fill(settings, inputs[name]) for name in axes},
        outputs=_outputs(settings, signature, axes),
        buckets=settings.buckets,
        mask=settings.mask,
        lengths=settings.lengths,
        max_bytes=settings.max_bytes,
    )


def check_padding(
    backend: Backend, plan: PaddingPlan, batching: Batching, tolerance: float, sample: Sample = UNKNOWN
) -> Batching:
    """Pads rows of several lengths to each bucket, and holds the answers against those of the rows alone.

    Args:
        backend: the loaded model.
        plan: how it is padded.
        batching: what is known of its batching.
        tolerance: how far the answers may be apart; 0 for what batching takes.
        sample: what is known of a request.

    Returns:
        The same, with what was found.

    Raises:
        ModelLoadError: they do not agree, or the model cannot be run so; says by how much they differ.
    """
    if not batching.enabled:
        raise ModelLoadError(f"[padding] is of no use, since requests run alone: {batching.reason}")
    worst, before = 0.0, 0
    for bucket in plan.buckets:
        lengths = sorted({before + 1, (before + 1 + bucket) // 2, bucket})
        worst = max(worst, _compare(backend, plan, lengths, (bucket, tolerance), sample))
        before = bucket
    to = ", ".join(map(str, plan.buckets))
    agree = f"agree within {worst:.1e}" if worst else "agree bit for bit"
    reason = f"{batching.reason}; lengths are padded to {to}, and rows padded and alone {agree}"
    return replace(batching, reason=reason, tolerance=max(batching.tolerance, worst))


class AtBucket:
    """A model as if its lengths were fixed at the bucket in the middle: so it is tried, and so it is timed.

    Args:
        backend: the model.
        plan: how it is padded.
    """

    def __init__(self, backend: Backend, plan: PaddingPlan) -> None:
        self.signature = _at_length(backend.signature, plan, plan.buckets[(len(plan.buckets) - 1) // 2])
        self.file, self.providers = backend.file, backend.providers
        self.run, self.close = backend.run, backend.close


def _at_length(signature: Signature, plan: PaddingPlan, length: int) -> Signature:
    inputs = dict(signature.inputs)
    for name, axis in plan.axes.items():
        shape = inputs[name].shape or ()
        inputs[name] = replace(inputs[name], shape=(*shape[:axis], length, *shape[axis + 1 :]))
    return Signature(inputs, signature.outputs)


# The settings


def _check_names(key: str, names: Sequence[str], role: str, there: Mapping[str, TensorSpec]) -> None:
    for name in names:
        if name not in there:
            listed = ", ".join(map(str, there.values()))
            raise ModelLoadError(
                f"padding.{key} names the {role} {name}, which is not there; there is {listed}"
            )


def _axes(settings: PaddingConfig, inputs: Mapping[str, TensorSpec]) -> Mapping[str, int]:
    """The axis to pad of every input that has one, that of the mask last."""
    axes = {name: axis for name, axis in settings.axes.items() if name != settings.mask}
    if not axes:
        beside = " beside the mask" if settings.axes else ""
        made_up = (settings.mask, settings.lengths)
        others = [spec for name, spec in inputs.items() if name not in made_up]
        open_ones = ", ".join(str(spec) for spec in others if spec.has_open_inner_axis()) or "none"
        raise ModelLoadError(
            f"padding.axes names no input{beside}: [padding] needs at least one; with an open axis there is "
            f"{open_ones}"
        )
    if settings.mask:
        axes[settings.mask] = settings.axes.get(settings.mask, 1)
    for name, axis in axes.items():
        shape = inputs[name].shape
        if shape is None or axis >= len(shape) or isinstance(shape[axis], int):
            key = "axes" if name in settings.axes else "mask"
            raise ModelLoadError(
                f"padding.{key}: axis {axis} of input {inputs[name]} cannot be padded: it is not an open axis"
            )
    _check_complete(axes, settings, inputs)
    return axes


def _check_complete(
    axes: Mapping[str, int], settings: PaddingConfig, inputs: Mapping[str, TensorSpec]
) -> None:
    """An axis of the same name elsewhere would not fit any more."""
    names = _axis_names(axes, inputs)
    for spec in inputs.values():
        for axis, name in enumerate(spec.shape or ()):
            if name in names and axes.get(spec.name) != axis:
                is_like_a_mask = (len(spec.shape or ()), axis, settings.mask) == (2, 1, "")
                raise ModelLoadError(
                    f"padding.axes: axis {axis} of input {spec} is called {name} as well, and is not padded; "
                    f"padded are {toml_value(dict(axes))}{f'; {MASK_ADVICE}' if is_like_a_mask else ''}"
                )


def _axis_names(axes: Mapping[str, int], inputs: Mapping[str, TensorSpec]) -> set[int | str]:
    return {(inputs[name].shape or ())[axis] for name, axis in axes.items()} - {NO_NAME}


def _check_optional(settings: PaddingConfig, inputs: Mapping[str, TensorSpec]) -> None:
    for key, name, rank in (("mask", settings.mask, 2), ("lengths", settings.lengths, 1)):
        if not name:
            continue
        spec = inputs[name]
        came = len(spec.shape or ())
        if came != rank:
            expected = "[rows, length]" if rank == 2 else "[rows]"
            advice = {1: f"; {LENGTHS_ADVICE}", 2: f"; {MASK_ADVICE}"}.get(came, "")
            raise ModelLoadError(
                f"padding.{key}: input {spec} has another shape, expected {expected}{advice}"
            )
        if spec.datatype in BY_BITS or spec.datatype.kind is Kind.BYTES:
            raise ModelLoadError(f"padding.{key}: input {spec} cannot be made up, expected plain numbers")
        if name in settings.values:
            raise ModelLoadError(f"padding.values: input {name} is padding.{key}, whose padding is 0")


def _fill(settings: PaddingConfig, spec: TensorSpec) -> object:
    """What the padding of an input holds, as numpy has it."""
    value = settings.values.get(spec.name, "" if spec.datatype.kind is Kind.BYTES else 0)
    try:
        return element(spec.datatype, value)
    except ValueError:
        raise ModelLoadError(f"padding.values: {value!r} is no value of input {spec}") from None


def _outputs(
    settings: PaddingConfig, signature: Signature, axes: Mapping[str, int]
) -> Mapping[str, Sequence[int]]:
    """The axes to cut back: those that the settings name, else those called as the padded ones are."""
    names, cut = _axis_names(axes, signature.inputs), {}
    for name, spec in signature.outputs.items():
        shape = spec.shape or ()
        given = settings.outputs.get(name)
        if given is None:
            found = tuple(axis for axis, size in enumerate(shape) if axis and size in names)
        else:
            found = given if isinstance(given, tuple) else (given,)
            for axis in found:
                if spec.shape is not None and (axis >= len(shape) or isinstance(shape[axis], int)):
                    raise ModelLoadError(f"padding.outputs: axis {axis} of output {spec} is not an open axis")
        if found:
            cut[name] = found
    return cut


# The comparison


class _MadeUp(InferRequest):
    """A request of one row that nobody waits for."""

    __slots__ = ()


def _compare(
    backend: Backend, plan: PaddingPlan, lengths: Sequence[int], limits: tuple[int, float], sample: Sample
) -> float:
    """By how much rows padded to a bucket differ from the same rows alone.

    Raises:
        ModelLoadError: by too much, or the model does not run.
    """
    packing, names = PaddedRows(plan), tuple(backend.signature.outputs)
    error: ModelFailed | None = None
    for rows in _rows(backend.signature, plan, lengths, sample):
        batch = [_MadeUp(_sent(each, plan), names, 1, None, "", 0.0) for each in rows]
        try:
            alone = [backend.run(names, _unpadded(each, plan)) for each in rows]
            outputs = backend.run(names, packing.assemble(batch))
            run = Run(0.0, 0.0, 0.0, len(rows), dict(zip(names, outputs, strict=True)))
            padded = [response.outputs for response in packing.split(batch, run)]
        except ModelFailed as failure:
            error = error or failure
            continue
        return max(
            _apart(backend.signature.outputs[name], place, padded, single, limits)
            for place, singles in enumerate(alone)
            for name, single in zip(names, singles, strict=True)
        )
    raise ModelLoadError(
        f"[padding] cannot be tried out: no made-up rows of {', '.join(map(str, lengths))} elements, padded "
        f"to {limits[0]}, make the model run; {_suspects(plan)}: {error}"
    )


def _suspects(plan: PaddingPlan) -> str:
    """What may be wrong where the model runs on no padded rows."""
    filled = ", ".join(name for name, fill in plan.fills.items() if fill)
    values = f", or what padding.values gives {filled} be no value that it takes" if filled else ""
    return f"padding.buckets may be larger than it takes{values}"


def _rows(
    signature: Signature, plan: PaddingPlan, lengths: Sequence[int], sample: Sample
) -> Iterator[Sequence[Mapping[str, Array]]]:
    """Inputs of one row for each of several lengths, to try one after another.

    Every second row is below 0 throughout, as the logarithms of a spectrum are: there a 0 of padding would be
    the largest value.
    """
    each = [length for length in lengths for _ in range(ROWS_OF_A_LENGTH)]
    made = [samples(_at_length(signature, plan, length), 1, seed, sample) for seed, length in enumerate(each)]
    for rows in zip(*made, strict=True):
        scalars = {name: array for name, array in rows[0].items() if not array.ndim}  # one for a whole batch
        yield [
            {**(_below_zero(row, sample) if place % 2 else row), **scalars} for place, row in enumerate(rows)
        ]


def _below_zero(row: Mapping[str, Array], sample: Sample) -> Mapping[str, Array]:
    return {
        name: -np.abs(array)
        if array.ndim and array.dtype.kind == "f" and name not in sample.values
        else array
        for name, array in row.items()
    }


def _sent(row: Mapping[str, Array], plan: PaddingPlan) -> Mapping[str, Array]:
    return {name: array for name, array in row.items() if name not in plan.optional}


def _unpadded(row: Mapping[str, Array], plan: PaddingPlan) -> Mapping[str, Array]:
    """The row as it would be sent to a model that is not padded: its mask is all 1."""
    told: dict[str, Any] = {plan.mask: 1, plan.lengths: plan.length(row)}
    return {
        name: np.full(array.shape, told[name], array.dtype) if name in plan.optional else array
        for name, array in row.items()
    }


def _apart(
    spec: TensorSpec,
    place: int,
    padded: Sequence[Mapping[str, Array]],
    single: Array,
    limits: tuple[int, float],
) -> float:
    """By how much an output of one row differs from that of the row alone."""
    bucket, tolerance = limits
    found = padded[place][spec.name]
    if found.shape != single.shape:
        raise ModelLoadError(
            f"[padding] changes the shape of output {spec}: it is {list(found.shape)} where padded to "
            f"{bucket} and cut back, and {list(single.shape)} alone; padding.outputs says what to cut back"
        )
    alike = [row[spec.name] for row in padded if row[spec.name].shape == found.shape]
    rows = np.concatenate([found, *alike])  # the first is held against the scale of all of its shape
    apart = distance(spec.datatype, rows, single[0], 0)
    usual = TOLERANCES.get(spec.datatype, 0.0)
    allowed = (tolerance or usual) if spec.datatype is DataType.FP32 else max(tolerance, usual)
    if apart > allowed:
        raise ModelLoadError(
            f"[padding] changes the answers: output {spec} of rows padded to {bucket} differs from the "
            f"same rows alone by {apart:.1e}, more than {allowed:.0e}; {ADVICE}"
        )
    return apart
