"""The inputs that some steps of a sequence send and others do not: first states, and values that stay."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from penstock.core.errors import InvalidRequest
from penstock.core.names import missing
from penstock.core.request import Request, Step


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The inputs that a step may leave out.

    Attributes:
        states: the state inputs that only a step which begins a sequence may send.
        constants: the inputs that are kept from the step that sends them.
        required: those of both that a step which begins a sequence has to send.
        axes: for each of both, the axis of its one row; None if it has no such axis.
        names: all of both.
    """

    states: Collection[str]
    constants: Collection[str]
    required: Sequence[str]
    axes: dict[str, int | None] = field(default_factory=dict)
    names: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset((*self.states, *self.constants)))

    def take(self, request: Request) -> None:
        """Moves these inputs from a request's inputs to its step.

        Values that stay are copied: a view would keep the whole message in memory.
        """
        if self.names.isdisjoint(request.inputs):
            return
        step, inputs = step_of(request), dict(request.inputs)
        given = {name: inputs.pop(name) for name in self.names if name in inputs}
        for name in self.constants:
            if name in given:
                given[name] = np.array(given[name])
        request.inputs = inputs
        request.sequence = step._replace(given=given)

    def check(self, request: Request, begins: bool) -> None:
        """Checks that a step brings what it must, and no more than it may.

        Args:
            request: the step, whose inputs have been taken.
            begins: whether it begins a sequence.

        Raises:
            InvalidRequest: it begins a sequence and lacks an input, or it does not and sends a state.
        """
        given = step_of(request).given or {}
        if begins:
            lacking = [name for name in self.required if name not in given]
            if lacking:
                raise InvalidRequest(
                    f"{missing(lacking)}: a step that begins a sequence has to send it; "
                    "later steps may leave it out"
                )
            return
        sent = [name for name in given if name in self.states]
        if sent:
            raise InvalidRequest(
                f"only a step that begins a sequence may send {', '.join(sorted(sent))}: the server keeps it "
                "for the later steps; set start to begin the sequence anew"
            )


def step_of(request: Request) -> Step:
    """Which step of which sequence a request is."""
    assert request.sequence is not None, "every request for such a model is a step"
    return request.sequence
