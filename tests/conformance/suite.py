"""Every case through every method, and every row beside others; the results, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc

from penstock_proto.v1 import model_pb2
from tests.conformance import graphs, mixers
from tests.conformance.batching import Answered, send_together
from tests.conformance.cases import Case
from tests.conformance.protocols import METHODS, Method, is_missing, said
from tests.conformance.reference import Judged, Verdict, judge
from tests.conformance.tensors import Tensors, difference
from tests.conformance.variants import INDEPENDENT, ROWS, Rows, Variant, examine, variant

T = TypeVar("T")
Progress = Callable[[str, Sequence[T]], Iterator[T]]
"""Goes through things, and may show how far it is."""

MIXER, UNSEEN = "mixer_", "unseen_"
"""What the names of the models made by hand begin with."""
SERVED = (Verdict.SERVED, Verdict.RANDOM)


def silent(_title: str, things: Sequence[T]) -> Iterator[T]:
    """Discards the progress."""
    return iter(things)


@dataclass
class Passage:
    """How the cases went through one method.

    Attributes:
        missing: the server has no such method.
        passed: the cases whose every output was the same bit for bit.
        random: those of which only shapes and datatypes can be compared, and were the same.
        failed: why, by case.
    """

    method: str
    missing: bool = False
    passed: list[str] = field(default_factory=list)
    random: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Shared:
    """How one model answered rows of many callers.

    Attributes:
        batched: what the server decided at load.
        reason: why.
        answered: what became of the rows; None where none were sent.
    """

    variant: Variant
    batched: bool
    reason: str
    answered: Answered | None = None

    @property
    def failure(self) -> str | None:
        """What is wrong, if anything."""
        independent = self.variant.verdict in INDEPENDENT
        if self.batched and not independent:
            return f"batched, though its rows are {self.variant.verdict.value}: {self.variant.reason}"
        if self.answered is None:
            return None
        if self.answered.wrong:
            return self.answered.wrong[0]
        if self.batched and self.answered.together < 2:
            return "its rows never ran together"
        if not self.batched and self.answered.equal < self.answered.requests:
            return "run alone, and yet not the same"
        return None


def judge_all(cases: Sequence[Case], progress: Progress[Case] = silent) -> list[Judged]:
    """What this process makes of the cases; call it within `surroundings()`."""
    return [judge(case) for case in progress("run here", cases)]


def served(judged: Iterable[Judged]) -> list[Judged]:
    """Those that a server can serve."""
    return [each for each in judged if each.verdict in SERVED]


def pass_through(
    target: str,
    channel: grpc.Channel,
    name: str,
    judged: Sequence[Judged],
    progress: Progress[Judged] = silent,
) -> Passage:
    """Sends the inputs of cases through a method and compares the outputs."""
    passage = Passage(name, is_missing(target, name))
    if passage.missing:
        return passage
    method = METHODS[name](channel)
    for each in progress(name, judged):
        why = _why_failed(method, each)
        if why is not None:
            passage.failed[each.case.name] = why
        else:
            (passage.random if each.verdict is Verdict.RANDOM else passage.passed).append(each.case.name)
    return passage


def variants_of(judged: Sequence[Judged], folder: Path, progress: Progress[Judged] = silent) -> list[Variant]:
    """The cases with an open first axis that ONNX Runtime loads; call it within `surroundings()`."""
    found = [
        variant(each, folder) for each in progress("axes opened", judged) if each.verdict is Verdict.SERVED
    ]
    return [each for each in found if each is not None and each.rows]


def mixers_of(folder: Path) -> list[Variant]:
    """The models made by hand whose rows mix, which this process has seen them do."""
    made = [Variant(f"{MIXER}{name}", name, model) for name, model in mixers.MIXERS.items()]
    for each in made:
        examine(each, graphs.rows(each.model, ROWS), folder)
    return made


def unseen() -> list[Variant]:
    """Handmade models that generated rows of moderate values do not detect."""
    return [Variant(f"{UNSEEN}{name}", name, model) for name, model in mixers.UNSEEN.items()]


def share(
    channel: grpc.Channel,
    variants: Sequence[Variant],
    models: dict[str, model_pb2.Model],
    progress: Progress[Variant] = silent,
) -> list[Shared]:
    """Sends rows of each together.

    Args:
        channel: a connection to the server.
        variants: what it serves.
        models: what it says of that.
        progress: told of each variant.
    """
    found = []
    for each in progress("rows together", variants):
        batching = models[each.name].batching
        one = Shared(each, batching.enabled, batching.reason)
        if each.rows and each.verdict is not Rows.RANDOM:
            one.answered = send_together(channel, each.name, each.rows, each.alone)
        found.append(one)
    return found


def _why_failed(method: Method, judged: Judged) -> str | None:
    for expectation in judged.expectations:
        try:
            came = method(judged.case.name, expectation.inputs)
        except (grpc.RpcError, ValueError) as error:
            return said(error)
        expected = expectation.outputs
        if judged.verdict is Verdict.RANDOM:
            expected, came = _without_values(expected), _without_values(came)
        why = difference(expected, came)
        if why is not None:
            return why
    return None


def _without_values(tensors: Tensors) -> Tensors:
    return {name: raw._replace(data=bytes(len(raw.data))) for name, raw in tensors.items()}
