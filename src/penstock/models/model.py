"""One loaded version of one model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from penstock.backends.backend import Backend
from penstock.messages import Observer
from penstock.models.class_labels import ClassLabels
from penstock.models.samples import UNKNOWN, Sample
from penstock.models.sequence import KeptState, scalars_of
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.padding import PaddingPlan
from penstock.scheduling.sequences import SequenceBatcher
from penstock.tensors import Signature


class ModelState(Enum):
    """Where a version is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Batching:
    """Whether a model's requests run together, and why or why not.

    Attributes:
        tolerance: by how much, relative to the largest value of an output, rows run together were seen
            to differ from the same rows run alone; 0.0 where they agreed bit for bit.
    """

    enabled: bool
    reason: str
    tolerance: float = 0.0


@dataclass(slots=True, eq=False, weakref_slot=True)
class Model:
    """A version that can answer: its signature, its queue, and what is known of it.

    Attributes:
        version_text: the version as it is written in answers.
        output_names: all outputs, in the signature's order.
        open_shapes: whether an axis other than the batch axis is open: then only requests of equal
            shapes may share a batch, or such as are padded to equal ones.
        padding: how requests of different lengths are padded to run together; None where they are not.
        sample: what is known of a request.
        optional_inputs: the inputs that a request may leave out.
        class_labels: what the indices of an output's values stand for, by the output's name.
        kept: the state that the server keeps between the steps of a sequence; None where there is none. Its
            tensors are not in the signature: callers neither send nor get them.
        scalars: the inputs of which a batch has one value, equal in all its requests.
        attachments: what the front doors derive from the signature once and keep, by its class.
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
    state: ModelState = ModelState.READY
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    observer: Observer = field(init=False)
    class_labels: Mapping[str, ClassLabels] = field(default_factory=dict)
    attachments: dict[type, Any] = field(default_factory=dict)
    kept: KeptState | None = None
    signature: Signature = field(init=False)
    version_text: str = field(init=False)
    output_names: tuple[str, ...] = field(init=False)
    open_shapes: bool = field(init=False)
    scalars: tuple[str, ...] = field(init=False)
    optional_inputs: Collection[str] = field(init=False)

    def __post_init__(self) -> None:
        whole = self.backend.signature
        self.signature = whole if self.kept is None else self.kept.without(whole)
        self.version_text = str(self.version)
        self.output_names = tuple(self.signature.outputs)
        self.open_shapes = any(spec.has_open_inner_axis() for spec in self.signature.inputs.values())
        self.scalars = scalars_of(self.signature) if self.batching.enabled else ()
        self.optional_inputs = self.padding.optional if self.padding else ()

    @property
    def sequences(self) -> SequenceBatcher | None:
        """The batcher, where it keeps a state."""
        return self.batcher if isinstance(self.batcher, SequenceBatcher) else None

    def observe(self, observer: Observer) -> None:
        """Sets who is told how this model's requests end; comes before the first of them."""
        self.observer = observer
        self.batcher.tell(observer)

    @property
    def is_hung(self) -> bool:
        """Whether any of its runs hangs."""
        return bool(self.batcher.runs.hung_threads())

    @property
    def trouble(self) -> str:
        """What keeps it from answering now; empty where nothing does."""
        if self.is_hung:
            return "a run hangs"
        if self.batcher.breaker.is_open:
            return "it fails on whatever it is given: requests are refused for a while"
        return ""

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"
