"""What ONNX Runtime gives in this process, with the server's settings: what answers are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path

import numpy as np

from penstock.backends.onnx import OnnxBackend
from penstock.config import RuntimeConfig
from penstock.core.errors import ModelFailed, ModelLoadError
from penstock.core.processors import available
from penstock.core.tensors import Signature
from tests.conformance.cases import Case, DataSet, Unreadable
from tests.conformance.tensors import Raw, Tensors, held, packed, packed_inputs

RUNTIME = RuntimeConfig(intra_op_threads=1)
"""One thread on both sides, since what a server takes by itself depends on how quick a run was."""
LATER_RUNS = 4
SETTINGS = "[runtime]\nintra_op_threads = 1\n"
"""The same for `penstock serve --config`."""


class Verdict(Enum):
    """What is to become of a case."""

    SERVED = "served"
    RANDOM = "random"
    REFUSED = "refused"
    NOT_RUN = "not run by ONNX Runtime"


@dataclass
class Expectation:
    """One set of inputs, and what a server must answer."""

    inputs: dict[str, Raw]
    outputs: Tensors


@dataclass
class Judged:
    """A case, and what this process found out about it.

    Attributes:
        reason: why it is not to be served, or what of it is random.
        as_expected: whether ONNX Runtime gives what the case itself expects; None where that cannot be said.
    """

    case: Case
    verdict: Verdict
    reason: str = ""
    signature: Signature | None = None
    expectations: list[Expectation] = field(default_factory=list)
    as_expected: bool | None = None


@contextmanager
def opened(path: Path) -> Iterator[OnnxBackend]:
    """The model, as a server opens it: it finds out once, not for each of thousands, what it may use."""
    backend = OnnxBackend(path, RUNTIME, 1, _processors())
    try:
        yield backend
    finally:
        backend.close()


@cache
def _processors() -> int:
    return available().count


def judge(case: Case) -> Judged:
    """Loads and runs a case as the server would; call it within `surroundings()`."""
    try:
        with opened(case.path) as backend:
            return _judge_loaded(case, backend)
    except ModelLoadError as error:
        reason = str(error).removeprefix(f"{case.path}: ").replace(f" {case.path}", "")
        at_all = reason.startswith("ONNX Runtime cannot load")
        return Judged(case, Verdict.NOT_RUN if at_all else Verdict.REFUSED, reason)


def run(backend: OnnxBackend, inputs: Mapping[str, np.ndarray]) -> dict[str, Raw]:
    """All outputs of one run."""
    names = tuple(backend.signature.outputs)
    arrays = backend.run(names, inputs)
    specs = backend.signature.outputs
    return {name: packed(array, specs[name].datatype) for name, array in zip(names, arrays, strict=True)}


def _judge_loaded(case: Case, backend: OnnxBackend) -> Judged:
    signature = backend.signature
    try:
        sets = [(each, _held_inputs(each)) for each in case.data_sets()]
    except (Unreadable, UnicodeDecodeError) as error:
        return Judged(case, Verdict.REFUSED, str(error))
    try:
        expectations = [
            Expectation(packed_inputs(inputs, signature), run(backend, inputs)) for _, inputs in sets
        ]
        random = _random_outputs(case, backend, [inputs for _, inputs in sets], expectations)
    except ModelFailed as error:
        return Judged(case, Verdict.NOT_RUN, str(error))
    judged = Judged(case, Verdict.SERVED, "", signature, expectations)
    if random:
        judged.verdict, judged.reason = Verdict.RANDOM, f"{case.operator}: {', '.join(random)}"
    judged.as_expected = _as_expected(case, backend, sets)
    return judged


def _held_inputs(data: DataSet) -> dict[str, np.ndarray]:
    return {name: held(array) for name, array in data.inputs.items()}


def _random_outputs(
    case: Case,
    backend: OnnxBackend,
    sets: Sequence[Mapping[str, np.ndarray]],
    expectations: Sequence[Expectation],
) -> list[str]:
    """The outputs that a later run, or the first of a fresh session, gives differently.

    Several later runs: the first two of a generator may be alike, since seeds 0 and 1 give the same numbers.
    """
    with opened(case.path) as fresh:
        again = [[run(each, inputs) for inputs in sets] for each in (fresh, *[backend] * LATER_RUNS)]
    pairs = [pair for after in again for pair in zip(expectations, after, strict=True)]
    return sorted({name for one, other in pairs for name in other if one.outputs[name] != other[name]})


def _as_expected(
    case: Case, backend: OnnxBackend, sets: Sequence[tuple[DataSet, Mapping[str, np.ndarray]]]
) -> bool | None:
    rtol, atol = case.tolerance
    for data, inputs in sets:
        if data.expected is None:
            return None
        came = backend.run(tuple(backend.signature.outputs), inputs)
        for one, other in zip(data.expected, came, strict=True):
            if not _close(one, np.asarray(other), rtol, atol):
                return False
    return True


def _close(expected: np.ndarray, came: np.ndarray, rtol: float, atol: float) -> bool:
    if expected.dtype.name.startswith(("bfloat16", "float8")):
        came = came.view(expected.dtype).astype(np.float32)
        expected = expected.astype(np.float32)
    if expected.shape != came.shape:
        return False
    if came.dtype == object:
        return bool(np.array_equal(held(expected), came))
    return expected.dtype == came.dtype and bool(
        np.allclose(came.astype(complex), expected.astype(complex), rtol=rtol, atol=atol, equal_nan=True)
    )
