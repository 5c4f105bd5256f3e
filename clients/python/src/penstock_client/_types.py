"""The types that the client returns: predictions, and descriptions of models."""

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

Inputs: TypeAlias = Any
"""Inputs by name: arrays, (nested) lists, numbers, bools, `str` or `bytes`; or a table with these columns."""

Item: TypeAlias = "Inputs | tuple[Inputs, Sequence | str] | StreamItem"
"""An item of a stream: inputs, or inputs with the sequence of this step, or these with an id."""


def seconds_of(duration: duration_pb2.Duration) -> float:
    """A protobuf duration in seconds."""
    return duration.seconds + duration.nanos * 1e-9


@dataclass(frozen=True, slots=True)
class Sequence:
    """Makes a prediction a step of a sequence whose state the server keeps.

    Steps run in the order in which they are sent, one at a time. A step that fails or is cancelled does not
    change the state.

    Attributes:
        id: the sequence's id, which no other caller of the model uses, such as a UUID: a sequence is its
            caller's that began it. Empty means the stream's own sequence, for items of `predict_stream` only.
        start: this is the first step; an earlier state is dropped.
        end: this is the last step; the state is dropped after its answer.
    """

    id: str = ""
    start: bool = False
    end: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise TypeError(f"the id of a sequence is a str, not {self.id!r}")


def sequence_of(said: Sequence | str) -> Sequence:
    """The sequence of a step: an id alone neither starts nor ends it.

    Raises:
        TypeError: it is neither a Sequence nor an id.
    """
    if isinstance(said, Sequence):
        return said
    if isinstance(said, str):
        return Sequence(said)
    raise TypeError(f"a sequence is a Sequence or the id of one, not {said!r}")


@dataclass(frozen=True, slots=True)
class StreamItem:
    """An item of `predict_stream` that has an id.

    Attributes:
        inputs: as for `predict`.
        id: returned with the prediction, or with the error.
        sequence: of this step, as for `predict`; None for no sequence.
    """

    inputs: Inputs
    id: str = ""
    sequence: Sequence | str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise TypeError(f"the id of an item is a str, not {self.id!r}")
        self.id.encode()  # a ValueError, if it cannot be sent


@dataclass(slots=True)
class Timing:
    """The timing of a prediction, measured by the server.

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

    Numbers and bools are views of the received bytes, without a copy, and are therefore read-only: call
    `.copy()` on an array to write into it. BYTES are object arrays of `str` if every element is valid UTF-8,
    else of `bytes`. BF16 is `ml_dtypes.bfloat16` if that package is installed, else float32, which changes no
    value.

    Attributes:
        model: the model that answered.
        version: the number of the version that answered, never a label.
        id: the request's id.
        outputs: the arrays by name.
        index: on a stream the position of the item in the iterable, from 0; None elsewhere.
    """

    __slots__ = ("id", "index", "model", "outputs", "said", "version")

    def __init__(  # noqa: PLR0913 - the parts of an answer
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
        self.said = timing  # bytes: the serialized PredictResponse, parsed only if it is used

    @property
    def timing(self) -> Timing:
        """The timing of the prediction."""
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
        shape: one entry per axis, outermost first: an int if the length is fixed, else the name of the
            open length, "?" if it has no name. None if the number of axes is open, too.
        optional: whether a request may omit this input; the server then generates it.
        row_axis: the axis along which its rows lie if requests run together.
        missing_text: of an input of texts, what a missing one is sent as; None if the model has none.
    """

    name: str
    datatype: str
    shape: tuple[int | str, ...] | None
    optional: bool = False
    row_axis: int = 0
    missing_text: str | None = None

    def __str__(self) -> str:
        axes = "..." if self.shape is None else ",".join(map(str, self.shape))
        return f"{self.datatype}[{axes}]"


@dataclass(frozen=True, slots=True)
class RunCost:
    """The expected time of a run: `base_seconds + rows * row_seconds`.

    Attributes:
        elements: applies to rows of up to this number of elements; 0 if all rows have the same number.
        base_seconds: the time of a run without its rows.
        row_seconds: the time of each row.
        spread: 5 % of runs take more than this many times the expected time.
        runs: the number of runs measured so far, without those at load.
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
        costs: the expected time of runs, for each size of rows.
        why: what this rests on, a sentence each: what the graph shows of its rows, and what was tried.
    """

    enabled: bool
    reason: str
    max_rows: int
    max_delay_seconds: float
    costs: tuple[RunCost, ...] = ()
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptState:
    """The state that the server keeps between the steps of a sequence.

    Attributes:
        state: the outputs that are inputs of the next step, output by input; requests must not send
            them or ask for them.
        idle_seconds: how long after its last step a sequence's state is kept.
        max_sequences: most sequences with a state.
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
        state_reason: why it is in that state, if there is a reason to tell.
        is_default: whether a request that names no version is answered by this one.
        labels: the labels that lead to this version.
        inputs: the model's inputs.
        outputs: the model's outputs.
        batching: whether requests are run together, and why or why not.
        metadata: the metadata in the model file.
        opsets: the versions of operator sets that the file uses, by domain.
        sha256: of the model file and its external data, in hexadecimal; "" while it is computed.
        size_bytes: the size of the model file, without external data.
        providers: the ONNX Runtime execution providers in use, in order of preference.
        loaded_at: when it became ready, in UTC; None if it never did.
        kept_state: the state that the server keeps between the steps of a sequence; None for other models.
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
