"""The settings of one model, in its `model.toml`, section by section."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

from pydantic import Field, field_validator

from penstock.config.section import Names, NonEmpty, Section, inherited, setting
from penstock.config.sections import BatchingConfig, RuntimeConfig

_Section = TypeVar("_Section", bound=Section)
# Strict: true is not version 1, and neither is "1".
VersionNumber = Annotated[int, Field(gt=0, strict=True)]


class ModelBatching(Section):
    """Batching of this model. Settings that are left out come from `[batching]` of the server."""

    enabled: bool | Literal["auto"] = setting(
        "auto", "`false` runs every request alone; `auto` and `true` batch if the model allows it."
    )
    axes: dict[NonEmpty, Annotated[int, Field(ge=0, strict=True)]] = setting(
        {},
        "For each input or output whose rows lie along another axis than the server finds, that axis, such "
        "as `{logits = 1}`.",
    )
    max_rows: Annotated[int, Field(ge=0)] | None = inherited(BatchingConfig, "max_rows")
    max_delay_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = inherited(
        BatchingConfig, "max_delay_seconds"
    )
    queue_rows: Annotated[int, Field(ge=1)] | None = inherited(BatchingConfig, "queue_rows")
    queue_bytes: Annotated[int, Field(ge=1)] | None = inherited(BatchingConfig, "queue_bytes")
    exact: bool | None = inherited(BatchingConfig, "exact")
    tolerance: Annotated[float, Field(ge=0, le=0.1)] | None = inherited(BatchingConfig, "tolerance")
    verify: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = inherited(
        BatchingConfig, "verify"
    )


class ModelRuntime(Section):
    """ONNX Runtime for this model. Settings that are left out come from `[runtime]` of the server."""

    intra_op_threads: Annotated[int, Field(ge=0)] | None = inherited(RuntimeConfig, "intra_op_threads")
    inter_op_threads: Annotated[int, Field(ge=1)] | None = inherited(RuntimeConfig, "inter_op_threads")
    optimization: Literal["disable", "basic", "extended", "all"] | None = inherited(
        RuntimeConfig, "optimization"
    )
    providers: Names | None = inherited(RuntimeConfig, "providers")
    arena: bool | None = inherited(RuntimeConfig, "arena")
    spinning: bool | None = inherited(RuntimeConfig, "spinning")


class ModelSequence(Section):
    """State that the server keeps between the steps of a sequence, such as of a recurrent model."""

    state: dict[NonEmpty, NonEmpty] = setting(
        {},
        'For each state input, the output of the previous step that it takes, such as `{state = "stateN"}`. '
        "If empty, no state is kept.",
    )
    axis: dict[NonEmpty, Annotated[int, Field(ge=0, strict=True)]] = setting(
        {},
        "For each state input, the axis along which sequences are batched, such as `{state = 1}`. May be "
        "left out if exactly one axis without a fixed size has the name of the other inputs' first axis.",
    )
    initial: dict[NonEmpty, NonEmpty] = setting(
        {},
        "For each state input, the file beside `model.toml` with the state at the start of a sequence, "
        'such as `{state = "zero.npy"}`. Without a file, the state starts as zeros.',
    )
    sent_at_start: tuple[NonEmpty, ...] = setting(
        (),
        'State inputs that a step which begins a sequence may send, such as `["memory"]` for what an encoder '
        "gave. A state input with an open axis and without a file in `initial` must be sent.",
    )
    constant: tuple[NonEmpty, ...] = setting(
        (),
        'Inputs that are sent when a sequence begins and kept for it, such as `["speaker"]`. Later steps may '
        "leave them out.",
    )
    grows: dict[NonEmpty, Annotated[int, Field(ge=0, strict=True)]] = setting(
        {},
        "For each state input that grows with every step, the axis along which it grows, such as "
        "`{past_key = 2}`. Without a file in `initial`, its length there is 0 at the start.",
    )
    max_length: int = setting(
        4096,
        "Longest state along the axes in `grows`. A step that would make it longer is rejected.",
        "elements",
        ge=1,
    )
    max_state_bytes: int = setting(
        2**30,
        "Largest memory of the states of all sequences of this model together, if `grows`, `constant` or "
        "`sent_at_start` is set. Steps that would exceed it are rejected.",
        "bytes",
        ge=1,
    )
    idle_seconds: float = setting(
        60.0, "How long the state of a sequence is kept after its last step.", "seconds", gt=0
    )
    max_sequences: int = setting(
        10_000,
        "Most sequences whose state is kept. All callers get equal shares of them; further sequences are "
        "rejected.",
        "sequences",
        ge=1,
    )
    shared: bool = setting(
        False,
        "Whether every caller may send steps of every sequence whose id it knows. If not, a sequence belongs "
        "to the caller that begins it.",
    )


class PaddingConfig(Section):
    """Padding, so that requests of different lengths share a batch. Without `axes` nothing is padded."""

    axes: dict[str, Annotated[int, Field(ge=1)]] = setting(
        {},
        "For each input, the axis to pad, such as `{input_ids = 1, token_type_ids = 1}`. Axis 0 holds the "
        "rows and cannot be padded. Leave out the mask, and inputs without such an axis.",
    )
    buckets: tuple[Annotated[int, Field(ge=1)], ...] = setting(
        (16, 32, 64, 128, 256, 512),
        "Lengths to pad to, in ascending order, such as `[16, 32]`. A longer request is not padded, and "
        "shares batches only with requests of the same length.",
        "elements",
        min_length=1,
    )
    values: dict[str, bool | int | float | str] = setting(
        {},
        "For each input, the value to pad with, such as `{input_ids = 1}`. The default is 0, or empty text.",
    )
    mask: str = setting(
        "",
        "The input of shape [rows, length]: 1 for values, 0 for padding. Requests may leave it out.",
    )
    lengths: str = setting(
        "", "The input of shape [rows] that takes the length of each row. Requests may leave it out."
    )
    outputs: dict[str, Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...]] = setting(
        {},
        "For each output, the axis or axes to cut back to the request's length, such as `{hidden = 1}`. By "
        "default, the axes that have the same name in the graph as a padded axis.",
    )
    output_lengths: dict[NonEmpty, NonEmpty] = setting(
        {},
        "For each output whose length the model gives itself, the output of shape [rows] with the length of "
        'each row, such as `{features = "features_lens"}`. Without it, the length is found at load.',
    )
    shortest: int = setting(
        1, "The shortest length that the model takes; a shorter request is rejected.", "elements", ge=0
    )
    tolerance: float = setting(
        0.0,
        "Largest accepted difference between padded rows and the same rows alone, relative to the largest "
        "values. 0 uses the tolerance of batching.",
        ge=0,
        le=1,
    )
    max_bytes: int = setting(64 * 2**20, "Largest size of one request's inputs after padding.", "bytes", ge=1)

    @field_validator("buckets")
    @classmethod
    def _buckets_ascend(cls, buckets: tuple[int, ...]) -> tuple[int, ...]:
        if list(buckets) != sorted(set(buckets)):
            raise ValueError("the lengths should ascend")
        return buckets


class ModelSample(Section):
    """What an ordinary request looks like. At load, the model is tried, timed and checked on such inputs."""

    file: str = setting(
        "",
        "A file of real requests beside `model.toml`, such as `requests.jsonl`: `.csv` or `.jsonl` as "
        "`penstock predict --file` reads it, or `.npz` with an array for each input. The first 1,000 rows "
        "take the place of generated ones.",
    )
    shapes: dict[NonEmpty, tuple[Annotated[int, Field(ge=1, strict=True)], ...]] = setting(
        {},
        "For each input, its shape in a request of one row, such as `{audio = [1, 576]}`. By default, "
        "several lengths are tried for axes without a fixed size.",
    )
    values: dict[NonEmpty, bool | int | Annotated[float, Field(allow_inf_nan=False)] | str] = setting(
        {},
        "For each input, the value of all its elements, such as `{rate = 16000}`. By default, values are "
        "generated that differ from row to row.",
    )


class ModelConfig(Section):
    """The settings of one model: the `model.toml` beside its versions."""

    versions: Literal["all", "latest"] | tuple[VersionNumber, ...] = setting(
        "all", "Versions to serve: `all`, the `latest`, or a list such as `[3, 4]`."
    )
    labels: dict[str, VersionNumber] = setting(
        {}, "Names for versions, such as `{stable = 3}`. A request may use them in place of a number."
    )
    runs_in_parallel: int = setting(
        0,
        "Most runs of this model at the same time. 0 means one for each core if the model is light, and one "
        "on all cores if it is heavy.",
        "runs",
        ge=0,
    )
    weight: float = setting(
        1.0, "The model's share of the runner threads, relative to other models that are busy.", gt=0
    )
    inline: bool | Literal["auto"] = setting(
        "auto",
        "Whether quick runs may be made by the threads that take calls, one for gRPC and one for HTTP, which "
        "holds up all callers meanwhile. "
        "`auto` allows it unless the values of a request decide how long its run takes; `true` allows it "
        "then as well.",
    )
    class_labels: dict[str, NonEmpty] = setting(
        {},
        "For each output, the file beside `model.toml` with the names of its classes, one a line, such as "
        '`{scores = "names.txt"}`. The Open Inference Protocol shows them in classifications.',
    )
    sequence: ModelSequence = ModelSequence()
    batching: ModelBatching = ModelBatching()
    runtime: ModelRuntime = ModelRuntime()
    padding: PaddingConfig = PaddingConfig()
    sample: ModelSample = ModelSample()

    @field_validator("versions")
    @classmethod
    def _some_version(cls, versions: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if not versions:
            raise ValueError("should name at least one version")
        return versions

    @field_validator("labels")
    @classmethod
    def _labels_are_names(cls, labels: dict[str, int]) -> dict[str, int]:
        """Rejects labels that look like numbers, since they could be mistaken for versions."""
        for label in labels:
            if not label.strip():
                raise ValueError("a label should not be empty")
            if re.fullmatch(r"\s*[+-]?\d+\s*", label):
                raise ValueError(f"the label {label!r} could not be told from a version number")
        return labels


def effective_batching(defaults: BatchingConfig, model: ModelBatching) -> BatchingConfig:
    """The batching of one model: its own settings where it has them, else the server's."""
    return _replaced(defaults, model)


def effective_runtime(defaults: RuntimeConfig, model: ModelRuntime) -> RuntimeConfig:
    """The ONNX Runtime settings of one model: its own where it has them, else the server's."""
    return _replaced(defaults, model)


def _replaced(defaults: _Section, model: Section) -> _Section:
    if not model.model_fields_set:
        return defaults
    values = {name: getattr(model, name) for name in type(defaults).model_fields}
    given = {name: value for name, value in values.items() if value is not None}
    return defaults.model_copy(update=given) if given else defaults
