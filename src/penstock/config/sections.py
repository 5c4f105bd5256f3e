"""What there is to set, section by section: types, units, defaults and bounds."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

INT32_MAX = 2**31 - 1


def _setting(default: Any, description: str, unit: str = "", **limits: Any) -> Any:
    """A field with its description and unit, and bounds such as `ge=1`. Floats are always finite."""
    if isinstance(default, float):
        limits["allow_inf_nan"] = False
    return Field(default=default, description=description, json_schema_extra={"unit": unit}, **limits)


def _inherited(section: type[BaseModel], name: str) -> Any:
    """A field that replaces the one of the same name in `section` for one model; None inherits it."""
    field = section.model_fields[name]
    text = f"Overrides `{section.__name__.removesuffix('Config').lower()}.{name}` for this model."
    return Field(default=None, description=text, json_schema_extra=field.json_schema_extra)


def _split(value: object) -> object:
    """Text such as `a, b` or `["a", "b"]`, as the environment and flags give lists, becomes a list."""
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        return json.loads(value)
    return tuple(part.strip() for part in value.split(",") if part.strip())


NonEmpty = Annotated[str, Field(min_length=1)]
# NoDecode: pydantic-settings would otherwise take only JSON from the environment.
Names = Annotated[tuple[NonEmpty, ...], NoDecode, BeforeValidator(_split), Field(min_length=1)]
# Strict: true is not version 1, and neither is "1".
VersionNumber = Annotated[int, Field(gt=0, strict=True)]


class Section(BaseModel):
    """The base of all sections: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: object, info: ValidationInfo) -> object:
        """Python takes True for 1, so that `port = true` would be port 1."""
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and "bool" not in str(field.annotation):
            raise ValueError("should not be true or false")
        return value


class ServerConfig(Section):
    """Addresses, the transport, and the bounds that protect the server."""

    host: NonEmpty = _setting("127.0.0.1", "Address to listen on, for gRPC and operations alike.")
    port: int = _setting(8001, "Port of gRPC; 0 takes a free one and says which.", ge=0, le=65535)
    ops_port: int = _setting(
        8002, "Port of operations (HTTP); 0 takes a free one and says which.", ge=0, le=65535
    )
    drain_seconds: float = _setting(
        20.0, "Longest time that stopping waits for accepted work to be answered.", "seconds", ge=0
    )
    transport: Literal["auto", "reactor", "portable"] = _setting(
        "auto",
        "How gRPC is served: `reactor` is the fast road, `portable` uses only grpcio's public API, "
        "`auto` takes the reactor where its self-test passes.",
    )
    processes: int = _setting(
        1,
        "Processes that serve behind the one port, each with its share of the cores; bounds such as "
        "`max_calls` hold for each. More than one needs Linux.",
        "processes",
        ge=1,
        le=1024,
    )
    connection_seconds: float = _setting(
        0.0,
        "How long a connection is kept before its client is told to make a new one, while the calls on the "
        "old one go on. 0 means for ever, and with several processes 30: so they all get their share of the "
        "connections, and can be restarted one by one.",
        "seconds",
        ge=0,
        le=1_000_000,
    )
    max_message_bytes: int = _setting(
        INT32_MAX,
        "Largest message that is accepted. The default, the most that protobuf reads, is no limit to gRPC; "
        "any lower one costs every call about 1 µs.",
        "bytes",
        gt=0,
        le=INT32_MAX,
    )
    max_calls: int = _setting(10_000, "Most calls in flight; further ones are refused.", "calls", ge=1)
    max_stream_requests: int = _setting(
        1024,
        "Most requests in flight on one stream; above that, or where 64 MiB of answers wait for its client, "
        "reading pauses.",
        "requests",
        ge=1,
    )
    total_queue_rows: int = _setting(
        65_536, "Most rows waiting before all models together; requests beyond are refused.", "rows", ge=1
    )
    total_queue_bytes: int = _setting(
        2**31, "Most bytes of messages waiting before all models together.", "bytes", ge=1
    )
    offload_bytes: int = _setting(
        262_144, "Messages larger than this are decoded off the polling thread.", "bytes", ge=0
    )
    triton_status_codes: bool = _setting(
        False,
        "Answers calls of the Open Inference Protocol as Triton does where a queue is full or a deadline has "
        "passed: with UNAVAILABLE, which retry policies written for Triton expect.",
    )
    workers: int = _setting(4, "Threads for large messages, and as many for operator calls.", "threads", ge=1)


class BatchingConfig(Section):
    """How requests of one model are queued and run together; the defaults for all models."""

    max_rows: int = _setting(
        0,
        "Most rows run at once; a larger single request runs alone. 0 chooses 32 to 256 by what a run costs.",
        "rows",
        ge=0,
    )
    max_delay_seconds: float = _setting(
        0.0,
        "How long a request may be held back where that fills its batch; 0 never holds one back.",
        "seconds",
        ge=0,
    )
    queue_rows: int = _setting(4096, "Most rows waiting; requests beyond are refused.", "rows", ge=1)
    queue_bytes: int = _setting(
        2**30,
        "Most bytes of messages waiting; requests beyond are refused, but not a single one.",
        "bytes",
        ge=1,
    )


class RuntimeConfig(Section):
    """How ONNX Runtime runs models; the defaults for all models."""

    intra_op_threads: int = _setting(
        0, "Threads inside one operator; 0 shares the cores out among the runs in parallel.", "threads", ge=0
    )
    inter_op_threads: int = _setting(
        1, "Operators of one run that may work at the same time.", "threads", ge=1
    )
    optimization: Literal["disable", "basic", "extended", "all"] = _setting(
        "all", "How far ONNX Runtime rewrites the graph at load."
    )
    providers: Names = _setting(
        ("CPUExecutionProvider",), "Execution providers, in order of preference; none is added silently."
    )
    arena: bool = _setting(True, "Keep freed memory for the next run: faster, and larger in memory.")
    spinning: bool = _setting(
        False, "Let idle ONNX Runtime threads spin: quicker on cores of their own, costly on shared ones."
    )


class RunnersConfig(Section):
    """Who runs the batches: the polling thread the short ones, runner threads the others."""

    threads: int = _setting(0, "Runner threads; 0 means one per core.", "threads", ge=0)
    inline_below_seconds: float = _setting(
        0.001,
        "Runs expected to be shorter than this are run by the polling thread; 0 never does.",
        "seconds",
        ge=0,
    )
    hung_seconds: float = _setting(
        60.0,
        "A run that goes on for longer is said to hang: until it ends, its model is "
        "not ready; 0 never says so.",
        "seconds",
        ge=0,
    )


class BreakerConfig(Section):
    """When a model that fails on whatever it is given is left alone for a while."""

    failures: int = _setting(
        20,
        "Batches that fail to the last request, with no good run between, after which the model is tried on "
        "input that it could run when it was loaded: where it fails on that, too, requests are refused; "
        "0 never refuses any.",
        "batches",
        ge=0,
    )
    open_seconds: float = _setting(
        1.0,
        "How long requests are refused before one is let through; twice as long after each further failure, "
        "up to 60 seconds.",
        "seconds",
        gt=0,
        le=60,
    )


class LogConfig(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = _setting("info", "The least level that is logged.")
    format: Literal["auto", "console", "json"] = _setting(
        "auto", "`json` lines, `console` for people; `auto` is console on a terminal and json elsewhere."
    )
    access_sample: float = _setting(
        0.0, "The share of requests that get a line in the log; 0 is none, 1 all.", "", ge=0, le=1
    )


class Config(Section):
    """All settings of the server."""

    server: ServerConfig = ServerConfig()
    batching: BatchingConfig = BatchingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    runners: RunnersConfig = RunnersConfig()
    breaker: BreakerConfig = BreakerConfig()
    log: LogConfig = LogConfig()


class ModelBatching(Section):
    """Batching of one model: whether, and what differs from the `[batching]` of the server."""

    enabled: bool | Literal["auto"] = _setting(
        "auto", "`false` runs every request alone; `auto` and `true` batch where the model allows it."
    )
    max_rows: Annotated[int, Field(ge=0)] | None = _inherited(BatchingConfig, "max_rows")
    max_delay_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = _inherited(
        BatchingConfig, "max_delay_seconds"
    )
    queue_rows: Annotated[int, Field(ge=1)] | None = _inherited(BatchingConfig, "queue_rows")
    queue_bytes: Annotated[int, Field(ge=1)] | None = _inherited(BatchingConfig, "queue_bytes")


class ModelRuntime(Section):
    """ONNX Runtime for one model: what differs from the `[runtime]` of the server."""

    intra_op_threads: Annotated[int, Field(ge=0)] | None = _inherited(RuntimeConfig, "intra_op_threads")
    inter_op_threads: Annotated[int, Field(ge=1)] | None = _inherited(RuntimeConfig, "inter_op_threads")
    optimization: Literal["disable", "basic", "extended", "all"] | None = _inherited(
        RuntimeConfig, "optimization"
    )
    providers: Names | None = _inherited(RuntimeConfig, "providers")
    arena: bool | None = _inherited(RuntimeConfig, "arena")
    spinning: bool | None = _inherited(RuntimeConfig, "spinning")


class ModelSequence(Section):
    """State that a model hands from one step of a sequence to the next, kept by the server."""

    state: dict[NonEmpty, NonEmpty] = _setting(
        {},
        'Which output is which input of the next step, such as `{state = "stateN"}`; none keeps no state.',
    )
    axis: dict[NonEmpty, Annotated[int, Field(ge=0, strict=True)]] = _setting(
        {},
        "The axis of a state input along which sequences are batched, such as `{state = 1}`; needed where it "
        "is not the only open one with the name of the other inputs' first axis.",
    )
    initial: dict[NonEmpty, NonEmpty] = _setting(
        {},
        "Files beside `model.toml` with the state that a sequence begins with, such as "
        '`{state = "zero.npy"}`; zeros where none is named.',
    )
    idle_seconds: float = _setting(
        60.0, "How long after its last step a sequence's state is kept.", "seconds", gt=0
    )
    max_sequences: int = _setting(
        10_000, "Most sequences whose state is kept; further ones are refused.", "sequences", ge=1
    )


class PaddingConfig(Section):
    """Requests of different lengths in one batch, padded to common ones. Without `axes` nothing is padded."""

    axes: dict[str, Annotated[int, Field(ge=1)]] = _setting(
        {},
        "The axis to pad, of every input that has one, such as `{input_ids = 1, attention_mask = 1}`; "
        "0 are the rows.",
    )
    buckets: tuple[Annotated[int, Field(ge=1)], ...] = _setting(
        (16, 32, 64, 128, 256, 512),
        "The lengths that are padded to; a longer request runs at its own length, with its equals only.",
        "elements",
        min_length=1,
    )
    values: dict[str, bool | int | float | str] = _setting(
        {}, "What the padding of an input holds, such as `{input_ids = 1}`; 0 where not said, or empty text."
    )
    mask: str = _setting(
        "",
        "The input [rows, length] that is 1 where there is a value and 0 where there is padding; requests "
        "may leave it out.",
    )
    lengths: str = _setting(
        "", "The input [rows] that takes how long each row is; requests may leave it out."
    )
    outputs: dict[str, Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...]] = _setting(
        {},
        "The axis, or axes, of an output to cut back to the request's length, such as `{hidden = 1}`; where "
        "nothing is said, those that the graph calls as the padded axes of the inputs.",
    )
    tolerance: float = _setting(
        0.0,
        "How far padded rows may be from the same rows alone, relative to the largest values; 0 takes what "
        "batching takes: 1e-4 for FP32.",
        ge=0,
        le=1,
    )
    max_bytes: int = _setting(
        64 * 2**20, "The most that the padded inputs of one request may take.", "bytes", ge=1
    )

    @field_validator("buckets")
    @classmethod
    def _buckets_ascend(cls, buckets: tuple[int, ...]) -> tuple[int, ...]:
        if list(buckets) != sorted(set(buckets)):
            raise ValueError("the lengths should ascend")
        return buckets


class ModelConfig(Section):
    """The settings of one model: the `model.toml` beside its versions."""

    versions: Literal["all", "latest"] | tuple[VersionNumber, ...] = _setting(
        "all", "Which versions are served: `all`, the `latest`, or a list such as `[3, 4]`."
    )
    labels: dict[str, VersionNumber] = _setting(
        {}, "Names for versions, such as `{stable = 3}`; a request may ask for them."
    )
    runs_in_parallel: int = _setting(
        0,
        "Runs of this model that may go on at the same time; 0 takes one per core for a light model, and "
        "one on all cores for a heavy one.",
        "runs",
        ge=0,
    )
    weight: float = _setting(
        1.0, "The model's share of the runner threads beside other models, where all have enough to do.", gt=0
    )
    class_labels: dict[str, NonEmpty] = _setting(
        {},
        'Files with the names of an output\'s classes, a line each, such as `{scores = "names.txt"}`, shown '
        "where the Open Inference Protocol is asked for a classification.",
    )
    sequence: ModelSequence = ModelSequence()
    batching: ModelBatching = ModelBatching()
    runtime: ModelRuntime = ModelRuntime()
    padding: PaddingConfig = PaddingConfig()

    @field_validator("versions")
    @classmethod
    def _some_version(cls, versions: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if not versions:
            raise ValueError("should name at least one version")
        return versions

    @field_validator("labels")
    @classmethod
    def _labels_are_names(cls, labels: dict[str, int]) -> dict[str, int]:
        """A label that reads as a number could not be told from a version."""
        for label in labels:
            if not label.strip():
                raise ValueError("a label should not be empty")
            if re.fullmatch(r"\s*[+-]?\d+\s*", label):
                raise ValueError(f"the label {label!r} could not be told from a version number")
        return labels


def effective_batching(defaults: BatchingConfig, model: ModelBatching) -> BatchingConfig:
    """The batching of one model: its own settings where it has them, else the server's."""
    return defaults.model_copy(update=_overrides(BatchingConfig, model))


def effective_runtime(defaults: RuntimeConfig, model: ModelRuntime) -> RuntimeConfig:
    """The ONNX Runtime settings of one model: its own where it has them, else the server's."""
    return defaults.model_copy(update=_overrides(RuntimeConfig, model))


def _overrides(section: type[Section], model: Section) -> dict[str, object]:
    values = {name: getattr(model, name) for name in section.model_fields}
    return {name: value for name, value in values.items() if value is not None}
