"""Describes models for the page: what `GetModel` says, and what a form for a request needs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from penstock.core.tensors import TensorSpec
from penstock.models.model import Broken, Model
from penstock.summary import FIELDS

MOST_EXAMPLE_VALUES = 256
"""Of an input; the form fills in longer ones with one value."""


class Describer:
    """Describes models as JSON, each again only when something about it has changed."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Model, tuple[object, str]] = WeakKeyDictionary()

    def texts(self, models: Sequence[Model], broken: Sequence[Broken]) -> list[str]:
        """JSON of each version of each model.

        Args:
            models: the loaded ones.
            broken: those that cannot be served.
        """
        found = [(each.name, each.version, self._text(each)) for each in models]
        found += [(each.name, each.version, json.dumps(_broken(each))) for each in broken]
        return [text for *_, text in sorted(found)]

    def _text(self, model: Model) -> str:
        # All of it that may change while the model is loaded.
        state = model.state, model.trouble, model.batching, model.is_default, tuple(model.labels)
        known = self._known.get(model)
        if known is None or known[0] != state:
            known = self._known[model] = state, json.dumps(described(model))
        return known[1]


def described(model: Model) -> dict[str, Any]:
    """The description of a loaded version, as JSON has it."""
    file, policy, batching = model.backend.file, model.batcher.policy, model.batching
    state = model.sequence_state
    return {
        "name": model.name,
        "version": model.version_text,
        "default": model.is_default,
        "labels": list(model.labels),
        "state": model.state.name,
        "trouble": model.trouble,
        "batched": batching.enabled,
        "reason": batching.reason,
        "proven": batching.proven.value,
        "why": list(batching.why),
        "max_rows": policy.max_rows if batching.enabled else 1,
        "sequence": state is not None,
        "keeps": str(state) if state is not None else "",
        "inputs": list(_inputs(model)),
        "outputs": [_spec(each) for each in model.signature.outputs.values()],
        "facts": _facts(file.size_bytes, file.sha256, model),
    }


def _facts(size: int, sha256: str, model: Model) -> Mapping[str, str]:
    opsets = ", ".join(
        f"{domain or 'ai.onnx'} {number}" for domain, number in model.backend.file.opsets.items()
    )
    return {
        "loaded": model.loaded_at.isoformat(timespec="seconds"),
        "file": f"{size:,} bytes",
        "sha256": sha256,
        "opsets": opsets,
        "runs on": ", ".join(model.backend.providers),
        **({"changed": "; ".join(model.backend.file.changes)} if model.backend.file.changes else {}),
        **({"advice": model.advice} if model.advice else {}),
    }


def _inputs(model: Model) -> Iterator[dict[str, Any]]:
    # Imported only once the page is open: what serves HTTP is not needed where that is switched off.
    from penstock.protocols.rest.forms import Inputs
    from penstock.protocols.rest.openapi import in_record

    whole = Inputs(model).whole
    for name, spec in model.signature.inputs.items():
        fields = _spec(spec) | {"optional": name in model.optional_inputs, "whole": name in whole}
        fields["starts"] = name in model.start_inputs
        example = model.example.get(name)
        if example is not None:
            fields["known_shape"] = list(example.shape)
            if example.size <= MOST_EXAMPLE_VALUES:
                fields["example"] = in_record(spec, example, name in whole)
            elif example.size:
                fields["fill"] = in_record(spec, example.reshape(-1)[:1], is_whole=True)
        yield fields


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": spec.datatype.label,
        "field": FIELDS[spec.datatype.kind],
        "shape": None if spec.shape is None else list(spec.shape),
        "axis": spec.row_axis,
    }


def _broken(model: Broken) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": str(model.version),
        "default": model.is_default,
        "labels": list(model.labels),
        "state": "FAILED",
        "trouble": model.reason,
    }
