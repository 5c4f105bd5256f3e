"""Finds the version that is optimised, and loads it or a variant of it as the server would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.backends.onnx import OnnxBackend, version
from penstock.config import BatchingConfig, ModelConfig, RuntimeConfig
from penstock.config.loading import load_model_config
from penstock.config.model_sections import effective_batching, effective_runtime
from penstock.core.errors import ModelLoadError
from penstock.core.processors import available
from penstock.core.tensors import Array
from penstock.models.opened import Candidate, Opened
from penstock.models.repository import MODEL_FILE, SETTINGS_FILE
from penstock.models.trial.learned import Learned
from penstock.models.trial.trials import Collaborators, Trials


@dataclass(frozen=True, slots=True)
class Source:
    """The version that is optimised.

    Attributes:
        path: its file.
        folder: the model's folder, with `model.toml`.
        number: the version's number; 0 for a file outside a repository.
        settings: the model's settings, with the sample in place.
    """

    path: Path
    folder: Path
    number: int
    settings: ModelConfig

    @property
    def name(self) -> str:
        """The model's name."""
        return self.folder.resolve().name if self.number else self.path.stem

    @property
    def requests_file(self) -> str:
        """The name of the file with real rows."""
        return Path(self.settings.sample.file).name


def find(path: Path, sample: Path | None) -> Source:
    """The version that a path means.

    Args:
        path: an .onnx file, the folder of a version, or that of a model, whose newest version it is.
        sample: a file with real rows; None for that of `sample.file` in model.toml.

    Raises:
        ModelLoadError: there is no such version, or no sample.
        ConfigError: model.toml is wrong.
    """
    file = path if path.is_file() else _newest(path) / MODEL_FILE
    if file.suffix != ".onnx" or not file.is_file():
        raise ModelLoadError(f"there is no model file {file}; expected MODEL/VERSION/{MODEL_FILE}, or a file")
    number = int(file.parent.name) if is_version(file.parent) and file.name == MODEL_FILE else 0
    folder = file.parent.parent if number else file.parent
    settings = load_model_config(folder / SETTINGS_FILE)
    if settings.sequence.state:
        raise ModelLoadError("the server keeps a state for this model; such models cannot be optimised yet")
    if sample is not None:
        given = settings.sample.model_copy(update={"file": str(sample.resolve())})
        settings = settings.model_copy(update={"sample": given})
    if not settings.sample.file:
        raise ModelLoadError(
            f"variants are compared on real rows: give a file with --sample, or name it in sample.file of "
            f"{folder / SETTINGS_FILE}"
        )
    return Source(file, folder, number, settings)


def is_version(folder: Path) -> bool:
    """Whether a folder has the name of a version."""
    name = folder.resolve().name
    return name.isascii() and name.isdigit() and name[0] != "0"


def versions(folder: Path) -> Sequence[int]:
    """The numbers of a model's versions, ascending."""
    return sorted(int(each.name) for each in folder.iterdir() if is_version(each)) if folder.is_dir() else []


def _newest(path: Path) -> Path:
    if not path.is_dir():
        raise ModelLoadError(f"there is no file or folder {path}")
    if is_version(path):
        return path
    numbers = versions(path)
    if not numbers:
        raise ModelLoadError(f"{path} has no version: expected {path}/1/{MODEL_FILE}")
    return path / str(numbers[-1])


def loaded(source: Source, path: Path) -> tuple[Learned, Opened]:
    """Loads the original or a variant of it, and tries whether its rows may share a batch.

    Raises:
        ModelLoadError: it cannot be loaded.
    """
    cores = available().count
    settings = source.settings
    batching = effective_batching(BatchingConfig(), settings.batching)
    runtime = effective_runtime(RuntimeConfig(), settings.runtime)
    candidate = Candidate(path, settings, batching, runtime, cores, source.folder)

    def open_backend(file: Path, config: RuntimeConfig, runs: int) -> OnnxBackend:
        return OnnxBackend(file, config, runs, cores)

    prepared = Trials(open_backend, Collaborators(runtime_version=version())).prepare(candidate)
    return prepared.learned, prepared.opened


def requests_of(opened: Opened) -> Sequence[Mapping[str, Array]]:
    """The real rows, each a request with all inputs.

    Raises:
        ModelLoadError: a row lacks an input.
    """
    fixed = opened.sample.values
    needed = set(opened.backend.signature.inputs) - set(fixed)
    for number, request in enumerate(opened.sample.requests, 1):
        missing = sorted(needed - set(request))
        if missing:
            raise ModelLoadError(
                f"row {number} of {Path(opened.sample.file).name} has no {', '.join(missing)}; to optimise a "
                "model, each row needs all inputs"
            )
    if fixed:
        raise ModelLoadError(f"sample.values gives {', '.join(sorted(fixed))}; put them into the sample file")
    return opened.sample.requests
