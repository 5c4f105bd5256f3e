"""Recognises model folders written by Hugging Face, MLflow and Triton: serves them, or says how to."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

HUGGING_FACE = "config.json"
MLFLOW = "MLmodel"
TRITON = "config.pbtxt"
PREFERRED = "model.onnx"
MOST_BYTES = 1 << 20  # of a settings file that is read
ONNX_FLAVOR = re.compile(r"^  onnx:\n(?:    .*\n)*?    data: *[\"']?([^\"'\n]+?)[\"']? *$", re.MULTILINE)
FILE_NAME = re.compile(r"^\s*default_model_filename\s*:\s*\"([^\"/\\\n]+\.onnx)\"", re.MULTILINE)


def model_file(folder: Path) -> Path | None:
    """The one model in a folder of Hugging Face or MLflow; None for other folders, or if there are several.

    MLflow says which file it is. A folder of Hugging Face has to have a single .onnx file: with several, such
    as a quantized one or an encoder and a decoder, only its owner knows which to serve.

    Args:
        folder: the folder; its files may be unreadable.
    """
    if not _tool(folder):
        return None
    named = ONNX_FLAVOR.search(_text(folder / MLFLOW))
    if named and _is_below(named[1]) and os.path.isfile(folder / named[1]):
        return folder / named[1]
    files = _onnx_files(folder)
    return folder / files[0] if len(files) == 1 else None


def _is_below(name: str) -> bool:
    """Whether the name of a file leads to no place outside the folder that it is relative to."""
    return not os.path.isabs(name) and os.pardir not in Path(name).parts


def triton_file_name(folder: Path) -> str:
    """The name of the model files in the versions of a Triton model, if its settings give one; else ""."""
    found = FILE_NAME.search(_text(folder / TRITON))
    return found[1] if found else ""


def advice_on(folder: Path) -> str:
    """How to serve a model that Hugging Face or MLflow wrote; "" for other folders.

    Args:
        folder: the folder; its files may be unreadable.
    """
    tool = _tool(folder)
    if not tool:
        return ""
    files = _onnx_files(folder)
    if not files:
        return f"{folder} is a model of {tool} without an .onnx file; export it to ONNX first"
    file, more = files[0], f" (or another of its {len(files)} .onnx files)" if len(files) > 1 else ""
    name = folder.resolve().name
    return (
        f"{folder} is laid out as {tool} does it; serve its file{more} by itself, as "
        f"`penstock serve {folder / file}`, or copy {file} and any file of weights beside it to "
        f"MODELS/{name}/1/, the model as {PREFERRED}, and serve MODELS"
    )


def _tool(folder: Path) -> str:
    """Which tool wrote a folder, by the file that it is known by; "" if neither did."""
    if os.path.isfile(folder / MLFLOW):
        return "MLflow"
    return "Hugging Face" if os.path.isfile(folder / HUGGING_FACE) else ""


def _text(file: Path) -> str:
    """The text of a settings file; "" if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(MOST_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _onnx_files(folder: Path) -> Sequence[Path]:
    """The model files, relative to the folder, the one to serve first."""
    found = [each.relative_to(folder) for pattern in ("*.onnx", "*/*.onnx") for each in folder.glob(pattern)]
    return sorted(found, key=lambda file: (file.name != PREFERRED, len(file.parts), str(file)))
