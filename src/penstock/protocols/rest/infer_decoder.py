"""Decodes an inference request of the Open Inference Protocol over HTTP: JSON, then perhaps binary data.

https://github.com/kserve/open-inference-protocol
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import override

from penstock.core.errors import InvalidRequest
from penstock.core.names import many, missing
from penstock.core.tensors import Array, DataType, TensorSpec
from penstock.models.model import Model
from penstock.protocols.codec import Contents, attached
from penstock.protocols.open_inference import parameters
from penstock.protocols.open_inference.classification import check_classes
from penstock.protocols.rest.decoder import HttpDecoded
from penstock.protocols.rest.errors import not_too_deep, parsed
from penstock.protocols.rest.values import NAMES, array_of, flattened
from penstock.protocols.tensors import expected_inputs, of_raw, shaped, wanted_outputs
from penstock.transport.http.call import HttpCall
from penstock_proto.inference import grpc_service_pb2 as pb

JSON_BYTES = "inference-header-content-length"
"""The header with the size of the JSON, if binary data follows it."""

BINARY_SIZE, BINARY, ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
INT64 = 2**63
LONGEST_NUMBER = 20  # digits
CHECKED = (DataType.BYTES, DataType.BOOL)
"""The datatypes whose raw values may be invalid."""
KNOWN_BYTES, MOST_KNOWN = 1024, 256
"""The longest JSON that is kept with what it says, and how many of them."""


@dataclass(slots=True)
class InferForm:
    """The form of an answer.

    Attributes:
        classes: the outputs of which only the largest values are wanted, and how many.
        binary: the outputs that are sent as binary data.
        json_bytes: the size of the JSON of the answer, once it is encoded, if binary data follows it.
    """

    classes: Mapping[str, int]
    binary: Collection[str]
    json_bytes: int | None = field(default=None, init=False)


class _Plan(NamedTuple):
    """What the JSON of a request says, if all inputs are binary data behind it.

    Attributes:
        contents: the content, without inputs.
        tensors: the inputs in the signature's order: each with its shape, and where its data is.
    """

    contents: Contents
    tensors: Sequence[tuple[TensorSpec, tuple[int, ...], int, int]]

    def filled(self, binary: bytes) -> Contents:
        """The content of a request with these inputs."""
        inputs = {}
        for spec, shape, start, end in self.tensors:
            # Not a view of all of it: some operators, such as sums, round differently by where in memory
            # their input begins, so equal requests would get slightly different answers.
            data = binary[start:end]
            if spec.datatype in CHECKED:
                inputs[spec.name] = shaped(of_raw(spec, data), shape, spec)
            else:  # any bytes will do, and there are as many as before
                inputs[spec.name] = np.ndarray(shape, spec.datatype.dtype, data)
        _, outputs, form, seconds, priority, sequence = self.contents
        return Contents(inputs, outputs, InferForm(form.classes, form.binary), seconds, priority, sequence)


class _Plans:
    """The plans of one model.

    Args:
        model: the model.

    Attributes:
        known: the plan of each JSON.
    """

    def __init__(self, model: Model) -> None:
        self.known: dict[bytes, _Plan] = {}


_known_json: dict[bytes, int] = {}
"""The size of the binary data behind JSON that some model has a plan for: a client sends the same JSON before
other data again and again."""


class DecodedInfer(HttpDecoded):
    """An inference request.

    Args:
        data: the body.
    """

    __slots__ = ("_binary", "_data", "_is_parsed", "_plan_key")

    def __init__(self, data: bytes) -> None:
        super().__init__({}, len(data))
        self._data = data
        self._binary = b""
        self._plan_key: bytes | None = None  # its JSON, if it is short and has all inputs behind it
        self._is_parsed = False  # not if its JSON is known, as long as no one needs more of it

    @override
    @not_too_deep
    def came_by(self, call: HttpCall) -> None:
        super().came_by(call)
        data = self._data
        said = call.headers.get(JSON_BYTES)
        if said is not None:
            if not said.isdecimal() or len(said) > LONGEST_NUMBER or int(said) > len(data):
                raise InvalidRequest(
                    f"header {JSON_BYTES} is {said[:100]!r}, expected the size of the JSON, "
                    f"at most {len(data)}"
                )
            data, self._binary = data[: int(said)], data[int(said) :]
            if len(data) <= KNOWN_BYTES:
                self._plan_key = data
                if _known_json.get(data) == len(self._binary):
                    return  # it is valid, and has no id
        self.body, self._is_parsed = _of_kind(parsed(data), dict, "the body"), True
        id = self.body.get("id", "")
        self.id = _of_kind(id, str, "id") or self.id

    @override
    @not_too_deep
    def contents(self, model: Model) -> Contents:
        key = self._plan_key
        if key is not None and not self._is_parsed:  # others may have taken its place among the known ones
            plan = attached(model, _Plans).known.get(key)
            if plan is not None:
                return plan.filled(self._binary)
            self.body = parsed(key)
        tensors: list[tuple[TensorSpec, tuple[int, ...], int, int]] = []
        contents = self._read(model, tensors)
        is_plain = len(tensors) == len(contents.inputs) and "id" not in self.body
        if key is not None and is_plain and model.sequence_state is None:
            _learn(model, key, len(self._binary), _Plan(contents._replace(inputs={}), tensors))
        return contents

    def _read(self, model: Model, tensors: list[tuple[TensorSpec, tuple[int, ...], int, int]]) -> Contents:
        """The content; adds the inputs that are binary data to `tensors`, see `_Plan`."""
        body, message = self.body, pb.ModelInferRequest()
        arrays = self._inputs(model, tensors)
        asked = _objects(body.get("outputs", []), "outputs")
        options = _of_kind(body.get("parameters", {}), dict, "parameters")
        names = [_name_of(each, "outputs") for each in asked]
        outputs: Sequence[str] = wanted_outputs(model, names) if names else model.output_names
        all_binary = _flag(options, ALL_BINARY, default=False)
        binary = set(outputs) if all_binary and not names else set()
        for name, each in zip(names, asked, strict=True):
            own = _of_kind(each.get("parameters", {}), dict, f"parameters of output {name}")
            if _flag(own, BINARY, default=all_binary):
                binary.add(name)
            _put(message.outputs.add(name=name).parameters, own)
        _put(message.parameters, options)
        priority, seconds = parameters.of_request(message)
        classes = parameters.classes_of(message)
        for name in classes:
            check_classes(name, model.signature.outputs[name].datatype)
        sequence = parameters.sequence_of(message) if model.sequence_state is not None else None
        return Contents(arrays, outputs, InferForm(classes, binary), seconds, priority, sequence)

    def _inputs(
        self, model: Model, binary: list[tuple[TensorSpec, tuple[int, ...], int, int]]
    ) -> dict[str, Array]:
        tensors = _objects(self.body.get("inputs", []), "inputs")
        specs, arrays, start = model.signature.inputs, {}, 0
        order = {name: index for index, name in enumerate(specs)}
        names = [_name_of(each, "inputs") for each in tensors]
        for name, tensor in zip(names, tensors, strict=True):
            spec = specs.get(name)
            if spec is None:
                raise InvalidRequest(f"there is no input {name}: {expected_inputs(model, names)}")
            if name in arrays:
                raise InvalidRequest(f"input {name} appears twice")
            before = start
            arrays[name], start = self._tensor(spec, tensor, start)
            if "data" not in tensor:
                binary.append((spec, arrays[name].shape, before, start))
        if start != len(self._binary):
            raise InvalidRequest(
                f"{many(len(self._binary) - start, 'byte')} of binary data belong to no input"
            )
        lacking = [name for name in specs if name not in arrays and name not in model.optional_inputs]
        if lacking:
            raise InvalidRequest(f"{missing(lacking)}: {expected_inputs(model, names)}")
        binary.sort(key=lambda each: order[each[0].name])
        return {name: arrays[name] for name in specs if name in arrays}

    def _tensor(self, spec: TensorSpec, tensor: Mapping[str, Any], start: int) -> tuple[Array, int]:
        """One input, and where the next one's binary data starts."""
        shape = _shape(spec, tensor)
        own = _of_kind(tensor.get("parameters", {}), dict, f"parameters of input {spec.name}")
        if parameters.SHARED_MEMORY in own:
            raise InvalidRequest(
                f"input {spec.name} is in shared memory, which this server does not read; send its values"
            )
        size = own.get(BINARY_SIZE)
        if size is None:
            values, _ = flattened(spec.name, _of_kind(tensor.get("data"), list, f"data of input {spec.name}"))
            return shaped(array_of(spec, values), shape, spec), start
        if "data" in tensor:
            raise InvalidRequest(f"input {spec.name} has both data and {BINARY_SIZE}; send one of them")
        left = len(self._binary) - start
        if type(size) is not int or not 0 <= size <= left:
            raise InvalidRequest(
                f"{BINARY_SIZE} of input {spec.name} is {str(size)[:40]}, but {many(left, 'byte')} of binary "
                f"data {'is' if left == 1 else 'are'} left"
            )
        end = start + size
        return shaped(of_raw(spec, self._binary[start:end]), shape, spec), end


def decode(data: bytes) -> DecodedInfer:
    """The request in a body; it is parsed once its call is known."""
    return DecodedInfer(data)


def _learn(model: Model, json: bytes, size: int, plan: _Plan) -> None:
    """Keeps a plan for later requests with the same JSON."""
    plans = attached(model, _Plans).known
    for known in (plans, _known_json):
        if len(known) >= MOST_KNOWN:
            known.clear()
    plans[json] = plan
    _known_json[json] = size


def _shape(spec: TensorSpec, tensor: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tensor.get("shape")
    if shape is None:
        raise InvalidRequest(f"input {spec.name} has no shape, expected {spec}")
    if not isinstance(shape, list) or any(type(each) is not int or not 0 <= each < INT64 for each in shape):
        raise InvalidRequest(f"input {spec.name} has shape {str(shape)[:100]}, expected {spec}")
    if not shape and spec.shape:  # the protocol has no way to leave the shape out
        raise InvalidRequest(f"input {spec.name} has shape [], expected {spec}")
    datatype = tensor.get("datatype", spec.datatype.label)
    if datatype != spec.datatype.label:
        raise InvalidRequest(f"input {spec.name} has datatype {str(datatype)[:40]}, expected {spec.datatype}")
    return tuple(shape)


def _objects(value: Any, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _of_kind(value, list, what)
    for index, each in enumerate(found):
        _of_kind(each, dict, f"{what}[{index}]")
    return found


def _of_kind(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise InvalidRequest(f"{what} is {NAMES[type(value)]}, expected {NAMES[kind]}")
    return value


def _name_of(tensor: Mapping[str, Any], what: str) -> str:
    name = tensor.get("name")
    if not isinstance(name, str):
        raise InvalidRequest(f"a tensor in {what} has no name")
    return name


def _flag(options: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"parameter {name} is {NAMES[type(value)]}, expected {NAMES[bool]}")
    return value


def _put(target: Any, options: Mapping[str, Any]) -> None:
    """Puts parameters of JSON into a message, whose rules are the same."""
    for name, value in options.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int) and -INT64 <= value < INT64:
            target[name].int64_param = value
        elif isinstance(value, int):
            target[name].uint64_param = value
        elif isinstance(value, float):
            target[name].double_param = value
        elif isinstance(value, str):
            target[name].string_param = value
        else:
            raise InvalidRequest(f"parameter {name} is {NAMES[type(value)]}, expected a single value")
