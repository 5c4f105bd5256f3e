"""Finds what a classifier says: the output with the label, and the output with the probabilities."""

from __future__ import annotations

from penstock.core.tensors import DataType, Kind, TensorSpec
from penstock.models.model import Model

PREDICTION, PROBABILITY = "prediction", "probability"

LABEL_NAMES = ("label", "output_label", "class", "classes", "class_label", "predicted_label", "prediction")
PROBABILITY_NAMES = (
    "probabilities", "output_probability", "probability", "class_probability", "scores", "proba",
)  # fmt: skip


class Classifier:
    """Which outputs of a model are the label and the probabilities, if it has such.

    Both are found by shape and name: a label is one integer or text for each row, probabilities are a row of
    floating-point numbers, and one of the names that exporters give them says so.

    Args:
        model: the model.

    Attributes:
        label: the output with the label; "" for none.
        probabilities: the output with the probabilities; "" for none.
    """

    def __init__(self, model: Model) -> None:
        self.label = self.probabilities = ""
        outputs = model.signature.outputs
        labels = [spec for spec in outputs.values() if _is_label(spec)]
        rows = [spec for spec in outputs.values() if _is_row(spec)]
        if (
            len(labels) == 1
            and len(rows) == 1
            and (_named(labels[0], LABEL_NAMES) or _named(rows[0], PROBABILITY_NAMES))
        ):
            self.label, self.probabilities = labels[0].name, rows[0].name


def _is_label(spec: TensorSpec) -> bool:
    inner = _inner(spec)
    return spec.datatype.kind in (Kind.INT, Kind.BYTES) and inner in ((), (1,))


def _is_row(spec: TensorSpec) -> bool:
    inner = _inner(spec)
    return (
        spec.datatype in (DataType.FP16, DataType.FP32, DataType.FP64)
        and inner is not None
        and len(inner) == 1
    )


def _inner(spec: TensorSpec) -> tuple[int | str, ...] | None:
    """The axes besides that of the rows; None if there is none of these."""
    if not spec.shape or spec.row_axis:
        return None
    return spec.shape[1:]


def _named(spec: TensorSpec, names: tuple[str, ...]) -> bool:
    return spec.name.lower() in names
