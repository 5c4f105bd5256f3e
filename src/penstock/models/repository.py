"""Scans a model repository on disk, without loading any model.

repository/
  lead_scoring/           the model's name
    model.toml            its settings, if any
    1/model.onnx          a version; the highest number is served by default
    2/model.onnx

Anything that is not a model is skipped and reported. A model or a version that cannot be served is an error:
otherwise an older version would be served silently in its place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.backends.files import why_no_file
from penstock.config import NO_SETTINGS, ModelConfig, load_model_config
from penstock.core.errors import ModelLoadError
from penstock.models.foreign_layouts import advice_on, model_file, triton_file_name

MODEL_FILE = "model.onnx"
SETTINGS_FILE = "model.toml"
LAYOUT = f"expected PATH/<model>/<version>/{MODEL_FILE}, with versions 1, 2, 3 and so on"

OnSkipped = Callable[[Path, str], None]
"""Takes the path of something that is skipped, and why, in words that follow the path."""


@dataclass(frozen=True, slots=True)
class ModelOnDisk:
    """One model: its name, its settings, and the file of every version that is to be served.

    Attributes:
        folder: the model's own, which the names of files in its settings are relative to; None for the one
            above that of the version.
    """

    name: str
    config: ModelConfig
    versions: Mapping[int, Path]
    folder: Path | None = None


def scan(path: Path, passed_over: OnSkipped = lambda path, reason: None) -> Sequence[ModelOnDisk]:
    """Finds the models below `path`; if `path` is an .onnx file, that one model.

    Args:
        path: a repository, or a file.
        passed_over: called with everything that is not a model.

    Raises:
        ModelLoadError: there is no model, or something that looks like one cannot be one.
        ConfigError: a model.toml is wrong.
    """
    if not os.path.isdir(path):
        return [_single(path)]
    entries = [each for each in _entries(path) if not each.name.startswith(".")]
    if any(_is_version(each.name) and os.path.isfile(each / MODEL_FILE) for each in entries):
        raise ModelLoadError(
            f"{path} looks like one model's own folder; serve the folder above it, {path.resolve().parent}"
        )
    foreign = advice_on(path)
    if foreign and not any(_is_version(file.parent.name) for file in path.glob(f"*/*/{MODEL_FILE}")):
        if file := model_file(path):
            return [_foreign(path, file)]
        raise ModelLoadError(foreign)
    models = []
    for entry in entries:
        model = _of_usual_layout(entry)
        reason = _why_no_model(entry) if model is None else ""
        if model is not None:
            models.append(model)
        elif not reason:
            models.append(_model(entry, passed_over))
        elif not os.path.isfile(entry) or entry.suffix == ".onnx":
            passed_over(entry, reason)
    if not models:
        raise ModelLoadError(f"no model found in {path}: {_hint(path)}")
    return models


def _single(path: Path) -> ModelOnDisk:
    reason = why_no_file(path)
    if reason == "is not there":
        raise ModelLoadError(f"there is no file or folder {path}")
    if reason:
        raise ModelLoadError(f"{path} {reason}")
    if path.suffix != ".onnx":
        raise ModelLoadError(f"{path} is not an .onnx file")
    folder = path.parent
    return ModelOnDisk(path.stem, load_model_config(folder / SETTINGS_FILE), {1: path}, folder)


def _foreign(folder: Path, file: Path) -> ModelOnDisk:
    """A model that another tool laid out: version 1, with the name of its folder."""
    reason = why_no_file(file)
    if reason:
        raise ModelLoadError(f"{file} {reason}")
    return ModelOnDisk(folder.resolve().name, load_model_config(folder / SETTINGS_FILE), {1: file}, folder)


def _entries(folder: Path) -> Sequence[Path]:
    """What is in a folder, by name.

    Raises:
        ModelLoadError: the folder cannot be read.
    """
    reason = _why_unreadable(folder)
    if reason:
        raise ModelLoadError(f"{folder} {reason}")
    return [folder / name for name in sorted(os.listdir(folder))]


def _why_unreadable(folder: Path) -> str:
    """Why a folder cannot be read, in words that follow its name; "" if it can."""
    try:
        os.listdir(folder)
        os.stat(os.path.join(folder, os.curdir))  # names may be readable while the files are not accessible
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def _hint(path: Path) -> str:
    if any(path.glob("*.onnx")):
        return f"it contains .onnx files; serve one by its path, or use the layout of a repository: {LAYOUT}"
    return LAYOUT


def _why_no_model(entry: Path) -> str:
    """Why something is not a model, in words that follow its name; "" if it looks like one."""
    reason = why_no_file(entry)
    if reason != "is a folder":
        return reason or f"is not in a folder of its own: {LAYOUT}"
    reason = _why_unreadable(entry)
    if reason:
        return reason
    names = os.listdir(entry)
    if {SETTINGS_FILE, MODEL_FILE} & {*names} or any(_looks_like_a_version(entry / name) for name in names):
        return ""
    if model_file(entry):
        return ""
    return "contains no model"


def _looks_like_a_version(folder: Path) -> bool:
    """Whether a folder contains a version's file, or has the name of a version and may contain it."""
    if folder.name.startswith(".") or not os.path.isdir(folder):
        return False
    try:
        names = os.listdir(folder)
    except OSError:
        return _is_version(folder.name)
    return MODEL_FILE in names or (_is_version(folder.name) and any(name.endswith(".onnx") for name in names))


def _of_usual_layout(folder: Path) -> ModelOnDisk | None:
    """The model in a folder that holds versions, perhaps settings, and nothing else.

    Nearly all folders do, and this looks at each file once. None for any other: `_model` says what it is.
    """
    found = {}
    has_settings = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == SETTINGS_FILE:
                    has_settings = True
                    continue
                file = f"{entry.path}/{MODEL_FILE}"
                is_version = _is_version(entry.name) and entry.is_dir(follow_symlinks=False)
                if not is_version or not stat.S_ISREG(os.stat(file).st_mode):
                    return None
                found[int(entry.name)] = Path(file)
    except OSError:
        return None
    if not found:
        return None
    config = load_model_config(folder / SETTINGS_FILE) if has_settings else NO_SETTINGS
    wanted = _wanted(folder.name, config, sorted(found))
    _check_labels(folder.name, config, wanted)
    return ModelOnDisk(folder.name, config, {number: found[number] for number in wanted}, folder)


def _model(folder: Path, passed_over: OnSkipped) -> ModelOnDisk:
    versions = _version_folders(folder, passed_over)
    if not any(_is_version(each.name) for each in versions) and (file := model_file(folder)):
        return _foreign(folder, file)
    config = load_model_config(folder / SETTINGS_FILE)
    other = triton_file_name(folder)
    found = {_number(each, folder): _file_of(each, other) for each in versions}
    if not found:
        names = ", ".join(sorted(each.name for each in folder.glob("*.onnx"))) or "no .onnx file"
        raise ModelLoadError(
            f"model {folder.name}: {advice_on(folder) or f'{LAYOUT}; {folder} contains {names}'}"
        )
    wanted = _wanted(folder.name, config, sorted(found))
    _check_labels(folder.name, config, wanted)
    problems = [problem for number in wanted if (problem := _why_not_served(folder, number, found[number]))]
    if problems:
        raise ModelLoadError("\n".join(problems))
    return ModelOnDisk(folder.name, config, {number: found[number] for number in wanted})


def _file_of(version: Path, other: str) -> Path:
    """The file of a version; that of another name, which Triton's settings give, if it is there alone."""
    file = version / MODEL_FILE
    return (
        version / other if other and not os.path.lexists(file) and os.path.isfile(version / other) else file
    )


def _version_folders(folder: Path, passed_over: OnSkipped) -> Sequence[Path]:
    """The folders of versions of a model, and those that are probably meant as versions."""
    found = []
    for entry in _entries(folder):
        if entry.name.startswith("."):
            continue
        is_version = _is_version(entry.name)
        leads_nowhere = os.path.islink(entry) and not os.path.exists(entry)
        if (is_version and (leads_nowhere or os.path.isdir(entry))) or os.path.lexists(entry / MODEL_FILE):
            found.append(entry)
        elif is_version:
            passed_over(entry, f"is not a folder: {LAYOUT}")
    return found


def _why_not_served(folder: Path, number: int, file: Path) -> str:
    """Why a version's file cannot be loaded, without opening it; "" if there is no reason."""
    version = file.parent
    reason, what = why_no_file(version), version
    if reason == "is a folder":
        reason, what = why_no_file(file), file
    if reason == "is a folder":
        reason += f", so there is no model: put what is in it beside it, into {version}"
    elif reason == "is not there":
        others = ", ".join(sorted(f"{number}/{each.name}" for each in version.glob("*.onnx")))
        if others:
            return f"model {folder.name}: {LAYOUT}; {folder} contains {others}"
    return f"model {folder.name} version {number}: {what} {reason}" if reason else ""


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and name[0] != "0"


def _number(folder: Path, model: Path) -> int:
    if _is_version(folder.name):
        return int(folder.name)
    foreign = advice_on(model)
    if foreign:
        raise ModelLoadError(f"model {model.name}: {foreign}")
    raise ModelLoadError(f"{folder} is not a version: a version's folder is named 1, 2, 3 and so on")


def _wanted(name: str, config: ModelConfig, found: Sequence[int]) -> Sequence[int]:
    if config.versions == "all":
        return found
    if config.versions == "latest":
        return found[-1:]
    missing = sorted(set(config.versions) - set(found))
    if missing:
        raise ModelLoadError(
            f"model {name}: {SETTINGS_FILE} selects versions {missing}, but only {list(found)} exist"
        )
    return sorted(set(config.versions))


def _check_labels(name: str, config: ModelConfig, served: Sequence[int]) -> None:
    for label, number in config.labels.items():
        if number not in served:
            raise ModelLoadError(
                f"model {name}: label {label} in {SETTINGS_FILE} points to version {number}, which is not "
                f"served; served versions: {list(served)}"
            )
