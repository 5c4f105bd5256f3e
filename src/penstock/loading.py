"""Composes what loads models, and logs what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from penstock.backends import onnx
from penstock.config import Config
from penstock.core.errors import ModelLoadError
from penstock.core.garbage import paused
from penstock.core.run_recorder import RunRecorder
from penstock.models.model import Model
from penstock.models.registry import MakeObserver, ModelRegistry, OnLoading
from penstock.models.repository import ModelOnDisk, scan
from penstock.models.trial.cache import LearnedCache, default_folder
from penstock.models.trial.process import TrialProcess
from penstock.models.trial.trials import Collaborators
from penstock.observability.logs import logger
from penstock.scheduling.verification import Verifier

log = logger(__name__)

OPENER = "penstock.backends.onnx:OnnxBackend"
"""What a child process opens model files with."""


def registry(
    config: Config, make_observer: MakeObserver, cores: int, runs: RunRecorder | None, verifier: Verifier
) -> ModelRegistry:
    """The registry of models, which tries them as the settings say.

    Args:
        config: the settings.
        make_observer: makes the observer of a model that has been loaded.
        cores: how many processors the server is to use.
        runs: records which models are being run; None to record nothing.
        verifier: verifies batches of live requests.
    """
    process = TrialProcess(config.trial, OPENER) if config.trial.enabled else None
    folder = Path(config.cache.folder) if config.cache.folder else default_folder()
    cache = LearnedCache(folder, _log_not_kept) if config.cache.enabled and folder else None
    trying = Collaborators(process, cache, onnx.version(), _log_no_process)
    open_backend = partial(onnx.OnnxBackend, share=cores)
    return ModelRegistry(config, open_backend, make_observer, cores, runs, trying, verifier)


def load(
    models: ModelRegistry, path: Path, loading: OnLoading, again: Sequence[ModelOnDisk] | None = None
) -> Sequence[ModelOnDisk]:
    """Loads the models of a repository, or one file.

    Args:
        models: takes the models.
        path: an .onnx file or a repository.
        loading: called before each version is loaded.
        again: the models that were found earlier, which other processes serve: the path is not searched, and
            what cannot be loaded any more does not keep the others from being served.

    Returns:
        The models that were found.

    Raises:
        StartupError: as `scan` and `ModelRegistry.load_all`.
    """
    found = scan(path, _log_skipped) if again is None else again
    # What is loaded lives on: to look through it for garbage, again and again, takes a tenth of the time.
    with paused():
        models.load_all(found, _log_model, _log_load_failure, loading, serve_rest=again is not None)
    for broken in models.broken:
        log.error("model is not served", model=broken.name, version=broken.version, reason=broken.reason)
    return found


def _log_model(model: Model) -> None:
    if log.shows_info:
        _log_ready(model)
    policy = model.batcher.policy
    if policy.batched and policy.max_rows > max(policy.queue_rows, 2):
        log.warning(
            "no batch of this model can be full: batching.max_rows is more than batching.queue_rows",
            model=model.name,
            version=model.version,
            max_rows=policy.max_rows,
            queue_rows=policy.queue_rows,
        )


def _log_ready(model: Model) -> None:
    log.info(
        "model ready",
        model=model.name,
        version=model.version,
        inputs=[str(spec) for spec in model.signature.inputs.values()],
        outputs=[str(spec) for spec in model.signature.outputs.values()],
        batched=model.batching.enabled,
        reason=model.batching.reason,
        **({"golden": model.golden} if model.golden else {}),
        **({"keeps": str(model.sequence_state)} if model.sequence_state else {}),
    )
    if model.advice:
        log.info(
            "the model seems to have a state that is not declared",
            model=model.name,
            version=model.version,
            advice=model.advice,
        )


def _log_skipped(path: Path, reason: str) -> None:
    log.warning("skipped: not a model", path=str(path), reason=reason)


def _log_load_failure(name: str, version: int, error: ModelLoadError) -> None:
    """Logs the full message of ONNX Runtime; the error itself has the part that an operator needs."""
    if error.__cause__ is not None:
        log.info("model cannot be loaded", model=name, version=version, cause=str(error.__cause__))


def _log_not_kept(reason: str) -> None:
    log.info("what is learned about models is not kept for the next start", reason=reason)


def _log_no_process(reason: str) -> None:
    log.warning(
        "models are tried in this process, since there is no child process for it: a model that ends its "
        "process ends the server",
        reason=reason,
    )
