"""Class labels: text files beside the model with the name of one class per line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from penstock.core.errors import ModelLoadError
from penstock.core.tensors import Kind, TensorSpec


class ClassLabels(NamedTuple):
    """The names of the classes of one output.

    Attributes:
        file: the name of the file, as the settings have it.
        names: the name of each class.
    """

    file: str
    names: Sequence[str]


def read_class_labels(
    folder: Path, files: Mapping[str, str], outputs: Mapping[str, TensorSpec]
) -> Mapping[str, ClassLabels]:
    """The labels of the classes of some outputs, by the output's name.

    Args:
        folder: the model's, which the files' names are relative to.
        files: the file for each of these outputs.
        outputs: the model's outputs.

    Raises:
        ModelLoadError: there is no such output, it has no classes or another number of them, or the file
            cannot be read.
    """
    labels = {}
    for output, name in files.items():
        if output not in outputs:
            raise ModelLoadError(
                f"class_labels names output {output}, which does not exist; the model has "
                f"{', '.join(outputs)}"
            )
        try:
            names = (folder / name).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ModelLoadError(f"class_labels of output {output}: cannot read {name}: {error}") from error
        _check(outputs[output], name, names)
        labels[output] = ClassLabels(name, names)
    return labels


def _check(spec: TensorSpec, file: str, names: Sequence[str]) -> None:
    if spec.datatype.kind in (Kind.BOOL, Kind.BYTES):
        raise ModelLoadError(f"class_labels: output {spec} cannot have class labels")
    inner = (spec.shape or ("?",))[1:]
    classes = math.prod(axis for axis in inner if isinstance(axis, int))
    if inner and all(isinstance(axis, int) for axis in inner) and classes != len(names):
        raise ModelLoadError(f"class_labels: output {spec} has {classes} classes, {file} names {len(names)}")
