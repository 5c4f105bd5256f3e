"""From what a caller asks to the messages of the protocol, and back. Shared by both clients; no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC
from time import monotonic
from typing import NamedTuple, TypeAlias

from google.protobuf import duration_pb2

from penstock_client._errors import InvalidInput
from penstock_client._inputs import InputSpec, describe
from penstock_client._tensors import decode
from penstock_client._types import (
    BatchingInfo,
    Inputs,
    Item,
    KeptState,
    ModelInfo,
    Prediction,
    RunCost,
    TensorInfo,
    Timing,
    seconds_of,
    sequence_of,
)
from penstock_client._types import Sequence as Step
from penstock_client._wire import input_of
from penstock_proto.v1 import model_pb2, prediction_pb2, tensor_pb2

DEFAULT_TARGET = "127.0.0.1:8001"
"""Where a server listens that was told nothing else."""

COMPLETION_ORDER = ("penstock-order", "completion")
"""The metadata that asks a stream for its answers as they finish."""

BY_ID = ("penstock-sequences", "by-id")
"""The metadata of a stream that callers share: there, a step has to say of which sequence it is one."""

MAX_BYTES = 2**31 - 2**16
"""What protobuf can carry in one message, with some room for names and shapes."""

_REMEMBERED = 1024  # combinations of shapes
_UNLIMITED = {"grpc.max_send_message_length": -1, "grpc.max_receive_message_length": -1}

Key: TypeAlias = tuple[str, str]
"""A model's name, and a version number, label or "" for the default."""


def channel_options(options: Iterable[tuple[str, object]]) -> list[tuple[str, object]]:
    """The channel options: messages of any size, unless the caller says otherwise."""
    return list({**_UNLIMITED, **dict(options)}.items())


def seconds(timeout: float | None, default: float | None) -> float | None:
    """The timeout that holds for a call, in seconds; None for no limit.

    Args:
        timeout: the caller's, above 0; None for the default, `math.inf` for no limit.
        default: the client's.

    Raises:
        ValueError: the timeout is 0, negative or not a number.
    """
    chosen = default if timeout is None else timeout
    if chosen is None or chosen == math.inf:
        return None
    if not chosen > 0:
        raise ValueError(f"a timeout is a number of seconds above 0, not {chosen!r}")
    return chosen


class Deadline:
    """The moment by which several steps must be done together: `at` on the monotonic clock, or None."""

    __slots__ = ("at",)

    def __init__(self, timeout: float | None) -> None:
        self.at = None if timeout is None else monotonic() + timeout

    def remaining(self) -> float | None:
        """The seconds that are left, not below 0; None for no limit."""
        return None if self.at is None else max(0.0, self.at - monotonic())


NEVER = Deadline(None)
"""No limit."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Encoded inputs: (name, datatype number, shape, raw) each, their bytes, and what they are a step of."""

    tensors: list[tuple[str, int, tuple[int, ...], bytes]]
    size: int
    sequence: Step | None = None


class Batch(NamedTuple):
    """What the inputs of a request must have in common with those of others to be merged with them.

    Attributes:
        rows: how many rows this one has.
        most_rows: how many a merged request may have.
        inputs: for each input its name, its datatype's number and the lengths of its inner axes.
    """

    rows: int
    most_rows: int
    inputs: tuple[tuple[str, int, tuple[int, ...]], ...]


class Signature:
    """The inputs that a model takes, and how to encode them."""

    __slots__ = ("_batches", "_inputs", "_kept", "_most_rows", "_names")

    def __init__(self, model: model_pb2.Model) -> None:
        self._inputs = {each.name: InputSpec(_tensor_info(each)) for each in model.inputs}
        self._names = self._inputs.keys()
        self._kept = frozenset(model.kept_state.state)
        self._most_rows = model.batching.max_rows if model.batching.enabled else 0
        self._batches: dict[tuple[bytes, ...], Batch | None] = {}

    def write(self, inputs: Inputs) -> list[bytes]:
        """The inputs as they stand in a request: for each, what comes before its raw bytes, and these.

        Raises:
            InvalidInput: a name is missing or unknown, or a value does not fit.
        """
        try:
            fitting = inputs.keys() == self._names
        except AttributeError:
            raise InvalidInput(f"inputs are a dict by name, not {describe(inputs)}") from None
        if not fitting:
            self._check_names(inputs)
        written: list[bytes] = []
        specs, size = self._inputs, 0
        for name, value in inputs.items():
            head, raw = specs[name].write(value)
            written += (head, raw)
            size += len(raw)
        if size > MAX_BYTES:
            raise _too_large(size)
        return written

    def pack(self, item: Item) -> Packed:
        """Encodes an item of a stream: the inputs of one request, with or without its sequence.

        Raises:
            InvalidInput: a name is missing or unknown, or a value does not fit.
        """
        inputs, sequence = _parted(item)
        try:
            fitting = inputs.keys() == self._names
        except AttributeError:
            raise InvalidInput(f"inputs are a dict by name, not {describe(inputs)}") from None
        if not fitting:
            self._check_names(inputs)
        size, tensors = 0, []
        for name, value in inputs.items():
            spec = self._inputs[name]
            shape, raw = spec.encode(value)
            size += len(raw)
            tensors.append((name, spec.number, shape, raw))
        if size > MAX_BYTES:
            raise _too_large(size)
        return Packed(tensors, size, sequence)

    def batch(self, written: list[bytes]) -> Batch | None:
        """What inputs, as `write` gives them, share with those they may be merged with; None for never."""
        heads = tuple(written[::2])
        try:
            return self._batches[heads]
        except KeyError:
            found = self._find_batch(heads)
        if len(self._batches) >= _REMEMBERED:
            self._batches.clear()
        self._batches[heads] = found
        return found

    def _find_batch(self, heads: tuple[bytes, ...]) -> Batch | None:
        inputs = [input_of(head) for head in heads]
        lengths = {shape[:1] for _, _, shape in inputs}
        if len(lengths) != 1 or not 0 < sum(first := lengths.pop()) < self._most_rows or not first:
            return None
        fixed = tuple((name, number, shape[1:]) for name, number, shape in inputs)
        return Batch(first[0], self._most_rows, fixed)

    def _check_names(self, inputs: Inputs) -> None:
        specs = self._inputs
        unknown = [repr(name) for name in inputs if name not in specs]
        missing = [
            repr(name) for name, spec in specs.items() if name not in inputs and not spec.info.optional
        ]
        if not unknown and not missing:
            return
        said = [f"unknown: {', '.join(unknown)}"] if unknown else []
        said += [f"missing: {', '.join(missing)}"] if missing else []
        expected = ", ".join(
            f"{name} {spec.info}{' (optional)' if spec.info.optional else ''}" for name, spec in specs.items()
        )
        kept = ", ".join(name for name in inputs if name in self._kept)
        keeps = f"; the server keeps {kept}, which callers neither send nor get" if kept else ""
        raise InvalidInput(f"wrong inputs ({'; '.join(said)}); expected: {expected or 'none'}{keeps}")


def _parted(item: Item) -> tuple[Inputs, Step | None]:
    """The inputs of an item, and its sequence where it has one.

    Raises:
        InvalidInput: what stands beside the inputs is no sequence.
    """
    if not isinstance(item, tuple) or len(item) != 2:
        return item, None  # what is no dict is refused as inputs
    inputs, said = item
    try:
        return inputs, sequence_of(said)
    except TypeError as error:
        raise InvalidInput(str(error)) from None


def _too_large(size: int) -> InvalidInput:
    return InvalidInput(f"the inputs are {size} bytes; one request carries at most {MAX_BYTES}")


class Signatures:
    """The signatures known so far. Each step is one operation on a dict, so threads need no lock."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[Key, Signature] = {}

    def get(self, key: Key) -> Signature | None:
        """The signature, if it is known."""
        return self._known.get(key)

    def put(self, key: Key, model: model_pb2.Model) -> Signature:
        """Remembers what the server said, and returns it as a signature."""
        signature = self._known[key] = Signature(model)
        return signature

    def drop(self, key: Key, signature: Signature) -> None:
        """Forgets a signature that the server contradicted, unless there is a newer one already."""
        if self._known.get(key) is signature:
            self._known.pop(key, None)


class Ask:
    """All of a request but its inputs.

    Attributes:
        key: the model and the version asked for.
    """

    __slots__ = ("_id", "_outputs", "_priority", "_timeout", "key")

    def __init__(  # noqa: PLR0913 - the fields of a request
        self,
        model: str,
        version: str | int,
        outputs: Sequence[str] | None,
        priority: int,
        id: str = "",
        timeout: float | None = None,
    ) -> None:
        self.key: Key = (model, str(version))
        self._outputs = [outputs] if isinstance(outputs, str) else outputs
        self._priority = priority
        self._id = id
        self._timeout = None if timeout is None else _duration(timeout)

    def write(self, packed: Packed, request: prediction_pb2.PredictRequest) -> None:
        """Writes the whole request into an empty message."""
        request.model, request.version = self.key
        request.id = self._id
        request.priority = self._priority
        request.output_encoding = prediction_pb2.RAW
        if self._outputs is not None:
            request.outputs.extend(self._outputs)
        if self._timeout is not None:
            request.timeout.CopyFrom(self._timeout)
        if (step := packed.sequence) is not None:
            request.sequence.SetInParent()  # also where it has no field that is set
            request.sequence.id, request.sequence.start, request.sequence.end = step.id, step.start, step.end
        for name, datatype, shape, raw in packed.tensors:
            tensor = request.inputs[name]
            tensor.datatype = datatype  # type: ignore[assignment]  # the enum's number
            tensor.shape.extend(shape)
            tensor.raw = raw


def prediction(response: prediction_pb2.PredictResponse, index: int | None = None) -> Prediction:
    """The prediction that a response holds.

    Raises:
        PenstockError: UNKNOWN, when an output cannot be read.
    """
    # By name: the order of a protobuf map differs from process to process.
    outputs = {name: decode(name, response.outputs[name]) for name in sorted(response.outputs)}
    said = response.timing
    timing = Timing(seconds_of(said.queue), seconds_of(said.compute), said.batch_rows)
    return Prediction(response.model, response.version, response.id, outputs, timing, index)


def model_info(model: model_pb2.Model) -> ModelInfo:
    """What the server says of a model, without protobuf."""
    batching = model.batching
    return ModelInfo(
        name=model.name,
        version=model.version,
        state=model_pb2.ModelState.Name(model.state),
        state_reason=model.state_reason,
        is_default=model.is_default,
        labels=list(model.labels),
        inputs=[_tensor_info(each) for each in model.inputs],
        outputs=[_tensor_info(each) for each in model.outputs],
        batching=BatchingInfo(
            batching.enabled,
            batching.reason,
            batching.max_rows,
            seconds_of(batching.max_delay),
            tuple(
                RunCost(each.elements, each.base_seconds, each.row_seconds, each.spread, each.runs)
                for each in batching.costs
            ),
        ),
        metadata=dict(model.metadata),
        opsets=dict(model.opsets),
        sha256=model.sha256,
        size_bytes=model.size_bytes,
        providers=list(model.providers),
        loaded_at=model.loaded_at.ToDatetime(UTC) if model.HasField("loaded_at") else None,
        kept_state=_kept_state(model.kept_state) if model.HasField("kept_state") else None,
    )


def _kept_state(kept: model_pb2.KeptState) -> KeptState:
    return KeptState(dict(kept.state), seconds_of(kept.idle), kept.max_sequences)


def _tensor_info(spec: model_pb2.TensorSpec) -> TensorInfo:
    axes = tuple(axis.symbol if axis.HasField("symbol") else axis.size for axis in spec.shape)
    datatype = tensor_pb2.DataType.Name(spec.datatype)
    return TensorInfo(spec.name, datatype, None if spec.any_rank else axes, spec.optional)


def _duration(timeout: float) -> duration_pb2.Duration:
    # At least a nanosecond: 0 would mean no limit.
    whole, nanos = divmod(max(1, round(timeout * 1e9)), 10**9)
    return duration_pb2.Duration(seconds=whole, nanos=nanos)
