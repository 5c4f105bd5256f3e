"""What lies on disk: a pure scan that loads nothing.

repository/
  lead_scoring/           the model's name
    model.toml            its settings, if any
    1/model.onnx          a version; the highest number is served by default
    2/model.onnx
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.config import ModelConfig, load_model_config
from penstock.errors import ModelLoadError

MODEL_FILE = "model.onnx"
SETTINGS_FILE = "model.toml"
LAYOUT = f"expected PATH/<model>/<version>/{MODEL_FILE}, with versions 1, 2, 3 and so on"


@dataclass(frozen=True, slots=True)
class ModelOnDisk:
    """One model: its name, its settings, and the file of every version that is to be served."""

    name: str
    config: ModelConfig
    versions: Mapping[int, Path]


def scan(path: Path) -> Sequence[ModelOnDisk]:
    """Finds the models below `path`, or the one in `path` where that is an .onnx file.

    Raises:
        ModelLoadError: there is no model, or something that looks like one cannot be one.
        ConfigError: a model.toml is wrong.
    """
    if path.is_file():
        if path.suffix != ".onnx":
            raise ModelLoadError(f"{path} is not an .onnx file")
        return [ModelOnDisk(path.stem, ModelConfig(), {1: path})]
    if not path.is_dir():
        raise ModelLoadError(f"there is no file or folder {path}")
    folders = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    if any(_is_version(folder.name) and (folder / MODEL_FILE).is_file() for folder in folders):
        raise ModelLoadError(
            f"{path} looks like one model's own folder; serve the folder above it, {path.resolve().parent}"
        )
    models = [_model(folder) for folder in folders if _looks_like_a_model(folder)]
    if not models:
        raise ModelLoadError(f"there is no model in {path}: {_hint(path)}")
    return models


def _hint(path: Path) -> str:
    if any(path.glob("*.onnx")):
        return f"it holds .onnx files; serve one of them by its own path, or lay them out: {LAYOUT}"
    return LAYOUT


def _looks_like_a_model(folder: Path) -> bool:
    return any((folder / file).is_file() for file in (SETTINGS_FILE, MODEL_FILE)) or any(
        _is_version(file.parent.name) or file.name == MODEL_FILE for file in _onnx_files(folder)
    )


def _onnx_files(folder: Path) -> Sequence[Path]:
    """The .onnx files in the folders of a model, whatever those are called."""
    files = sorted(folder.glob("*/*.onnx"))
    return [file for file in files if file.is_file() and not file.parent.name.startswith(".")]


def _model(folder: Path) -> ModelOnDisk:
    config = load_model_config(folder / SETTINGS_FILE)
    files = _onnx_files(folder)
    found = {_number(file.parent): file for file in files if file.name == MODEL_FILE}
    misnamed = [
        file for file in files if _is_version(file.parent.name) and int(file.parent.name) not in found
    ]
    if misnamed or not found:
        names = sorted(str(file.relative_to(folder)) for file in misnamed or folder.glob("*.onnx"))
        there = ", ".join(names) or "no such file"
        raise ModelLoadError(f"model {folder.name}: {LAYOUT}; in {folder} there is {there}")
    wanted = _wanted(folder.name, config, sorted(found))
    _check_labels(folder.name, config, wanted)
    return ModelOnDisk(folder.name, config, {number: found[number] for number in wanted})


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and name[0] != "0"


def _number(folder: Path) -> int:
    if not _is_version(folder.name):
        raise ModelLoadError(f"{folder} is not a version: a version's folder is named 1, 2, 3 and so on")
    return int(folder.name)


def _wanted(name: str, config: ModelConfig, found: Sequence[int]) -> Sequence[int]:
    if config.versions == "all":
        return found
    if config.versions == "latest":
        return found[-1:]
    missing = sorted(set(config.versions) - set(found))
    if missing:
        raise ModelLoadError(
            f"model {name}: {SETTINGS_FILE} asks for versions {missing}, on disk are {list(found)}"
        )
    return sorted(set(config.versions))


def _check_labels(name: str, config: ModelConfig, served: Sequence[int]) -> None:
    for label, number in config.labels.items():
        if number not in served:
            raise ModelLoadError(
                f"model {name}: label {label} in {SETTINGS_FILE} leads to version {number}, "
                f"served are {list(served)}"
            )
