"""A model in ONNX Runtime without a server: `python -m tests.zoo.bare NAME FOLDER OUTPUT`.

In a process of its own, since a model may end the process that runs it.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort

from penstock.models.analysis.facts import GraphFacts, Verdict
from penstock.models.analysis.proof import analyse
from tests.zoo import inputs
from tests.zoo.compare import Answer, Compared
from tests.zoo.packages import ZooModel, listed

REQUESTS = 16
"""Different requests of each model."""
TOGETHER = 8
LEAST_GROUPS, MOST_GROUPS = 2, 12
"""How often `TOGETHER` requests run together, other ones each time: as often as there is time."""
SECONDS = 90.0
"""The longest that a model may take here."""
TURNS = 20
ENOUGH_SECONDS = 2.0
"""A measurement that has taken so long is not repeated."""
DTYPES = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "int64": np.int64,
    "int32": np.int32,
    "uint8": np.uint8,
    "bool": np.bool_,
}

Run = Callable[[Mapping[str, Any]], dict[str, Any]]


class Rows(Enum):
    """What ONNX Runtime makes of several requests in one run."""

    INDEPENDENT = "independent"
    MIXED = "mixed"
    REFUSED = "one at a time"


@dataclass
class Bare:
    """What a model gives without a server.

    Attributes:
        requests: what was sent.
        alone: the answer to each of them.
        rows: what becomes of requests that run together.
        apart: how far answers together are from those alone.
        gain: the processor time of requests together over that of the same one by one; 0 if they do not run
            together.
        graph: what the graph says, read without running it; None for a model without rows.
        reason: why the model did not run at all; "" if it did.
    """

    requests: list[dict[str, Any]] = field(default_factory=list)
    alone: list[dict[str, Any]] = field(default_factory=list)
    rows: Rows = Rows.REFUSED
    apart: Compared = field(default_factory=Compared)
    gain: float = 0.0
    graph: GraphFacts | None = None
    reason: str = ""

    @property
    def refuted(self) -> bool:
        """Whether requests affect each other though the graph says that they cannot."""
        return self.rows is Rows.MIXED and self.graph is not None and self.graph.verdict is Verdict.ROW_WISE


def bare(model: ZooModel, folder: Path) -> Bare:
    """Runs a model in a process of its own."""
    with TemporaryDirectory() as scratch:
        output = Path(scratch) / "bare"
        command = [sys.executable, "-m", "tests.zoo.bare", model.name, str(folder), str(output)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return Bare(reason=f"it took more than {SECONDS:.0f} s")
        if ended.returncode != 0 or not output.exists():
            last = (ended.stderr.strip() or "nothing said").splitlines()[-1]
            return Bare(reason=f"its process ended with {ended.returncode}: {last[:200]}")
        found = pickle.loads(output.read_bytes())
        assert isinstance(found, Bare)
        return found


def examine(model: ZooModel, path: Path) -> Bare:
    """Runs a model in this process."""
    session = _session(path)
    dtypes = {each.name: np.dtype(DTYPES[each.type[7:-1]]) for each in session.get_inputs()}
    run = _runs(session)
    found = Bare([inputs.request(model, number, dtypes) for number in range(REQUESTS)])
    found.alone = [run(feed) for feed in found.requests]
    if model.rows:
        found.graph = analyse(path, {name: _axis(settings) for name, settings in model.inputs.items()})
    together = _together(model, found, partial(_group, model, dtypes), run)
    if together is not None:
        found.gain = _gain(_runs(_session(path, threads=1)), *together)
    return found


def _session(path: Path, threads: int = 0) -> ort.InferenceSession:
    """A session; on all processors, unless a number of threads is given."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait take no time
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _runs(session: ort.InferenceSession) -> Run:
    names = [each.name for each in session.get_outputs()]

    def run(feed: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(names, session.run(None, feed), strict=True))

    return run


def _group(model: ZooModel, dtypes: Mapping[str, Any], turn: int) -> list[dict[str, Any]]:
    """Requests whose open lengths are all the same; other ones each turn."""
    step = max(map(len, model.lengths.values()), default=1)
    first = turn * TOGETHER * step + turn % step
    return [inputs.request(model, first + number * step, dtypes) for number in range(TOGETHER)]


def _together(
    model: ZooModel, found: Bare, make_group: Callable[[int], list[dict[str, Any]]], run: Run
) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Runs requests together and alone, and notes in `found` what comes of it.

    Returns:
        The last requests, as one and as several; None if they did not run together.
    """
    if not model.rows:
        return None
    started = time.perf_counter()
    for turn in range(MOST_GROUPS):
        if turn >= LEAST_GROUPS and time.perf_counter() - started > ENOUGH_SECONDS:
            break
        group = make_group(turn)
        joined = _joined(model, group)
        if joined is None:
            return None
        try:
            whole = run(joined)
        except Exception:  # ONNX Runtime raises exceptions of many kinds
            return None
        for number, feed in enumerate(group):
            expected = run(feed)
            came = _part(whole, expected, number)
            if came is None:
                found.rows = Rows.MIXED
                found.apart.first = "another number of rows comes out than goes in"
                return None
            found.apart.take(model, expected, came)
    found.rows = Rows.MIXED if found.apart.wrong else Rows.INDEPENDENT
    assert joined is not None
    return joined, group


def _joined(model: ZooModel, feeds: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The requests as one; None if an input can only be given once and yet differs."""
    joined = {}
    for name, settings in model.inputs.items():
        arrays = [feed[name] for feed in feeds]
        axis = _axis(settings)
        if axis is not None:
            joined[name] = np.concatenate(arrays, axis)
        elif all(np.array_equal(arrays[0], each) for each in arrays):
            joined[name] = arrays[0]
        else:
            return None
    return joined


def _axis(settings: Mapping[str, Any]) -> int | None:
    """The axis of an input's rows; None if all rows share it."""
    axis = settings.get("axis", 0)
    return None if axis == "none" or not settings["shape"] else int(axis)


def _part(whole: Answer, alone: Answer, number: int) -> dict[str, Any] | None:
    """One request's part of an answer to several, along the axis that has grown with their number."""
    part = {}
    for name, expected in alone.items():
        array = whole[name]
        grown = [
            axis
            for axis in range(expected.ndim)
            if array.ndim == expected.ndim
            and array.shape[axis] == TOGETHER * expected.shape[axis]
            and array.size == TOGETHER * expected.size
        ]
        if not grown:
            return None
        length = expected.shape[grown[0]]
        taken = np.arange(number * length, (number + 1) * length)
        part[name] = np.ascontiguousarray(np.take(array, taken, grown[0]))
    return part


def _gain(run: Run, joined: Mapping[str, Any], feeds: Sequence[Mapping[str, Any]]) -> float:
    """The time of requests together over that of the same one by one; the quickest of several turns each.

    It is the time that the calling thread works: other programs make a long run longer by the wall clock more
    often than a short one. So `run` must work on that thread alone.
    """
    together: list[float] = []
    one_by_one: list[float] = []
    while len(together) < TURNS and sum(together) + sum(one_by_one) < ENOUGH_SECONDS:
        one_by_one.append(_seconds(lambda: [run(feed) for feed in feeds]))
        together.append(_seconds(lambda: run(joined)))
    return min(together) / min(one_by_one)


def _seconds(call: Callable[[], object]) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started


def main(name: str, folder: str, output: str) -> None:
    """The command."""
    [model] = [each for each in listed() if each.name == name]
    found = examine(model, model.path(Path(folder)))
    Path(output).write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    # Under its own name, so that what it writes can be read by the module that started it.
    from tests.zoo import bare as module

    module.main(*sys.argv[1:])
