"""A loaded version of a model: signature, queue, settings and state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from penstock.backends.backend import Backend
from penstock.core.observers import combined
from penstock.core.request import Observer
from penstock.core.tensors import Array, DataType, Signature
from penstock.models.analysis.facts import Verdict
from penstock.models.class_labels import ClassLabels
from penstock.models.samples import UNKNOWN, Sample
from penstock.models.sequence import SequenceState, scalars_of
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.packing.padding import PaddingPlan
from penstock.scheduling.sequence_batcher import SequenceBatcher


class ModelState(Enum):
    """The state of a loaded version."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Batching:
    """Whether a model's requests run together, and why or why not.

    Attributes:
        tolerance: by how much, relative to the largest value of an output, rows run together were seen
            to differ from the same rows run alone; 0.0 if they agreed bit for bit.
        exact: whether they must agree bit for bit.
        proven: what the graph says about its rows.
        why: what the verdict rests on, a sentence each: what the graph shows, and what was tried.
    """

    enabled: bool
    reason: str
    tolerance: float = 0.0
    exact: bool = False
    proven: Verdict = Verdict.UNKNOWN
    why: tuple[str, ...] = field(default=(), compare=False)

    def saying(self, reason: str, *why: str) -> Batching:
        """The same with another reason, and more that it rests on."""
        return Batching(self.enabled, reason, self.tolerance, self.exact, self.proven, (*self.why, *why))


@dataclass(frozen=True, slots=True)
class Broken:
    """A version that cannot be served.

    Attributes:
        reason: why.
        labels: its labels, which lead to no other version.
        is_default: whether requests without a version ask for it.
    """

    name: str
    version: int
    reason: str
    labels: Sequence[str] = ()
    is_default: bool = False

    def __str__(self) -> str:
        return f"model {self.name} version {self.version}: {self.reason}"


@dataclass(slots=True, eq=False, weakref_slot=True)
class Model:
    """A version that can answer requests: its signature, its queue, and what is known about it.

    Attributes:
        version_text: the version as it is written in answers.
        output_names: all outputs, in the signature's order.
        declared: the whole signature, with the axes of the rows; None for the backend's.
        by_rows: whether a request is read as rows: as long as they are not found to affect each other, also
            if every request runs alone because that is faster.
        row_axes: the axis of the rows of a model read by rows, of every tensor where it is not the first.
        open_shapes: whether an axis other than the batch axis is open. Then only requests of equal shapes, or
            padded to equal shapes, may share a batch.
        has_text_outputs: whether an output has texts, which take longer to write than numbers.
        padding: how requests of different lengths are padded to run together; None if they are not.
        sample: what is known of a request.
        example: the inputs of a request that ran when the model was tried; empty if none did.
        optional_inputs: the inputs that a request may leave out.
        class_labels: the names of the classes of an output, by the output's name.
        sequence_state: the state that the server keeps between the steps of a sequence; None for a model
            without a state. Its tensors are not in the signature: requests cannot send or ask for them.
        scalars: the inputs of which a batch has one value, equal in all its requests.
        kept_inputs: the inputs that some steps of a sequence send and others do not: first states, and values
            that stay. They are no part of the rows that are batched.
        start_inputs: those of them that a step which begins a sequence has to send.
        golden: what its golden rows showed when it was loaded; "" if it has none.
        advice: what the operator could declare about a state; "" for nothing.
        defaults: the optional inputs whose default value is in the graph. A request that sends one of them
            runs alone: whether its rows may share a batch was found out with the default values.
        attachments: objects that protocols derive from the model, by their class; they are derived again
            if its requests run alone from some time on.
        keep_difference: called with the reason if a batch is found to have changed an answer. Says what is
            kept of it for the next start, "" for nothing. Must not block.
        observer: is called when requests end; set by `observe`.
    """

    name: str
    version: int
    backend: Backend
    batcher: DynamicBatcher
    batching: Batching
    labels: Sequence[str] = ()
    is_default: bool = False
    padding: PaddingPlan | None = None
    sample: Sample = UNKNOWN
    example: Mapping[str, Array] = field(default_factory=dict)
    state: ModelState = ModelState.READY
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    observer: Observer = field(init=False)
    class_labels: Mapping[str, ClassLabels] = field(default_factory=dict)
    attachments: dict[type, Any] = field(default_factory=dict)
    sequence_state: SequenceState | None = None
    advice: str = ""
    golden: str = ""
    keep_difference: Callable[[str], str] = lambda _: ""
    declared: Signature | None = None
    signature: Signature = field(init=False)
    by_rows: bool = field(init=False)
    row_axes: Mapping[str, int] = field(init=False)
    version_text: str = field(init=False)
    output_names: tuple[str, ...] = field(init=False)
    open_shapes: bool = field(init=False)
    has_text_outputs: bool = field(init=False)
    scalars: tuple[str, ...] = field(init=False)
    defaults: tuple[str, ...] = field(init=False)
    optional_inputs: Collection[str] = field(init=False)
    kept_inputs: Collection[str] = field(init=False, default=())
    start_inputs: Collection[str] = field(init=False, default=())

    def __post_init__(self) -> None:
        whole = self.declared or self.backend.signature
        needed = whole if self.sequence_state is None else self.sequence_state.without(whole)
        # Padding and states put together runs of the inputs that every request has.
        self.defaults = () if self.sequence_state or self.padding else tuple(whole.defaults)
        defaults = {name: whole.defaults[name] for name in self.defaults}
        self.signature = replace(needed, inputs={**needed.inputs, **defaults}) if defaults else needed
        tensors = (*self.signature.inputs.values(), *self.signature.outputs.values())
        self.by_rows = self.batching.enabled
        self.row_axes = {spec.name: spec.row_axis for spec in tensors if spec.row_axis and self.by_rows}
        self.version_text = str(self.version)
        self.output_names = tuple(self.signature.outputs)
        self.has_text_outputs = any(
            spec.datatype is DataType.BYTES for spec in self.signature.outputs.values()
        )
        if self.sequence_state is not None and self.sequence_state.step_inputs is not None:
            self.kept_inputs = self.sequence_state.step_inputs.names
            self.start_inputs = self.sequence_state.step_inputs.required
        rows = [spec for name, spec in needed.inputs.items() if name not in self.kept_inputs]
        self.open_shapes = any(spec.has_open_inner_axis() for spec in rows)
        scalars = scalars_of(needed) if self.by_rows else ()
        self.scalars = tuple(name for name in scalars if name not in self.kept_inputs)
        self.optional_inputs = self.padding.optional if self.padding else {*self.kept_inputs, *self.defaults}
        self.batcher.on_alone = self._run_alone

    @property
    def sequences(self) -> SequenceBatcher | None:
        """The batcher, if it keeps the states of sequences."""
        return self.batcher if isinstance(self.batcher, SequenceBatcher) else None

    def observe(self, *observers: Observer) -> None:
        """Sets the observers of this model's requests; to be called before the first request."""
        self.observer = combined(observers)
        self.batcher.observer = self.observer

    @property
    def is_hung(self) -> bool:
        """Whether one of its runs hangs."""
        return bool(self.batcher.in_flight.hung_threads())

    @property
    def trouble(self) -> str:
        """Why the model cannot answer now; "" if it can."""
        if self.is_hung:
            return "a run hangs"
        if self.batcher.breaker.is_open:
            return "it fails on every input; requests are rejected for now (circuit breaker open)"
        return ""

    def _run_alone(self, reason: str, is_lasting: bool) -> None:
        """Batches are given up; for good, requests are now read as those of a model that is not batched.

        If it is only because of the time that they take, requests go on to mean what they meant.
        """
        kept = self.keep_difference(reason) if is_lasting else ""
        why = (*self.batching.why, kept) if kept else self.batching.why
        reason = f"seen on live requests: {reason}"
        self.batching = replace(self.batching, enabled=False, reason=reason, why=why)
        if is_lasting:
            self.by_rows, self.scalars, self.row_axes = False, (), {}
        self.attachments.clear()  # what protocols have derived, such as which requests are alike

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"
