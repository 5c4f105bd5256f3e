"""What there is to set of one model, in its `model.toml`, section by section."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from penstock.config.section import Names, NonEmpty, Section, inherited, setting
from penstock.config.sections import BatchingConfig, RuntimeConfig

# Strict: true is not version 1, and neither is "1".
VersionNumber = Annotated[int, Field(gt=0, strict=True)]


class ModelBatching(Section):
    """Batching of one model: whether, and what differs from the `[batching]` of the server."""

    enabled: bool | Literal["auto"] = setting(
        "auto", "`false` runs every request alone; `auto` and `true` batch where the model allows it."
    )
    max_rows: Annotated[int, Field(ge=0)] | None = inherited(BatchingConfig, "max_rows")
    max_delay_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = inherited(
        BatchingConfig, "max_delay_seconds"
    )
    queue_rows: Annotated[int, Field(ge=1)] | None = inherited(BatchingConfig, "queue_rows")
    queue_bytes: Annotated[int, Field(ge=1)] | None = inherited(BatchingConfig, "queue_bytes")


class ModelRuntime(Section):
    """ONNX Runtime for one model: what differs from the `[runtime]` of the server."""

    intra_op_threads: Annotated[int, Field(ge=0)] | None = inherited(RuntimeConfig, "intra_op_threads")
    inter_op_threads: Annotated[int, Field(ge=1)] | None = inherited(RuntimeConfig, "inter_op_threads")
    optimization: Literal["disable", "basic", "extended", "all"] | None = inherited(
        RuntimeConfig, "optimization"
    )
    providers: Names | None = inherited(RuntimeConfig, "providers")
    arena: bool | None = inherited(RuntimeConfig, "arena")
    spinning: bool | None = inherited(RuntimeConfig, "spinning")


class ModelSequence(Section):
    """State that a model hands from one step of a sequence to the next, kept by the server."""

    state: dict[NonEmpty, NonEmpty] = setting(
        {},
        'Which output is which input of the next step, such as `{state = "stateN"}`; none keeps no state.',
    )
    axis: dict[NonEmpty, Annotated[int, Field(ge=0, strict=True)]] = setting(
        {},
        "The axis of a state input along which sequences are batched, such as `{state = 1}`; needed where it "
        "is not the only open one with the name of the other inputs' first axis.",
    )
    initial: dict[NonEmpty, NonEmpty] = setting(
        {},
        "Files beside `model.toml` with the state that a sequence begins with, such as "
        '`{state = "zero.npy"}`; zeros where none is named.',
    )
    idle_seconds: float = setting(
        60.0, "How long after its last step a sequence's state is kept.", "seconds", gt=0
    )
    max_sequences: int = setting(
        10_000, "Most sequences whose state is kept; further ones are refused.", "sequences", ge=1
    )


class PaddingConfig(Section):
    """Requests of different lengths in one batch, padded to common ones. Without `axes` nothing is padded."""

    axes: dict[str, Annotated[int, Field(ge=1)]] = setting(
        {},
        "The axis to pad, of every input that has one but the mask, such as "
        "`{input_ids = 1, token_type_ids = 1}`; 0 are the rows.",
    )
    buckets: tuple[Annotated[int, Field(ge=1)], ...] = setting(
        (16, 32, 64, 128, 256, 512),
        "The lengths that are padded to, such as `[16, 32]`; a longer request runs at its own length, with "
        "its equals only.",
        "elements",
        min_length=1,
    )
    values: dict[str, bool | int | float | str] = setting(
        {}, "What the padding of an input holds, such as `{input_ids = 1}`; 0 where not said, or empty text."
    )
    mask: str = setting(
        "",
        "The input [rows, length] that is 1 where there is a value and 0 where there is padding; requests "
        "may leave it out.",
    )
    lengths: str = setting("", "The input [rows] that takes how long each row is; requests may leave it out.")
    outputs: dict[str, Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...]] = setting(
        {},
        "The axis, or axes, of an output to cut back to the request's length, such as `{hidden = 1}`; where "
        "nothing is said, those that the graph calls as the padded axes of the inputs.",
    )
    tolerance: float = setting(
        0.0,
        "How far padded rows may be from the same rows alone, relative to the largest values; 0 takes what "
        "batching takes: 1e-4 for FP32.",
        ge=0,
        le=1,
    )
    max_bytes: int = setting(
        64 * 2**20, "The most that the padded inputs of one request may take.", "bytes", ge=1
    )

    @field_validator("buckets")
    @classmethod
    def _buckets_ascend(cls, buckets: tuple[int, ...]) -> tuple[int, ...]:
        if list(buckets) != sorted(set(buckets)):
            raise ValueError("the lengths should ascend")
        return buckets


class ModelSample(Section):
    """What an ordinary request holds: inputs are made up so to try, time and check the model at load."""

    shapes: dict[NonEmpty, tuple[Annotated[int, Field(ge=1, strict=True)], ...]] = setting(
        {},
        "The shape that an input has in a request of one row, such as `{audio = [1, 576]}`; where nothing is "
        "said, several lengths are tried for its open axes.",
    )
    values: dict[NonEmpty, bool | int | Annotated[float, Field(allow_inf_nan=False)] | str] = setting(
        {},
        "What every element of an input is, such as `{rate = 16000}`; where nothing is said, values are made "
        "up that differ from row to row.",
    )


class ModelConfig(Section):
    """The settings of one model: the `model.toml` beside its versions."""

    versions: Literal["all", "latest"] | tuple[VersionNumber, ...] = setting(
        "all", "Which versions are served: `all`, the `latest`, or a list such as `[3, 4]`."
    )
    labels: dict[str, VersionNumber] = setting(
        {}, "Names for versions, such as `{stable = 3}`; a request may ask for them."
    )
    runs_in_parallel: int = setting(
        0,
        "Runs of this model that may go on at the same time; 0 takes one per core for a light model, and "
        "one on all cores for a heavy one.",
        "runs",
        ge=0,
    )
    weight: float = setting(
        1.0, "The model's share of the runner threads beside other models, where all have enough to do.", gt=0
    )
    class_labels: dict[str, NonEmpty] = setting(
        {},
        'Files with the names of an output\'s classes, a line each, such as `{scores = "names.txt"}`, shown '
        "where the Open Inference Protocol is asked for a classification.",
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
