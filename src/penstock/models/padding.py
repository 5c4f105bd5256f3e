"""`[padding]` of model.toml: compares it with the model's signature, and checks that it changes no answer.

Rows of several lengths are generated, padded to each bucket and run together, and each row is also run alone
without padding. If the answers do not agree, the model is not served.

As with batching, the check cannot find everything: generated values are small and the masks are all 1, and
real data may show differences that these do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from penstock.backends.backend import Backend
from penstock.config import PaddingConfig
from penstock.config.toml import toml_value
from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.minifloats import BY_BITS
from penstock.core.request import Request, Run
from penstock.core.tensors import Array, Kind, Signature, TensorSpec
from penstock.models.checks.closeness import accepted, distance
from penstock.models.model import Batching
from penstock.models.output_lengths import shortest_that_runs
from penstock.models.padded_inputs import at_length, unpadded
from penstock.models.samples import UNKNOWN, Sample, element, samples
from penstock.scheduling.packing.padding import PaddedRows, PaddingPlan

NO_NAME = "?"
NO_PADDING = PaddingConfig()
ROWS_OF_A_LENGTH = 2
"""In each batch that is tried, so that a value is compared with the largest at its position."""

MASK_ADVICE = "name the input that is 1 for values and 0 for padding in padding.mask"
LENGTHS_ADVICE = "name the input that takes the length of each row in padding.lengths"
ADVICE = (
    "remove [padding] from model.toml; or, if the model has an input for a mask or for the lengths of rows, "
    "set padding.mask or padding.lengths to its name"
)


def plan_padding(settings: PaddingConfig, signature: Signature) -> PaddingPlan | None:
    """The plan for a model of this signature; None if nothing is to be padded.

    Raises:
        ModelLoadError: they do not fit; names the key, what it says and what there is.
    """
    if settings == NO_PADDING:
        return None
    inputs = signature.inputs
    _check_names("axes", [*settings.axes], "input", inputs)
    _check_names("values", [*settings.values], "input", inputs)
    _check_names("mask", [settings.mask] if settings.mask else [], "input", inputs)
    _check_names("lengths", [settings.lengths] if settings.lengths else [], "input", inputs)
    _check_names("outputs", [*settings.outputs], "output", signature.outputs)
    _check_output_lengths(settings, signature.outputs)
    if settings.shortest > settings.buckets[0]:
        raise ModelLoadError(
            f"padding.buckets: {settings.buckets[0]} is below padding.shortest = {settings.shortest}"
        )
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
        output_lengths=settings.output_lengths,
        shortest=settings.shortest if "shortest" in settings.model_fields_set else 0,
    )


def check_padding(
    backend: Backend, plan: PaddingPlan, batching: Batching, tolerance: float, sample: Sample = UNKNOWN
) -> Batching:
    """Pads rows of several lengths to each bucket, and compares the answers with those of the rows alone.

    Args:
        backend: the loaded model.
        plan: how it is padded.
        batching: the result of the check of its batching.
        tolerance: by how much the answers may differ; 0 for the tolerance of batching.
        sample: what is known of a request.

    Returns:
        `batching`, with the result of this check.

    Raises:
        ModelLoadError: they do not agree, or the model fails on padded rows; says by how much they differ.
    """
    if not batching.enabled:
        raise ModelLoadError(f"[padding] has no effect, because requests run alone: {batching.reason}")
    worst, before = 0.0, max(plan.shortest - 1, 0)
    for bucket in plan.buckets:
        lengths = sorted({before + 1, (before + 1 + bucket) // 2, bucket})
        worst = max(worst, _compare(backend, plan, lengths, (bucket, tolerance), sample))
        before = bucket
    if batching.exact and worst:
        raise ModelLoadError(
            f"[padding] changes the last digits of answers (within {worst:.1e}), and batching.exact is set"
        )
    to = ", ".join(map(str, plan.buckets))
    agree = f"agree within {worst:.1e}" if worst else "agree bit for bit"
    reason = (
        f"{batching.reason}; lengths are padded to {to}{_described(plan)}, and rows padded and alone {agree}"
    )
    return replace(batching, reason=reason, tolerance=max(batching.tolerance, worst))


def _described(plan: PaddingPlan) -> str:
    """What is said of outputs that have another length than the request; "" if there are none."""
    parts = [
        f"; axis {axis} of output {name} has length {rule} where the request has n"
        for name, rules in plan.rules.items()
        for axis, rule in rules.items()
    ]
    parts += [f"; output {name} is cut to {own}" for name, own in plan.output_lengths.items()]
    return "".join(parts)


# The settings


def _check_names(key: str, names: Sequence[str], role: str, there: Mapping[str, TensorSpec]) -> None:
    for name in names:
        if name not in there:
            listed = ", ".join(map(str, there.values()))
            raise ModelLoadError(
                f"padding.{key} names {role} {name}, which does not exist; the model has {listed}"
            )


def _check_output_lengths(settings: PaddingConfig, outputs: Mapping[str, TensorSpec]) -> None:
    _check_names("output_lengths", [*settings.output_lengths], "output", outputs)
    for name in settings.output_lengths.values():
        _check_names("output_lengths", [name], "output", outputs)
        spec = outputs[name]
        if spec.datatype.kind not in (Kind.INT, Kind.UINT) or spec.shape is None or len(spec.shape) != 1:
            raise ModelLoadError(
                f"padding.output_lengths: output {spec} cannot hold lengths: expected whole numbers [rows]"
            )


def _axes(settings: PaddingConfig, inputs: Mapping[str, TensorSpec]) -> Mapping[str, int]:
    """The axis to pad of every input that has one, that of the mask last."""
    axes = {name: axis for name, axis in settings.axes.items() if name != settings.mask}
    if not axes:
        beside = " beside the mask" if settings.axes else ""
        generated = (settings.mask, settings.lengths)
        others = [spec for name, spec in inputs.items() if name not in generated]
        open_ones = ", ".join(str(spec) for spec in others if spec.has_open_inner_axis()) or "none"
        raise ModelLoadError(
            f"padding.axes must name at least one input{beside}; inputs with an open axis: {open_ones}"
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
    """Checks that no other axis has the same name as a padded one: its length would not fit any more."""
    names = _axis_names(axes, inputs)
    for spec in inputs.values():
        for axis, name in enumerate(spec.shape or ()):
            if name in names and axes.get(spec.name) != axis:
                is_like_a_mask = (len(spec.shape or ()), axis, settings.mask) == (2, 1, "")
                raise ModelLoadError(
                    f"padding.axes: axis {axis} of input {spec} has the same name {name} as a padded axis, "
                    f"but is not in padding.axes = {toml_value(dict(axes))}"
                    f"{f'; {MASK_ADVICE}' if is_like_a_mask else ''}"
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
            raise ModelLoadError(f"padding.{key}: input {spec} cannot be generated: expected a numeric input")
        if name in settings.values:
            raise ModelLoadError(f"padding.values: input {name} is padding.{key}, whose padding is 0")


def _fill(settings: PaddingConfig, spec: TensorSpec) -> object:
    """The value that an input is padded with, for numpy."""
    value = settings.values.get(spec.name, "" if spec.datatype.kind is Kind.BYTES else 0)
    try:
        return element(spec.datatype, value)
    except ValueError:
        raise ModelLoadError(f"padding.values: {value!r} is not a valid value for input {spec}") from None


def _outputs(
    settings: PaddingConfig, signature: Signature, axes: Mapping[str, int]
) -> Mapping[str, Sequence[int]]:
    """The axes to cut back: those in the settings, else those with the name of a padded axis."""
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


class _GeneratedRequest(Request):
    """A generated request of one row, without a caller."""

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
        sent = ({name: row[name] for name in row if name not in plan.optional} for row in rows)
        batch = [_GeneratedRequest(inputs, names, 1, None, "", 0.0) for inputs in sent]
        try:
            alone = [_cut_alone(plan, names, backend.run(names, unpadded(each, plan))) for each in rows]
            outputs = backend.run(names, packing.assemble(batch))
            run = Run(0.0, 0.0, 0.0, len(rows), dict(zip(names, outputs, strict=True)))
            padded = [response.outputs for response in packing.split(batch, run)]
        except ModelFailed as failure:
            error = error or failure
            continue
        _check_seen(plan, names, alone)
        return max(
            _row_difference(backend.signature.outputs[name], place, padded, single, (*limits, plan))
            for place, singles in enumerate(alone)
            for name, single in zip(names, singles, strict=True)
        )
    why = sample.failure(error) if error else ""
    shortest = shortest_that_runs(backend, plan, sample, (lengths[0], limits[0]))
    if shortest is not None and shortest > lengths[0]:
        raise ModelLoadError(
            f"[padding] cannot be checked: the model fails on rows of fewer than {shortest} elements; set "
            f"padding.shortest = {shortest} to reject such requests: {why}"
        )
    raise ModelLoadError(
        f"[padding] cannot be checked: the model fails on generated rows of {', '.join(map(str, lengths))} "
        f"elements, padded to {limits[0]}; {_suspects(plan)}: {why}"
    )


def _check_seen(plan: PaddingPlan, names: Sequence[str], alone: Sequence[Sequence[Array]]) -> None:
    """Makes sure that an output that is cut to a length of the model's own shows anything at all."""
    for name in plan.output_lengths:
        place = names.index(name)
        if not any(outputs[place].size for outputs in alone):
            raise ModelLoadError(
                f"[padding] cannot be checked: {plan.output_lengths[name]} is 0 for every generated row, so "
                f"that output {name} is empty; {LENGTHS_ADVICE}"
            )


def _cut_alone(plan: PaddingPlan, names: Sequence[str], outputs: Sequence[Array]) -> Sequence[Array]:
    """The outputs of a row that was run alone; those with lengths of the model's own are cut to them."""
    if not plan.output_lengths:
        return outputs
    whole = dict(zip(names, outputs, strict=True))
    cut = plan.cut(whole, 0, 0)
    return [cut[name] if name in plan.output_lengths else whole[name] for name in names]


def _suspects(plan: PaddingPlan) -> str:
    """What may be wrong if the model fails on all padded rows."""
    filled = ", ".join(name for name, fill in plan.fills.items() if fill)
    values = f", or padding.values may give {filled} a value that it does not accept" if filled else ""
    return f"a length in padding.buckets may be too large for the model{values}"


def _rows(
    signature: Signature, plan: PaddingPlan, lengths: Sequence[int], sample: Sample
) -> Iterator[Sequence[Mapping[str, Array]]]:
    """Inputs of one row for each of several lengths, to try one after another.

    Every second row is below 0 throughout, as the logarithms of a spectrum are: there a 0 of padding would be
    the largest value.
    """
    each = [length for length in lengths for _ in range(ROWS_OF_A_LENGTH)]
    made = [samples(at_length(signature, plan, length), 1, seed, sample) for seed, length in enumerate(each)]
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


def _row_difference(
    spec: TensorSpec,
    place: int,
    padded: Sequence[Mapping[str, Array]],
    single: Array,
    limits: tuple[int, float, PaddingPlan],
) -> float:
    """By how much an output of one row differs from that of the row alone."""
    bucket, tolerance, plan = limits
    own = plan.output_lengths.get(spec.name)
    found = padded[place][spec.name]
    if found.shape != single.shape:
        raise ModelLoadError(
            f"[padding] changes the shape of output {spec}: it is {list(found.shape)} where padded to "
            f"{bucket} and cut back, and {list(single.shape)} alone; "
            + (
                f"{own} counts the padding; {LENGTHS_ADVICE}"
                if own
                else "set padding.outputs to the axes to cut"
            )
        )
    same_shape = [row[spec.name] for row in padded if row[spec.name].shape == found.shape]
    rows = np.concatenate([found, *same_shape])  # the first one is compared on the scale of all
    difference = distance(spec.datatype, rows, single[0], 0)
    allowed = accepted(spec.datatype, tolerance)
    if difference > allowed:
        raise ModelLoadError(
            f"[padding] changes the answers: output {spec} of rows padded to {bucket} differs from the "
            f"same rows alone by {difference:.1e}, more than {allowed:.0e}; {ADVICE}"
        )
    return difference
