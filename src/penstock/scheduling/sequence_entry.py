"""What the table of sequences keeps of one sequence."""

from __future__ import annotations

from collections import OrderedDict

from penstock.core.caller import Caller
from penstock.core.errors import RequestError, SequenceTaken, UnknownSequence
from penstock.core.request import Request, Step
from penstock.scheduling.packing.states import State

START = "send a step with start to begin it"
OVER_HTTP = " (over HTTP: with the header Penstock-Sequence-Start: true)"
OF_ANOTHER = (
    "another caller began it{how}; use ids that no other caller uses. A caller with several connections "
    "sends the metadata (over HTTP: the header) penstock-caller with a name of its own, callers that share "
    "sequences send penstock-sequences: shared"
)


class SequenceEntry:
    """One sequence.

    Attributes:
        bytes: of the state, if they are counted.
        caller: who began it, on its latest connection; None if this is not known.
        state: after the last step; None before the first step has succeeded.
        fresh: the state after the head, until that is answered; None until it has run.
        head: the step that waits for a run or is part of one.
        held: the steps behind the head, in their order.
        owner: the stream that the state began on.
        claims: the streams on which this sequence has begun, or a later step that begins it anew.
        closing: streams that ended while a step was running: if one owns the state then, it is dropped.
        seen: when its last step arrived.
        used: when its last step ended.
        wanted: whether another caller has tried to begin it: then no new connection may follow the old one.
    """

    __slots__ = (
        "bytes", "caller", "claims", "closing", "fresh", "head", "held", "owner", "seen", "state", "used",
        "wanted",
    )  # fmt: skip

    def __init__(self, now: float, caller: Caller | None) -> None:
        self.state: State | None = None
        self.fresh: State | None = None
        self.head: Request | None = None
        self.held: OrderedDict[Request, None] = OrderedDict()
        self.owner: object | None = None
        self.claims: tuple[object, ...] = ()
        self.closing: tuple[object, ...] = ()
        self.caller = caller
        self.used = self.seen = now
        self.wanted = False
        self.bytes = 0

    @property
    def is_abandoned(self) -> bool:
        """Whether no step of it is under way, and the connection of its caller is closed."""
        return self.head is None and (self.caller is None or self.caller.is_gone(self.seen))

    def not_for(self, step: Step) -> RequestError:
        """The error of another caller's step."""
        is_named = self.caller is None or self.caller.name is not None
        why = OF_ANOTHER.format(how="" if is_named else ", on another connection")
        if step.start:
            return SequenceTaken(f"sequence {step.key} cannot begin: {why}")
        return UnknownSequence(f"sequence {step.key} is unknown to this caller: {why}")
