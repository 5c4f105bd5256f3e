"""Describes the plain REST service as OpenAPI 3.1, from the signatures of the models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
import orjson

from penstock import __version__
from penstock.core.tensors import Array, DataType, Kind, TensorSpec
from penstock.models.model import Model
from penstock.protocols.rest.classifier import PREDICTION, PROBABILITY, Classifier
from penstock.protocols.rest.decoder import INT32, OUTPUTS
from penstock.protocols.rest.forms import Inputs
from penstock.protocols.rest.values import NOT_FINITE, dumped, plain
from penstock.transport.http.lines import EVENTS, NDJSON
from penstock.transport.http.status import JSON, PROBLEM

Schema: TypeAlias = dict[str, Any]

MOST_EXAMPLE_VALUES = 256
"""An example with more values than this is left out."""

HEADERS: Mapping[str, tuple[str, Schema]] = {
    "Penstock-Timeout": (
        "Seconds within which the answer must come.",
        {"type": "number", "exclusiveMinimum": 0},
    ),
    "Penstock-Priority": (
        "Above 0 runs before other requests, below 0 after them.",
        {"type": "integer", "minimum": -INT32, "maximum": INT32 - 1},
    ),
}
PREDICT_HEADERS = {**HEADERS, "X-Request-Id": ("Comes back with the answer.", {"type": "string"})}
STATE_HEADERS: Mapping[str, tuple[str, Schema]] = {
    "Penstock-Sequence-Id": ("The sequence that the request is a step of.", {"type": "string"}),
    "Penstock-Sequence-Start": ("Whether this is its first step.", {"type": "boolean"}),
    "Penstock-Sequence-End": ("Whether this is its last step.", {"type": "boolean"}),
    "Penstock-Caller": (
        "A random name of the caller's own: its sequences are then its own on all of its connections.",
        {"type": "string"},
    ),
    "Penstock-Sequences": (
        "`shared`: all callers that send this share the sequences that they begin.",
        {"enum": ["shared"]},
    ),
}
OUTPUTS_QUERY: Schema = {
    "name": OUTPUTS,
    "in": "query",
    "description": "The outputs wanted, separated by commas.",
    "style": "form",
    "explode": False,
}

PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was received, and what was expected."},
        "code": {"type": "string", "description": "The status of gRPC."},
        "retry_after_seconds": {"type": "number"},
        "line": {"type": "integer", "description": "Of a stream: the number of the line, from 1."},
    },
}
STATUSES: Mapping[int, str] = {
    400: "The request does not fit the model, or is malformed.",
    404: "There is no such model or version any more.",
    405: "Another method is expected.",
    408: "The body did not come in time.",
    409: "A step of a sequence without a state.",
    413: "The body is too large.",
    415: "The body is compressed in another way than gzip and deflate.",
    429: "A queue or another limit is full.",
    431: "The headers are too large.",
    500: "The model failed.",
    503: "The server or the model is stopping or not ready.",
    504: "The deadline passed, or could not be met.",
}
HEALTH_STATUSES = (400, 405, 408, 413, 415, 429, 431, 500, 503, 504)
RETRIED = (429, 503)


def failures(statuses: Iterable[int]) -> Schema:
    """The answers with errors (RFC 9457), by the status."""
    content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: Schema = {}
    for each in statuses:
        answer: Schema = {"description": STATUSES[each], "content": content}
        if each in RETRIED:
            whole = {"type": "integer", "minimum": 1}
            words = "After how many seconds trying again may help."
            answer["headers"] = {"Retry-After": {"description": words, "required": True, "schema": whole}}
        found[str(each)] = answer
    return found


def document(models: Sequence[Model]) -> bytes:
    """The description as JSON.

    Args:
        models: what is served.
    """
    paths: dict[str, Any] = {"/health": {"get": _health()}}
    schemas: dict[str, Schema] = {"Problem": PROBLEM_SCHEMA}
    for model in models:
        described = _Described(model)
        name = quote(model.name, safe="")
        schemas |= described.schemas()
        path = f"/predict/{name}/versions/{model.version}"
        paths[path], paths[f"{path}/stream"] = {"post": described.predict()}, {"post": described.stream()}
        if model.is_default:
            path = f"/predict/{name}"
            paths[path] = {"post": described.predict("default")}
            paths[f"{path}/stream"] = {"post": described.stream("default")}
    return dumped(
        {
            "openapi": "3.1.0",
            "info": {"title": "Penstock", "version": __version__, "summary": "Predictions of ONNX models."},
            "paths": paths,
            "components": {"schemas": schemas},
        }
    )


def _health() -> Schema:
    schema = {
        "type": "object",
        "required": ["status", "ready"],
        "properties": {"status": {"type": "string"}, "ready": {"type": "boolean"}},
    }
    answer = {"content": {JSON: {"schema": schema}}}
    return {
        "operationId": "health",
        "summary": "Whether the server accepts requests.",
        "responses": {
            "200": {"description": "It does.", **answer},
            **failures(HEALTH_STATUSES),
            "503": {"description": "It does not.", **answer},
        },
    }


class _Described:
    """One version of a model.

    Args:
        model: the model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._key = f"{''.join(each if each.isalnum() else '_' for each in model.name)}.{model.version}"
        self._whole = Inputs(model).whole
        self._classifier = Classifier(model)
        self._needed = [name for name in model.signature.inputs if name not in model.optional_inputs]

    def schemas(self) -> dict[str, Schema]:
        """The schemas of a record and of its answer, by name."""
        inputs = self._model.signature.inputs
        fields = {name: self._field(spec) for name, spec in inputs.items()}
        outputs = {name: _row(spec, is_sent=False) for name, spec in self._model.signature.outputs.items()}
        if self._classifier.label:
            label = self._model.signature.outputs[self._classifier.label].datatype
            outputs[PREDICTION] = {**_any(_values(label)), "description": "The label."}
            rows = self._model.signature.outputs[self._classifier.probabilities].datatype
            outputs[PROBABILITY] = {**_any(_values(rows)), "description": "Its probability."}
        record: Schema = {"type": "object", "properties": fields, "required": self._needed}
        record["additionalProperties"] = False
        example = self._example()
        if example is not None:
            record["examples"] = [example]
        return {
            f"{self._key}.Record": record,
            f"{self._key}.Answer": {"type": "object", "properties": outputs},
        }

    def predict(self, of: str = "") -> Schema:
        """The operation that answers requests."""
        record, answer = self._reference("Record"), self._reference("Answer")
        inputs = self._model.signature.inputs
        columns = {
            "type": "object",
            "properties": {name: _column(spec) for name, spec in inputs.items()},
            "required": self._needed,
            "additionalProperties": False,
        }
        instance = {"anyOf": [record, *map(self._field, inputs.values())]} if len(inputs) == 1 else record
        body = [
            record,
            _object({"instances": {"type": "array", "items": instance, **self._least()}}),
            _object({"inputs": columns}),
        ]
        answers = [
            answer,
            _object({"predictions": {"type": "array", "items": answer}}),
            {"type": "object", "required": ["outputs"], "properties": {"outputs": {"type": "object"}}},
        ]
        operation = self._operation("predict", of, "Predict one record, many, or columns.")
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": {"anyOf": body}}}}
        good = {"description": "The prediction.", "content": {JSON: {"schema": {"anyOf": answers}}}}
        operation["responses"] = {"200": good, **failures(STATUSES)}
        return operation

    def stream(self, of: str = "") -> Schema:
        """The operation that streams."""
        operation = self._operation("stream", of, "Predict a record on each line; the answers are lines.")
        lines = {"schema": {"type": "string"}}
        operation["requestBody"] = {"content": {NDJSON: lines}}
        good = {
            "description": "An answer or an error on each line.",
            "content": {NDJSON: lines, EVENTS: lines},
        }
        operation["responses"] = {"200": good, **failures(STATUSES)}
        return operation

    def _operation(self, what: str, of: str, summary: str) -> Schema:
        headers = HEADERS if what == "stream" else PREDICT_HEADERS
        if self._model.sequence_state and what == "predict":
            headers = {**headers, **STATE_HEADERS}
        parameters = [
            {"name": name, "in": "header", "description": words, "schema": schema}
            for name, (words, schema) in headers.items()
        ]
        names = {"type": "array", "items": {"enum": [*self._model.signature.outputs]}, "minItems": 1}
        parameters.append({**OUTPUTS_QUERY, "schema": names})
        name = ".".join(filter(None, (what, self._key, of)))
        return {"operationId": name, "summary": summary, "tags": [self._model.name], "parameters": parameters}

    def _least(self) -> Schema:
        """How many records there must be: none do not say what is one for all, or how long a row is."""
        specs = self._model.signature.inputs.values()
        needs = any(
            each.name in self._whole or any(isinstance(n, str) for n in _inner(each)) for each in specs
        )
        return {"minItems": 1} if needs else {}

    def _reference(self, what: str) -> Schema:
        return {"$ref": f"#/components/schemas/{self._key}.{what}"}

    def _field(self, spec: TensorSpec) -> Schema:
        schema = (_tensor if spec.name in self._whole else _row)(spec, is_sent=True)
        return {**schema, "description": str(spec)}

    def _example(self) -> Schema | None:
        model = self._model
        wanted = [name for name in model.signature.inputs if name in model.example]
        if not wanted or sum(model.example[name].size for name in wanted) > MOST_EXAMPLE_VALUES:
            return None
        found = {}
        for name in wanted:
            spec, array = model.signature.inputs[name], model.example[name]
            found[name] = in_record(spec, array, name in self._whole)
            if found[name] is None:
                return None
        return found


def in_record(spec: TensorSpec, array: Array, is_whole: bool) -> Any:
    """What a record has for an input.

    Args:
        spec: the input.
        array: its tensor, of which the first row is taken.
        is_whole: whether the input has no rows.

    Returns:
        A value, or lists of lists of values; None if the tensor has no row.
    """
    if not is_whole:
        if not array.shape[spec.row_axis]:
            return None
        array = np.take(array, 0, axis=spec.row_axis)
    values = orjson.loads(dumped({"values": plain(spec.datatype, array)}))["values"]
    return values[0] if array.shape == (1,) else values


def _object(properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _values(datatype: DataType, is_sent: bool = False, may_be_null: bool = False) -> list[Schema]:
    """The kinds of JSON values that an element has in answers, or may have where it is sent."""
    if datatype.kind is Kind.BYTES:
        return [{"type": ["string", "null"] if may_be_null else "string"}]
    if datatype.kind is Kind.BOOL:
        return [{"type": "boolean"}]
    if datatype.kind in (Kind.INT, Kind.UINT):
        bounds = np.iinfo(datatype.dtype)
        whole = {"type": "integer", "minimum": int(bounds.min), "maximum": int(bounds.max)}
        return [whole, {"type": "boolean"}] if is_sent else [whole]
    number: Schema = {"type": "number"}
    if datatype in (DataType.FP16, DataType.FP32):
        form = np.finfo(datatype.dtype)
        beyond = float(form.max) + 2.0 ** (int(form.maxexp) - 2 - int(form.nmant))  # is rounded to infinity
        number |= {"exclusiveMinimum": -beyond, "exclusiveMaximum": beyond}
    found: list[Schema] = [number, {"enum": list(NOT_FINITE)}]
    return [*found, {"type": ["boolean", "null"]}] if is_sent else found


def _elements(spec: TensorSpec, is_sent: bool) -> list[Schema]:
    return _values(spec.datatype, is_sent, is_sent and spec.missing_text is not None)


def _any(schemas: Sequence[Schema]) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def _nested(spec: TensorSpec, axes: Sequence[int | str], is_sent: bool) -> Schema:
    schema = _any(_elements(spec, is_sent))
    for inner, length in enumerate(reversed(axes)):
        schema = {"type": "array", "items": schema}
        if isinstance(length, int):
            schema |= {"minItems": length, "maxItems": length}
        elif inner:  # without one, the lengths of the lists in it are unknown
            schema["minItems"] = 1
    return schema


def _tensor(spec: TensorSpec, is_sent: bool) -> Schema:
    return {} if spec.shape is None else _nested(spec, spec.shape, is_sent)


def _column(spec: TensorSpec) -> Schema:
    """A whole tensor; one list of its values may leave the shape open.

    Where a list must have 3, 6, 9, ... values, no schema can say so, and it is left out.
    """
    schema, axes = _tensor(spec, is_sent=True), spec.shape or ()
    lengths = [length for length in axes if isinstance(length, int)]
    if len(axes) > 1 and len(axes) - len(lengths) == 1 and set(lengths) == {1}:
        schema = {"anyOf": [schema, {**_nested(spec, ("values",), is_sent=True), "minItems": 1}]}
    return {**schema, "description": str(spec)}


def _inner(spec: TensorSpec) -> tuple[int | str, ...]:
    """The axes of a row."""
    shape = spec.shape or ()
    return shape[: spec.row_axis] + shape[spec.row_axis + 1 :]


def _row(spec: TensorSpec, is_sent: bool) -> Schema:
    """A tensor without its rows; a single value needs no list around it."""
    if not spec.shape:
        return _tensor(spec, is_sent)
    axes = _inner(spec)
    schema = _nested(spec, axes, is_sent)
    # An open axis has the length 1 then; in answers, only what is declared is certain.
    lengths = {each for each in axes if isinstance(each, int) or not is_sent}
    return _any([*_elements(spec, is_sent), schema]) if axes and lengths <= {1} else schema
