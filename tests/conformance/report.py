"""What came of a run, counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
import onnxruntime

from tests.conformance.growth import Start
from tests.conformance.reference import Judged, Verdict
from tests.conformance.suite import MIXER, UNSEEN, Passage, Shared
from tests.conformance.variants import INDEPENDENT


@dataclass
class Run:
    """Everything that a run found out.

    Attributes:
        shared: the cases with an open first axis, and the models made by hand.
        starts: how starting grows, by what the models are.
    """

    judged: Sequence[Judged]
    passages: Sequence[Passage] = ()
    shared: Sequence[Shared] = ()
    starts: Mapping[str, Sequence[Start]] = field(default_factory=dict)

    def failures(self) -> list[str]:
        """What must not be, a line each."""
        through = [(each.method, name, why) for each in self.passages for name, why in each.failed.items()]
        together = [
            ("rows together", each.variant.name, each.failure)
            for each in self.shared
            if each.failure is not None and not each.variant.name.startswith(UNSEEN)
        ]
        return [f"{where} {name}: {why}" for where, name, why in [*through, *together]]

    def of_cases(self) -> list[Shared]:
        """The cases with an open first axis."""
        return [each for each in self.shared if not each.variant.name.startswith((MIXER, UNSEEN))]

    def made_by_hand(self, beginning: str) -> list[Shared]:
        """The models made by hand whose names begin so."""
        return [each for each in self.shared if each.variant.name.startswith(beginning)]


def with_verdict(judged: Iterable[Judged], verdict: Verdict) -> list[Judged]:
    """The cases of which this was found."""
    return [each for each in judged if each.verdict is verdict]


def differing(shared: Iterable[Shared]) -> list[Shared]:
    """Those batched of which at least one row was answered with other bits than alone."""
    return [
        each
        for each in shared
        if each.batched and each.answered and each.answered.equal < each.answered.requests
    ]


def careful(shared: Iterable[Shared]) -> list[Shared]:
    """Those run alone though their rows seem independent."""
    return [each for each in shared if not each.batched and each.variant.verdict in INDEPENDENT]


def summary(run: Run) -> str:
    """The counts, a line each."""
    return "\n".join([*_cases(run), *_rows(run), *_by_hand(run)]) + "\n"


def _cases(run: Run) -> Iterator[str]:
    yield f"{len(run.judged)} cases of onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}"
    for each in run.passages:
        if each.missing:
            yield f"{each.method}: the server has no such method"
        else:
            counts = f"{len(each.passed)} passed, {len(each.random)} random, {len(each.failed)} failed"
            yield f"{each.method}: {counts}"
    for verdict in (Verdict.REFUSED, Verdict.NOT_RUN):
        yield f"{verdict.value}: {len(with_verdict(run.judged, verdict))}"
    checked = [each.as_expected for each in run.judged if each.as_expected is not None]
    yield f"as the case itself expects, within its tolerance: {sum(checked)} of {len(checked)}"


def _rows(run: Run) -> Iterator[str]:
    cases = run.of_cases()
    if not cases:
        return
    whole = [each for each in cases if not each.variant.frozen]
    rows = sum(each.answered.requests for each in cases if each.answered)
    yield f"first axis opened: {len(cases)} cases, of all inputs {len(whole)}; {rows} rows sent together"
    batched = [each for each in cases if each.batched]
    other = differing(batched)
    entire = sum(not each.variant.frozen for each in batched)
    yield f"  batched: {len(batched)}, with rows in all inputs {entire}"
    yield f"    bit for bit as each row alone: {len(batched) - len(other)}"
    yield f"    within the tolerance: {len(other)}"
    yield f"  run alone: {len(cases) - len(batched)}"
    yield f"    of which the rows seem independent: {len(careful(cases))}"


def _by_hand(run: Run) -> Iterator[str]:
    made = run.made_by_hand(MIXER)
    if made:
        yield f"made by hand to mix rows: {len(made)}, run alone: {sum(not each.batched for each in made)}"
    made = run.made_by_hand(UNSEEN)
    if made:
        yield f"made by hand to mix unseen: {len(made)}, run alone: {sum(not each.batched for each in made)}"
