"""Announces outputs as they come: some exporters declare shapes that the model does not give.

onnxmltools declares the label of LightGBM's classifiers as [1], and they give one a row; CatBoost declares
the predictions of its regressors as [N], and they are [N, 1]. ONNX Runtime cannot infer the shapes that many
operators outside the standard ones give, and repeats what is declared. A client that reads the declared shape
would be misled, and the requests of such a classifier would not be batched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from penstock.backends.backend import Backend
from penstock.core.errors import ModelFailed
from penstock.core.tensors import Signature, TensorSpec
from penstock.models.checks.trying import try_in_turn
from penstock.models.samples import UNKNOWN, Sample, manners

STANDARD = "ai.onnx"
ROWS = (2, 1, 3)  # two rows first: they show by themselves whether anything is contradicted

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of a run's outputs, by name."""


def announce_as_it_comes(backend: Backend, sample: Sample = UNKNOWN) -> None:
    """Corrects the backend's signature where runs on generated rows contradict its outputs, and says so.

    A model of standard operators only, whose outputs have an open first axis where its inputs have one, is
    not run: ONNX Runtime has inferred its shapes. Of another, one run of two rows shows whether there is a
    contradiction; only if so it is run on one and on three rows as well.

    Args:
        backend: the loaded model; its `signature` and `file` are replaced if something is contradicted.
        sample: what is known of a request.
    """
    if not _is_doubtful(backend):
        return
    before = backend.signature
    names = tuple(before.outputs)
    seen: dict[int, Shapes] = {}
    for rows in ROWS:
        try:
            tried = try_in_turn(backend, rows, rows, manners(before, sample), sample)
        except ModelFailed:
            return
        seen[rows] = {name: output.shape for name, output in zip(names, tried.outputs, strict=True)}
        if rows == ROWS[0] and not any(
            _contradicts(before.outputs[name], seen[rows][name]) for name in names
        ):
            return
    backend.signature = announced(before, seen)
    changes = tuple(
        f"output {spec.name} is declared as {before.outputs[name]} and comes as {spec}"
        for name, spec in backend.signature.outputs.items()
        if spec != before.outputs[name]
    )
    backend.file = replace(backend.file, changes=(*backend.file.changes, *changes))


def announced(signature: Signature, seen: Mapping[int, Shapes]) -> Signature:
    """The signature with the outputs that runs contradict as they come.

    Args:
        signature: as the graph declares it.
        seen: the shapes of the outputs, by the number of rows in a run.

    Returns:
        An axis that is as long as the run has rows is named like the first axis of the inputs. Another
        contradicted axis has the length that it had in every run, or is open: if lengths differed, or if
        the inputs have other open axes that it may follow.
    """
    outputs = {
        name: _as_seen(spec, {rows: shapes[name] for rows, shapes in seen.items()}, signature)
        for name, spec in signature.outputs.items()
    }
    return replace(signature, outputs=outputs)


def _is_doubtful(backend: Backend) -> bool:
    """Whether the declared shapes of outputs may be wrong."""
    if _batch_name(backend.signature) is None:
        return False
    if any(domain != STANDARD for domain in backend.file.opsets):
        return True
    return any(spec.shape and isinstance(spec.shape[0], int) for spec in backend.signature.outputs.values())


def _batch_name(signature: Signature) -> str | None:
    """The name of the first axis of the inputs, if it is open."""
    for spec in signature.inputs.values():
        if spec.shape and isinstance(spec.shape[0], str):
            return spec.shape[0]
    return None


def _contradicts(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    if spec.shape is None:
        return False
    if len(spec.shape) != len(shape):
        return True
    return any(isinstance(size, int) and size != found for size, found in zip(spec.shape, shape, strict=True))


def _as_seen(spec: TensorSpec, seen: Mapping[int, tuple[int, ...]], signature: Signature) -> TensorSpec:
    if not any(_contradicts(spec, shape) for shape in seen.values()):
        return spec
    if len({len(shape) for shape in seen.values()}) > 1:
        return replace(spec, shape=None)
    declared = spec.shape or ()
    follows = any(each.has_open_inner_axis() for each in signature.inputs.values())
    axes: list[int | str] = []
    for axis, lengths in enumerate(zip(*seen.values(), strict=True)):
        kept = declared[axis] if len(declared) == len(next(iter(seen.values()))) else None
        if isinstance(kept, str) or (kept is not None and {*lengths} == {kept}):
            axes.append(kept)
        elif lengths == (*seen,):
            axes.append(_batch_name(signature) or "?")
        else:
            axes.append("?" if follows or len({*lengths}) > 1 else lengths[0])
    return replace(spec, shape=tuple(axes))
