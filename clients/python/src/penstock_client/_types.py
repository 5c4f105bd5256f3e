"""What the client gives back: predictions, and what is known of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import numpy.typing as npt
from google.protobuf import duration_pb2

from penstock_proto.v1 import prediction_pb2

Array: TypeAlias = npt.NDArray[Any]
"""An array of any dtype."""

Inputs: TypeAlias = Mapping[str, object]
"""Inputs by name: arrays, (nested) lists, numbers, bools, `str` or `bytes`."""

Item: TypeAlias = "Inputs | tuple[Inputs, Sequence | str]"
"""What a stream takes: inputs, or inputs with the sequence that they are a step of."""


def seconds_of(duration: duration_pb2.Duration) -> float:
    """A protobuf duration in seconds."""
    return duration.seconds + duration.nanos * 1e-9


@dataclass(frozen=True, slots=True)
class Sequence:
    """Says that a prediction is a step of a sequence whose state the server keeps.

    Steps run in the order in which they are sent, one at a time. One that fails or is cancelled leaves the
    state as it was.

    Attributes:
        id: the sequence's, unique among all callers of the model, such as a UUID. Empty: the one that the
            stream has of its own, for items of `predict_stream` only.
        start: this is the first step: it begins afresh, whatever was before.
        end: this is the last step: the state is dropped once it is answered.
    """

    id: str = ""
    start: bool = False
    end: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise TypeError(f"the id of a sequence is a str, not {self.id!r}")


def sequence_of(said: Sequence | str) -> Sequence:
    """What a caller says of a step's sequence: an id alone neither starts nor ends it.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(said, Sequence):
        return said
    if isinstance(said, str):
        return Sequence(said)
    raise TypeError(f"a sequence is a Sequence or the id of one, not {said!r}")


@dataclass(slots=True)
class Timing:
    """Where the time of a prediction went, as the server saw it.

    Attributes:
        queue_seconds: waiting for a batch, from arrival to the start of the model's run.
        compute_seconds: the run of the whole batch that the request was part of.
        batch_rows: the rows of that batch, the request's own included.
    """

    queue_seconds: float
    compute_seconds: float
    batch_rows: int


class Prediction(Mapping[str, Array]):
    """One answer: a mapping from output names to arrays.

    Numbers and bools come as views of the received bytes, without a copy, and are therefore read-only:
    call `.copy()` on an array to write into it. BYTES come as object arrays of `str` where every element
    is valid UTF-8, else of `bytes`. BF16 comes as `ml_dtypes.bfloat16` where that package is installed,
    else widened to float32, which changes no value.

    Attributes:
        model: the model that answered.
        version: the number of the version that answered, never a label.
        id: the request's id.
        outputs: the arrays by name.
        index: on a stream the place of the item in the iterable, from 0; None elsewhere.
    """

    __slots__ = ("id", "index", "model", "outputs", "said", "version")

    def __init__(  # noqa: PLR0913 - what an answer holds
        self,
        model: str,
        version: str,
        id: str,
        outputs: dict[str, Array],
        timing: Timing | bytes,
        index: int | None = None,
    ) -> None:
        self.model = model
        self.version = version
        self.id = id
        self.outputs = outputs
        self.index = index
        self.said = timing  # bytes: the serialized PredictResponse, into which few callers look

    @property
    def timing(self) -> Timing:
        """Where the time went."""
        if isinstance(self.said, bytes):
            said = prediction_pb2.PredictResponse.FromString(self.said).timing
            self.said = Timing(seconds_of(said.queue), seconds_of(said.compute), said.batch_rows)
        return self.said

    def __getitem__(self, name: str) -> Array:
        try:
            return self.outputs[name]
        except KeyError:
            raise KeyError(f'no output "{name}"; there are: {", ".join(self.outputs)}') from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    # Arrays have no single truth value, so predictions are compared by identity.
    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name}: {a.dtype}{list(a.shape)}" for name, a in self.outputs.items())
        return f"<Prediction {self.model} version {self.version}: {arrays}>"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a model.

    Attributes:
        name: its name.
        datatype: the element type by its Open Inference name, such as "FP32" or "BYTES".
        shape: one entry an axis, outermost first: an int where the length is fixed, else the name of
            the open length, "?" where it has none. None where even the number of axes is open.
        optional: whether a request may leave this input out: the server then makes it up.
    """

    name: str
    datatype: str
    shape: tuple[int | str, ...] | None
    optional: bool = False

    def __str__(self) -> str:
        axes = "..." if self.shape is None else ",".join(map(str, self.shape))
        return f"{self.datatype}[{axes}]"


@dataclass(frozen=True, slots=True)
class RunCost:
    """What a run is expected to take: `base_seconds + rows * row_seconds`.

    Attributes:
        elements: the most elements of a row that this is about; 0 where rows do not differ in that.
        base_seconds: a run besides its rows.
        row_seconds: each row more.
        spread: how many times longer than expected one run in twenty takes.
        runs: the runs this was learned from, besides those at the start.
    """

    elements: int
    base_seconds: float
    row_seconds: float
    spread: float
    runs: int


@dataclass(frozen=True, slots=True)
class BatchingInfo:
    """How a model's requests are batched.

    Attributes:
        enabled: whether requests run together.
        reason: why, or why not.
        max_rows: the most rows run at once.
        max_delay_seconds: how long a request may be held back to fill a batch; 0 means never.
        costs: what runs take, for every size of shapes.
    """

    enabled: bool
    reason: str
    max_rows: int
    max_delay_seconds: float
    costs: tuple[RunCost, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptState:
    """The state that the server keeps between the steps of a sequence.

    Attributes:
        state: the outputs that are inputs of the next step, output by input; callers neither send nor get
            them.
        idle_seconds: how long after its last step a sequence's state is kept.
        max_sequences: the most sequences whose state is kept.
    """

    state: dict[str, str]
    idle_seconds: float
    max_sequences: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One version of one model.

    Attributes:
        name: the model's name.
        version: the version's number.
        state: "LOADING", "READY", "DRAINING" or "FAILED".
        state_reason: why it is in that state, where that needs words.
        is_default: whether a request that names no version is answered by this one.
        labels: the labels that lead to this version.
        inputs: what the model takes.
        outputs: what the model gives.
        batching: whether requests are run together, and why or why not.
        metadata: what the model file says of itself.
        opsets: the operator sets the file was written against, by domain.
        sha256: of the model file's bytes, in hexadecimal.
        size_bytes: the size of the model file, without external data.
        providers: the ONNX Runtime execution providers in use, in order of preference.
        loaded_at: when it became ready, in UTC; None if it never did.
        kept_state: the state that the server keeps between the steps of a sequence; None where there is none.
    """

    name: str
    version: str
    state: str
    state_reason: str
    is_default: bool
    labels: list[str]
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    batching: BatchingInfo
    metadata: dict[str, str]
    opsets: dict[str, int]
    sha256: str
    size_bytes: int
    providers: list[str]
    loaded_at: datetime | None
    kept_state: KeptState | None = None
