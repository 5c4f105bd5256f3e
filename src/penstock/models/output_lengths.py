"""Finds out how long the outputs of a padded model are, where they are not as long as the inputs.

A model that turns sound into frames, or an image of some width into one of an eighth of it, gives
floor((factor * n + offset) / divisor) for an input of length n. This holds for any chain of convolutions and
poolings. The three numbers are found from runs on generated inputs: each run is at a length at which the
rules that are still possible differ, until all of them agree on every length that is padded. Then the rule is
compared with runs at further lengths and at the buckets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from penstock.backends.backend import Backend
from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.tensors import Array, Signature
from penstock.models.padded_inputs import at_length, unpadded
from penstock.models.samples import UNKNOWN, Sample, samples
from penstock.scheduling.packing.padding import LengthRule, PaddingPlan

MOST_RUNS = 60
"""The most runs to find the rules of all outputs."""
MOST_LENGTHS = 1024
"""The most lengths at which possible rules are compared with each other; more are evenly thinned out."""
MOST_DIVISORS = 16
OFFSETS = 9
"""How many divisors, and offsets for each, stand for all that are still possible."""
FURTHER_LENGTHS = 3
"""How many lengths besides the buckets a rule is compared with."""

Shapes = Mapping[str, tuple[int, ...]]


def find_output_lengths(backend: Backend, plan: PaddingPlan, sample: Sample = UNKNOWN) -> PaddingPlan:
    """The plan, with the axes of outputs that are cut, and how long they are.

    Nothing is run if every open axis of an output after its first has the name of a padded axis.

    Args:
        backend: the loaded model.
        plan: how it is padded.
        sample: what is known of a request.

    Raises:
        ModelLoadError: an output has lengths that no rule explains, or its axis to cut is unclear.
    """
    wanted = _unexplained(backend.signature, plan)
    if not wanted:
        return plan
    runs = _Runs(backend, plan, sample)
    first, last = max(plan.shortest, 1), plan.buckets[-1]
    if not runs.shapes(first) or not runs.shapes(last):
        return plan  # the check of the padding says why
    outputs, rules = dict(plan.outputs), {}
    for name, axes in wanted.items():
        if name in plan.output_lengths:
            outputs[name] = _own_axis(runs, plan, name, axes)
            continue
        found = {axis: rule for axis in axes if (rule := _rule(runs, name, axis, plan)) is not None}
        cut = [*plan.outputs.get(name, ()), *[axis for axis, rule in found.items() if rule == (1, 0, 1)]]
        others = {axis: rule for axis, rule in found.items() if rule != (1, 0, 1)}
        outputs[name] = tuple(dict.fromkeys(axis for axis in cut if axis not in others))
        if others:
            rules[name] = others
    cut_outputs = {name: axes for name, axes in outputs.items() if axes}
    return replace(plan, outputs=cut_outputs, rules=rules)


def shortest_that_runs(
    backend: Backend, plan: PaddingPlan, sample: Sample, between: tuple[int, int]
) -> int | None:
    """The shortest length between two that the model takes, if it takes all longer ones; else None."""
    runs = _Runs(backend, plan, sample)
    fails, works = between[0] - 1, between[1]
    if not runs.shapes(works):
        return None
    while works - fails > 1:
        middle = (works + fails) // 2
        if runs.shapes(middle):
            works = middle
        else:
            fails = middle
    return works


def _unexplained(signature: Signature, plan: PaddingPlan) -> Mapping[str, Sequence[int]]:
    """The open axes after the first of outputs, except those that have the name of a padded axis.

    Of an output whose length the model gives itself, all open axes, or those in the settings.
    """
    names = {(signature.inputs[name].shape or ())[axis] for name, axis in plan.axes.items()} - {"?"}
    wanted: dict[str, Sequence[int]] = {}
    for name, spec in signature.outputs.items():
        given = plan.outputs.get(name, ())
        open_axes = [axis for axis, size in enumerate(spec.shape or ()) if axis and isinstance(size, str)]
        if name in plan.output_lengths:
            wanted[name] = given or open_axes
        else:
            wanted[name] = [axis for axis in open_axes or given if not _is_named(spec.shape, axis, names)]
    return {name: axes for name, axes in wanted.items() if axes}


def _is_named(shape: tuple[int | str, ...] | None, axis: int, names: set[int | str]) -> bool:
    return shape is not None and shape[axis] in names


class _Runs:
    """The shapes of a model's outputs for one row of several lengths; each length is run once.

    Args:
        backend: the loaded model.
        plan: how it is padded.
        sample: what is known of a request.
    """

    def __init__(self, backend: Backend, plan: PaddingPlan, sample: Sample) -> None:
        self._backend, self._plan, self._sample = backend, plan, sample
        self._known: dict[int, Shapes] = {}

    def shapes(self, length: int) -> Shapes:
        """The shapes of all outputs for one row of this length; none if the model fails on it."""
        if length not in self._known:
            self._known[length] = self._run(length)
        return self._known[length]

    def lengths(self, output: str, axis: int) -> dict[int, int]:
        """The lengths of an axis of an output, by the lengths of the input that were run."""
        known = {length: shapes.get(output, ()) for length, shapes in self._known.items()}
        return {length: shape[axis] for length, shape in known.items() if axis < len(shape)}

    def _run(self, length: int) -> Shapes:
        names = tuple(self._backend.signature.outputs)
        signature = at_length(self._backend.signature, self._plan, length)
        for inputs in samples(signature, 1, length, self._sample):
            try:
                outputs = self._backend.run(names, unpadded(inputs, self._plan))
            except ModelFailed:
                continue
            return {name: array.shape for name, array in zip(names, outputs, strict=True)}
        return {}


def _own_axis(runs: _Runs, plan: PaddingPlan, name: str, axes: Sequence[int]) -> tuple[int, ...]:
    """The axis of an output whose length the model gives itself."""
    varied = [axis for axis in axes if len({*runs.lengths(name, axis).values()}) > 1]
    found = axes if name in plan.outputs else varied
    if len(found) != 1:
        raise ModelLoadError(
            f"padding.output_lengths: {len(found)} axes of output {name} follow the length of the input; "
            "name the one to cut in padding.outputs"
        )
    return tuple(found)


def _rule(runs: _Runs, name: str, axis: int, plan: PaddingPlan) -> LengthRule | None:
    """How long an axis of an output is; None if its length does not follow that of the input.

    Raises:
        ModelLoadError: no rule explains the lengths.
    """
    first, last = max(plan.shortest, 1), plan.buckets[-1]
    domain = np.unique(np.linspace(first, last, min(last - first + 1, MOST_LENGTHS)).astype(np.int64))
    random = np.random.default_rng(0)
    others = random.integers(first, last + 1, FURTHER_LENGTHS).tolist()
    further = [*plan.buckets, *others, (first + last) // 2]
    for _ in range(MOST_RUNS):
        seen = runs.lengths(name, axis)
        possible = _possible(seen)
        if not possible:
            break
        length = _telling(possible, domain) or _telling_among_all(possible, first, last)
        if length is None:
            rule = possible[0]
            unseen = [each for each in further if each not in seen]
            if not unseen:
                return rule if rule.factor else None
            length = unseen[0]
        if not runs.shapes(length):
            return None  # the check of the padding says why
    lengths = ", ".join(f"{length} where the input has {n}" for n, length in [*sorted(seen.items())][:6])
    raise ModelLoadError(
        f"[padding]: no rule explains the length of axis {axis} of output {name}: it is {lengths}; if an "
        "output of the model holds this length, name it in padding.output_lengths; else remove [padding]"
    )


def _possible(seen: Mapping[int, int]) -> list[LengthRule]:
    """Rules that explain these lengths, as examples of all that do; a factor of 0 is a constant length."""
    if len({*seen.values()}) == 1:
        return [LengthRule(0, next(iter(seen.values())), 1)]
    given = np.array([*seen], np.int64)
    found = np.array([*seen.values()], np.int64)
    rules = _longer(given, found)
    divisors = np.arange(1, int(given.max()) + 1, dtype=np.int64)
    # From the floor: divisor * found <= given + offset < divisor * (found + 1); no lower limit if it is 0.
    high = (divisors[:, np.newaxis] * (found + 1) - given).min(axis=1)
    low = (divisors[:, np.newaxis] * found - given)[:, found > 0].max(axis=1)
    fitting = np.flatnonzero(low < high)
    if not len(fitting):
        return rules
    for place in fitting[np.unique(np.linspace(0, len(fitting) - 1, MOST_DIVISORS).astype(int))]:
        offsets = np.unique(np.linspace(low[place], high[place] - 1, OFFSETS).astype(np.int64))
        rules += [LengthRule(1, int(offset), int(divisors[place])) for offset in offsets]
    return rules


def _longer(given: Array, found: Array) -> list[LengthRule]:
    """The rule of an output that is a whole number of times longer than the input, if it fits."""
    place = int(given.argmin()), int(given.argmax())
    factor, rest = divmod(int(found[place[1]] - found[place[0]]), int(given[place[1]] - given[place[0]]))
    offset = int(found[place[0]] - factor * given[place[0]])
    if factor < 2 or rest or (factor * given + offset != found).any():
        return []
    return [LengthRule(factor, offset, 1)]


def _telling(rules: Sequence[LengthRule], domain: Array) -> int | None:
    """The length at which about half of the rules differ from the others; None if all agree everywhere."""
    numbers = np.array(rules, np.int64)[:, :, np.newaxis]
    factors, offsets, divisors = numbers[:, 0], numbers[:, 1], numbers[:, 2]
    edges = [rule.divisor * k - rule.offset for rule in rules for k in _around(rule, domain)]
    inside = np.array([each for each in edges if domain[0] <= each <= domain[-1]], np.int64)
    lengths = np.unique(np.concatenate([domain, inside]))
    expected = np.maximum((factors * lengths + offsets) // divisors, 0)
    least, most = expected.min(axis=0), expected.max(axis=0)
    split = np.minimum((expected == least).sum(axis=0), (expected == most).sum(axis=0))
    split[least == most] = 0
    return int(lengths[split.argmax()]) if split.max() else None


def _telling_among_all(rules: Sequence[LengthRule], first: int, last: int) -> int | None:
    """The first length at which a rule differs from the first rule, among all lengths; None if all agree."""
    lengths = np.arange(first, last + 1, dtype=np.int64)

    def expected(rule: LengthRule) -> Array:
        return np.maximum((rule.factor * lengths + rule.offset) // rule.divisor, 0)

    usual = expected(rules[0])
    for rule in rules[1:]:
        differ = np.flatnonzero(expected(rule) != usual)
        if len(differ):
            return int(lengths[differ[0]])
    return None


def _around(rule: LengthRule, domain: Array) -> Sequence[int]:
    """The lengths that a rule gives at the end of a domain, where it makes its last steps."""
    end = rule.of(int(domain[-1]))
    return range(max(end - 1, 1), end + 1)
