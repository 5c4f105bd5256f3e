"""Advice to declare the state of a model, if names and shapes suggest one.

A state is never kept without being declared: the graph does not show whether requests are steps of sequences.
What is proposed has been read, and where a model is given also tried, as if it stood in model.toml.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from penstock.backends.backend import Backend
from penstock.config import ModelSequence
from penstock.config.toml import toml_key, toml_value
from penstock.core.errors import ModelLoadError
from penstock.core.tensors import Signature, TensorSpec
from penstock.models.rows_first import RowsFirst
from penstock.models.samples import Sample
from penstock.models.sequence import may_be_same, read_sequence_state
from penstock.models.sequence_trial import check_steps

FED_BACK = (
    "{}N", "{}n", "{}_n", "{}_N", "{}_out", "{}_new", "{}_next", "{}1", "new_{}", "next_{}", "out_{}",
    "updated_{}",
)  # fmt: skip
"""Usual names of an output that is the input {} of the next step."""
BEFORE = (("0", "1"), ("0", "n"), ("0", "N"))
"""Usual endings of the names of such an input and output."""
PARTS: Mapping[str, Sequence[str]] = {
    "in": ("out",),
    "prev": ("next", "new", "cur", "curr"),
    "previous": ("next", "new", "current"),
    "old": ("new",),
    "past": ("present",),
    "pkv": ("present",),
    "0": ("n",),
    "init": ("final", "last"),
    "initial": ("final",),
}
"""For parts of the names of such inputs, such as "in" of "cache_in_0", those of the outputs."""
PREFIXES = (("past_key_values", "present"), ("past_key_values", "present_key_values"), ("input", "output"))
"""Usual beginnings of the names of such an input and output."""
STATE_WORDS = re.compile(r"state|cache|hidden|mem|buf|rnn|lstm|gru|past|context|ctx", re.IGNORECASE)
"""Without such a word, an input "input_..." and an output "output_..." are usually no state."""


def proposal(signature: Signature) -> str:
    """Advice to declare a state, if outputs are clearly meant for the next step; else ""."""
    settings = _settings(signature)
    return _words(settings) if settings is not None else ""


def tried_proposal(backend: Backend, sample: Sample) -> str:
    """As `proposal`, for a model on which two steps are tried.

    Args:
        backend: the model.
        sample: what is known of a request.
    """
    settings = _settings(backend.signature)
    if settings is None:
        return ""
    state = read_sequence_state(Path(), settings, backend.signature)
    if state is None:
        return ""
    try:
        check_steps(RowsFirst(backend, state), state, sample)
    except ModelLoadError:
        return ""
    return _words(settings)


def _words(settings: ModelSequence) -> str:
    pairs = settings.state
    lines: dict[str, Mapping[str, str | int]] = {
        "state": pairs, "axis": settings.axis, "grows": settings.grows
    }  # fmt: skip
    section = ", ".join(f"{key} = {_table(values)}" for key, values in lines.items() if values)
    names = " and ".join(f"{output} as {name}" for name, output in pairs.items())
    # On one line, which TOML takes only before the first section.
    return (
        f"the next step seems to need {names}; to keep it, put this line at the top of model.toml: "
        f"sequence = {{ {section} }}"
    )


def _table(values: Mapping[str, str | int]) -> str:
    return f"{{ {', '.join(f'{toml_key(key)} = {toml_value(each)}' for key, each in values.items())} }}"


def _settings(signature: Signature) -> ModelSequence | None:
    """What would be declared, if it would be accepted; else None."""
    most = min(len(signature.inputs), len(signature.outputs)) - 1  # an input and an output have to be left
    if most < 1:
        return None
    pairs = {
        name: found
        for name, spec in signature.inputs.items()
        if (found := _fed_back(spec, signature.outputs)) is not None
    }
    if len(pairs) > most:
        pairs = {name: each for name, each in pairs.items() if STATE_WORDS.search(name)}
    if not 0 < len(pairs) <= most or len({each.name for each in pairs.values()}) < len(pairs):
        return None
    state = {name: each.name for name, each in pairs.items()}
    grows = {
        name: axis
        for name, each in pairs.items()
        if (axis := _growing_axis(signature.inputs[name], each)) is not None
    }
    for axes in ({}, dict.fromkeys(pairs, 0)):
        settings = ModelSequence(state=state, grows=grows, axis=axes)
        try:
            read_sequence_state(Path(), settings, signature)
        except ModelLoadError:
            continue
        return settings
    return None


def _growing_axis(taken: TensorSpec, given: TensorSpec) -> int | None:
    """The axis along which a state grows: the one open axis after the first whose names differ."""
    if taken.shape is None or given.shape is None:
        return None
    found = [
        axis
        for axis, (before, after) in enumerate(zip(taken.shape, given.shape, strict=True))
        if axis
        and isinstance(before, str)
        and isinstance(after, str)
        and before != after
        and "?" not in (before, after)
    ]
    return found[0] if len(found) == 1 else None


def _fed_back(spec: TensorSpec, outputs: Mapping[str, TensorSpec]) -> TensorSpec | None:
    """The output that is this input at the next step, judging by names and shapes."""
    names = dict.fromkeys(_names(spec.name))
    found = [outputs[each] for each in names if each in outputs and may_be_same(spec, outputs[each])]
    return found[0] if len(found) == 1 and spec.shape else None


def _names(name: str) -> Iterator[str]:
    """What the output may be called that is this input at the next step."""
    for form in FED_BACK:
        yield form.format(name)
    for old, new in BEFORE:
        if name.endswith(old):
            yield name.removesuffix(old) + new
    for old, new in PREFIXES:
        if name.startswith(old) and STATE_WORDS.search(name):
            yield new + name.removeprefix(old)
    parts = re.split(r"([_.\-/:])", name)
    for place, part in enumerate(parts):
        for other in PARTS.get(part, ()):
            yield "".join([*parts[:place], other, *parts[place + 1 :]])
