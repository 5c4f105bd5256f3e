"""Encodes requests and decodes answers, for both clients; no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from secrets import token_hex
from typing import NamedTuple, TypeAlias

from penstock_client._errors import InvalidInput, Unavailable
from penstock_client._frames import columns_of, loose
from penstock_client._inputs import InputSpec
from penstock_client._models import inputs_of
from penstock_client._quick import Plan
from penstock_client._tensors import decode
from penstock_client._types import (
    Inputs,
    Item,
    Prediction,
    StreamItem,
    Timing,
    seconds_of,
    sequence_of,
)
from penstock_client._types import Sequence as Step
from penstock_client._wire import extras, input_of, step
from penstock_proto.v1 import model_pb2, prediction_pb2

DEFAULT_TARGET = "127.0.0.1:8001"
"""The address of a server with default settings."""

COMPLETION_ORDER = ("penstock-order", "completion")
"""The metadata of a stream whose answers come as they are ready."""

CALLER_KEY = "penstock-caller"
"""The metadata that names the caller to whom a sequence belongs, whatever the connection."""

BY_ID = ("penstock-sequences", "by-id")
"""The metadata of a shared stream: on it, every step must name its sequence."""

MAX_BYTES = 2**31 - 2**16
"""Most bytes of inputs: protobuf's limit on a message, less some bytes for names and shapes."""

_REMEMBERED = 1024  # combinations of shapes, or of types
_LEAST_PLANNED = 3
"""With fewer inputs, encoding them one by one is as quick."""
_HOST_AND_PORT = re.compile(r"(?:\[[^\]]*\]|[^:/\[\]]*)(?::(?P<port>[0-9]*))?")
_LARGEST_PORT = 65_535
_UNLIMITED = {"grpc.max_send_message_length": -1, "grpc.max_receive_message_length": -1}
_RECONNECTING = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 150}
"""gRPC's own delays grow to two minutes: a server would be back for long before it is noticed."""

Key: TypeAlias = tuple[str, str]
"""A model's name, and a version number, label or "" for the default."""


def caller_of(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[tuple[str, str], ...]:
    """The metadata that names this client as the owner of its sequences; empty if `metadata` names it."""
    named = any(key == CALLER_KEY for key, _ in metadata)
    return () if named else ((CALLER_KEY, token_hex(8)),)


def channel_options(target: str, options: Iterable[tuple[str, object]]) -> list[tuple[str, object]]:
    """The default channel options.

    No limit on the size of messages, quick attempts to connect again, and no proxy for this machine.
    """
    direct = {"grpc.enable_http_proxy": 0} if _is_loopback(target) else {}
    return list({**_UNLIMITED, **_RECONNECTING, **direct, **dict(options)}.items())


def checked_target(target: str, *, is_secure: bool = False) -> str:
    """A target, which is not a URL, and has a port.

    Args:
        target: as the caller gave it.
        is_secure: whether there are credentials: then gRPC takes port 443 if the target has none.

    Raises:
        ValueError: it is a URL, it has no port, or its port is above 65535, which gRPC takes modulo 65536.
        TypeError: it is not a text.
    """
    if not isinstance(target, str):
        raise TypeError(f'a target is a text such as "{DEFAULT_TARGET}", not {target!r}')
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() in ("http", "https", "grpc", "grpcs", "tcp"):
        secure = "; for TLS give credentials" if scheme.lower() in ("https", "grpcs") else ""
        raise ValueError(f'a target is "host:port", not {target!r}: write "{rest.rstrip("/")}"{secure}')
    plain = _HOST_AND_PORT.fullmatch(target)  # None for gRPC's other forms, such as dns:///models:8001
    if plain is not None and not plain["port"] and not is_secure:
        default = DEFAULT_TARGET.partition(":")[2]
        raise ValueError(f'a target is "host:port", not {target!r}: it has no port, such as {default}')
    if plain is not None and int(plain["port"] or 0) > _LARGEST_PORT:
        raise ValueError(f'a target is "host:port", not {target!r}: its port is above {_LARGEST_PORT}')
    return target
    host, _, port = target.rpartition(":")
    if not port.isdecimal() or (":" in host and not host.startswith("[")):  # without brackets, it is IPv6
        if not is_secure and (not host or ":" in host or not port or target.endswith("]")):
            default = DEFAULT_TARGET.rpartition(":")[2]
            raise ValueError(f'a target is "host:port", not {target!r}: it has no port, by default {default}')
    elif int(port) > _LARGEST_PORT:
        raise ValueError(f'a target is "host:port", not {target!r}: its port is above {_LARGEST_PORT}')
    return target


def _is_loopback(target: str) -> bool:
    """Whether a target is this machine: a proxy cannot reach it, but would connect to its own machine."""
    name = target.lower()
    for scheme in ("dns:///", "dns:", "ipv4:", "ipv6:"):
        name = name.removeprefix(scheme)
    if name.startswith("["):
        host = name[1:].partition("]")[0]
    else:
        host = name if name.count(":") > 1 else name.partition(":")[0]
    return host in ("localhost", "::1") or host.startswith("127.")


class Batch(NamedTuple):
    """The properties of a request's inputs that must be equal for merging with other requests.

    Attributes:
        rows: the number of rows of this request.
        most_rows: the most rows of a merged request.
        inputs: for each input its name, its datatype's number and the lengths of its inner axes.
    """

    rows: int
    most_rows: int
    inputs: tuple[tuple[str, int, tuple[int, ...]], ...]


class Signature:
    """The inputs of a model, and how to encode them."""

    __slots__ = ("_batches", "_inputs", "_kept", "_most_rows", "_names", "_optional", "_planned", "_plans")

    def __init__(self, model: model_pb2.Model) -> None:
        self._inputs = {each.name: InputSpec(each) for each in inputs_of(model)}
        self._names = self._inputs.keys()
        self._optional = {name for name, spec in self._inputs.items() if spec.info.optional}
        self._kept = frozenset(model.kept_state.state)
        # Requests are merged and answers split along the first axis only.
        rows_first = not any(each.row_axis for each in (*model.inputs, *model.outputs))
        self._most_rows = model.batching.max_rows if model.batching.enabled and rows_first else 0
        self._batches: dict[tuple[bytes, ...], Batch | None] = {}
        self._planned = len(self._inputs) >= _LEAST_PLANNED
        self._plans: dict[tuple[tuple[str, ...], tuple[type, ...]], Plan | None] = {}

    def write(self, inputs: Inputs, apart: bool = False) -> list[bytes]:
        """The encoded inputs of a request, in parts.

        Args:
            inputs: by name; or a table, see `columns_of`.
            apart: whether each input is two parts: what comes before its raw bytes, and these bytes.

        Raises:
            InvalidInput: a name is missing or unknown, or a value does not fit.
        """
        if self._planned and not apart and type(inputs) is dict:
            try:
                plan = self._plans[tuple(inputs), tuple(map(type, inputs.values()))]
            except KeyError:
                plan = self._add_plan(inputs)
            if plan is not None:
                written = plan.write(inputs)
                if written is not None:
                    _check_size(sum(map(len, written)))
                    return written
        if type(inputs) is not dict:
            inputs = columns_of(inputs, self._names, self._optional)
        if inputs.keys() != self._names:
            inputs = self._checked(inputs)
        written = []
        specs, size = self._inputs, 0
        for name, value in inputs.items():
            head, raw = specs[name].write(value)
            written += (head, raw)
            size += len(raw)
        if size > MAX_BYTES:  # as `_check_size`, without a call
            _check_size(size)
        return written

    def write_apart(self, inputs: Inputs) -> list[bytes]:
        """As `write`, with two parts for each input."""
        return self.write(inputs, apart=True)

    def _add_plan(self, inputs: Inputs) -> Plan | None:
        names, types = tuple(inputs), tuple(map(type, inputs.values()))
        plan = None
        if inputs.keys() == self._names:
            specs = [self._inputs[name] for name in names]
            with suppress(ValueError):
                plan = Plan([(each.info.name, each.number, each.one) for each in specs], types)
        if len(self._plans) >= _REMEMBERED:
            self._plans.clear()
        self._plans[names, types] = plan
        return plan

    def write_item(self, item: Item) -> list[bytes]:
        """An encoded item of a stream: as `write`, and its sequence and its id if it has them.

        Raises:
            InvalidInput: a name is missing or unknown, a value does not fit, or the second value
                of the pair is not a sequence.
        """
        inputs, sequence, id = _parted(item)
        return _with_extras(self.write(inputs), sequence, id)

    def write_loose_item(self, item: Item) -> list[bytes]:
        """As `write_item`; inputs that the model does not take are left out."""
        inputs, sequence, id = _parted(item)
        return _with_extras(self.write(loose(inputs, "ignore")), sequence, id)

    def batch(self, written: list[bytes]) -> Batch | None:
        """The merge properties of inputs from `write_apart`; None if they are never merged."""
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
        if any(self._is_one_for_all(name) for name, _, _ in inputs):
            return None
        lengths = {shape[:1] for _, _, shape in inputs}
        if len(lengths) != 1 or not 0 < sum(first := lengths.pop()) < self._most_rows or not first:
            return None
        fixed = tuple((name, number, shape[1:]) for name, number, shape in inputs)
        return Batch(first[0], self._most_rows, fixed)

    def _is_one_for_all(self, name: str) -> bool:
        """Whether an input has one value for all rows of a request, as those with a default value have."""
        shape = self._inputs[name].info.shape
        return isinstance(shape[0], int) if shape else False

    def _checked(self, inputs: Inputs) -> Inputs:
        """The inputs, whose names are not just those of the model, with vectors put together from columns.

        Raises:
            InvalidInput: a name is missing or unknown.
        """
        inputs = columns_of(inputs, self._names, self._optional)
        specs = self._inputs
        unknown = [repr(name) for name in inputs if name not in specs]
        missing = [
            repr(name) for name, spec in specs.items() if name not in inputs and not spec.info.optional
        ]
        if not unknown and not missing:
            return inputs
        said = [f"unknown: {', '.join(unknown)}"] if unknown else []
        said += [f"missing: {', '.join(missing)}"] if missing else []
        expected = ", ".join(
            f"{name} {spec.info}{' (optional)' if spec.info.optional else ''}" for name, spec in specs.items()
        )
        kept = ", ".join(name for name in inputs if name in self._kept)
        keeps = f"; the server keeps {kept}; requests must not send it or ask for it" if kept else ""
        hint = "" if missing or kept else '; extra="ignore" leaves out what the model does not take'
        raise InvalidInput(f"wrong inputs ({'; '.join(said)}); expected: {expected or 'none'}{keeps}{hint}")


def _with_extras(written: list[bytes], sequence: Step | None, id: str) -> list[bytes]:
    if sequence is not None:
        written.append(step(sequence))
    if id:
        written.append(extras(id, None, None))
    return written


def _parted(item: Item) -> tuple[Inputs, Step | None, str]:
    """The inputs of an item, its sequence if it has one, and its id.

    Raises:
        InvalidInput: the second value of the pair, or the item's `sequence`, is not a sequence.
    """
    id, said = "", None
    if isinstance(item, StreamItem):
        inputs, said, id = item.inputs, item.sequence, item.id
        if said is None:
            return inputs, None, id
    elif isinstance(item, tuple) and len(item) == 2:
        inputs, said = item
    else:
        return item, None, id  # a value that is not a dict is rejected later, as inputs
    try:
        return inputs, sequence_of(said), id
    except TypeError as error:
        raise InvalidInput(str(error)) from None


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise InvalidInput(f"the inputs are {size} bytes; one request carries at most {MAX_BYTES}")


class Signatures:
    """A cache of signatures. Each method is one operation on a dict, so threads need no lock."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[Key, Signature] = {}

    def get(self, key: Key) -> Signature | None:
        """The signature, if it is known."""
        return self._known.get(key)

    def put(self, key: Key, model: model_pb2.Model) -> Signature:
        """Stores the server's description of a model, and returns it as a signature.

        Raises:
            Unavailable: the server could not load the model.
        """
        if model.state == model_pb2.FAILED:
            raise Unavailable(f"model {model.name} version {model.version} failed: {model.state_reason}")
        signature = self._known[key] = Signature(model)
        return signature

    def drop(self, key: Key, signature: Signature) -> None:
        """Drops a signature that the server contradicted, unless there is already a newer one."""
        if self._known.get(key) is signature:
            self._known.pop(key, None)


def prediction(response: prediction_pb2.PredictResponse, index: int | None = None) -> Prediction:
    """The prediction in a response.

    Raises:
        PenstockError: UNKNOWN, when an output cannot be read.
    """
    # By name: the order of a protobuf map differs from process to process.
    outputs = {name: decode(name, response.outputs[name]) for name in sorted(response.outputs)}
    said = response.timing
    timing = Timing(seconds_of(said.queue), seconds_of(said.compute), said.batch_rows)
    return Prediction(response.model, response.version, response.id, outputs, timing, index)
