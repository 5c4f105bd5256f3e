"""What the classes of a classifier are called: text files beside the model, a line for each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from penstock.errors import ModelLoadError


def read_class_labels(
    folder: Path, files: Mapping[str, str], outputs: Iterable[str]
) -> Mapping[str, Sequence[str]]:
    """The labels of the classes of some outputs, by the output's name.

    Args:
        folder: the model's, which the files' names are relative to.
        files: the file for each of these outputs.
        outputs: what the model gives.

    Raises:
        ModelLoadError: there is no such output, or the file cannot be read.
    """
    known = list(outputs)
    labels = {}
    for output, name in files.items():
        if output not in known:
            raise ModelLoadError(
                f"class_labels names the output {output}, which is not there; there is {', '.join(known)}"
            )
        try:
            labels[output] = (folder / name).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ModelLoadError(f"class_labels of output {output}: cannot read {name}: {error}") from error
    return labels
