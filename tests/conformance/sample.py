"""Which cases the quick run takes: every operator once, everything unusual, and no large network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from tests.conformance.cases import LIGHT
from tests.conformance.growth import spread
from tests.conformance.reference import Judged
from tests.conformance.tensors import Raw
from tests.conformance.variants import Rows, Variant

LEAST = 260
EACH = 6
"""The number of models of every unusual kind."""


def _tensors(judged: Judged) -> Iterator[Raw]:
    for expectation in judged.expectations:
        yield from expectation.inputs.values()
        yield from expectation.outputs.values()


def _any(condition: Callable[[Raw], bool]) -> Callable[[Judged], bool]:
    return lambda judged: any(condition(raw) for raw in _tensors(judged))


def _of(datatype: str) -> Callable[[Judged], bool]:
    return _any(lambda raw: raw.datatype == datatype)


UNUSUAL: Mapping[str, Callable[[Judged], bool]] = {
    "rank 0": _any(lambda raw: not raw.shape),
    "zero-size": _any(lambda raw: 0 in raw.shape),
    "text": _of("BYTES"),
    "fp16": _of("FP16"),
    "bf16": _of("BF16"),
    "fp64": _of("FP64"),
    "bool": _of("BOOL"),
    "int8": _of("INT8"),
    "uint8": _of("UINT8"),
    "no inputs": lambda judged: any(not each.inputs for each in judged.expectations),
    "many inputs": lambda judged: any(len(each.inputs) > 5 for each in judged.expectations),
    "many outputs": lambda judged: any(len(each.outputs) > 2 for each in judged.expectations),
    "no numbers": _any(lambda raw: raw.datatype == "FP32" and _has_nan(raw)),
}
"""What a case must have to be of a kind, by the kind's name."""


def chosen(judged: Sequence[Judged]) -> list[Judged]:
    """The cases of the quick run, of those that can be served."""
    small = [each for each in judged if each.case.kind != LIGHT]
    by_name = {each.case.name: each for each in small}
    names = {each.case.operator: each.case.name for each in reversed(small)}.values()
    wanted = set(names)
    for is_one in UNUSUAL.values():
        wanted.update([each.case.name for each in small if is_one(each)][:EACH])
    wanted.update(spread(sorted(by_name), max(LEAST - len(wanted), 0)))
    return [by_name[name] for name in sorted(wanted)]


def chosen_variants(variants: Sequence[Variant]) -> list[Variant]:
    """Of the variants, one for each operator and verdict, and all whose rows are only close."""
    found: dict[tuple[str, Rows, str], Variant] = {}
    for each in variants:
        apart = each.name if each.verdict is Rows.CLOSE else ""
        found.setdefault((each.operator, each.verdict, apart), each)
    return list(found.values())


def _has_nan(raw: Raw) -> bool:
    return bool(np.isnan(np.frombuffer(raw.data, np.float32)).any())
