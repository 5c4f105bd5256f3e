"""What is in memory: loads versions, and holds all that are loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from penstock.backends.backend import Backend
from penstock.config import (
    BatchingConfig,
    Config,
    ModelConfig,
    RuntimeConfig,
    effective_batching,
    effective_runtime,
)
from penstock.errors import ModelLoadError
from penstock.messages import Observer
from penstock.models.check import (
    LEAST_ROWS,
    check_batching,
    measure_cost,
    rows_worth_batching,
    runs_on_made_up_input,
)
from penstock.models.class_labels import read_class_labels
from penstock.models.model import Batching, Model
from penstock.models.padding import AtBucket, check_padding, plan_padding
from penstock.models.repository import ModelOnDisk
from penstock.models.samples import Sample, read_sample
from penstock.models.sequence import KeptState, RowsFirst, proposal, read_kept_state, scalars_of
from penstock.scheduling.batch import Packing, Rows, RowsBesideScalars
from penstock.scheduling.batcher import BatchPolicy, DynamicBatcher
from penstock.scheduling.bounds import Bounds, Total
from penstock.scheduling.cost import RunCost
from penstock.scheduling.execution import Isolation
from penstock.scheduling.padding import PaddedRows, PaddingPlan
from penstock.scheduling.sequences import SequenceBatcher
from penstock.scheduling.state import States
from penstock.scheduling.steps import SequenceBounds

HEAVY_SECONDS = 0.005  # a run of one row that takes longer is divided among the cores

DEARER = 1.25  # how much dearer a row of a larger batch may be found: measurements vary by as much

OpenBackend = Callable[[Path, RuntimeConfig, int], Backend]
"""Opens a model file: its path, its settings, and how many runs may go on at the same time."""

MakeObserver = Callable[[Model], Observer]
"""Makes what is told how the requests of a model end."""


class ModelRegistry:
    """The loaded models.

    Args:
        config: the server's settings.
        open_backend: opens model files.
        make_observer: makes the observer of a model that has been loaded.
        cores: the processors to share out.
    """

    def __init__(
        self, config: Config, open_backend: OpenBackend, make_observer: MakeObserver, cores: int = 1
    ) -> None:
        self._config = config
        self._cores = cores
        self._open_backend = open_backend
        self._make_observer = make_observer
        self._total = Total(Bounds(config.server.total_queue_rows, config.server.total_queue_bytes))
        self._models: dict[tuple[str, int], Model] = {}
        self._ordered: Sequence[Model] = ()

    def all(self) -> Sequence[Model]:
        """All models, by name, then by version."""
        return self._ordered

    def load_all(self, models: Sequence[ModelOnDisk], loaded: Callable[[Model], None]) -> None:
        """Loads every version of every model.

        Args:
            models: what the repository holds.
            loaded: told of each model once it is ready.

        Raises:
            ModelLoadError: at least one cannot be served; names all of those, and why.
        """
        problems = []
        for model in models:
            for version, path in model.versions.items():
                try:
                    loaded(self._load(model, version, path))
                except ModelLoadError as error:
                    problems.append(f"model {model.name} version {version}: {error}")
        self._order()
        if problems:
            raise ModelLoadError("\n".join(problems))

    def close(self) -> None:
        """Lets go of every model."""
        for model in self._models.values():
            model.backend.close()
        self._models.clear()
        self._order()

    def _load(self, on_disk: ModelOnDisk, version: int, path: Path) -> Model:
        settings = on_disk.config
        batching = effective_batching(self._config.batching, settings.batching)
        runtime = effective_runtime(self._config.runtime, settings.runtime)
        folder = path.parent.parent
        loaded = self._open(path, runtime, settings.runs_in_parallel, partial(_told, folder, settings))
        enabled = settings.batching.enabled
        padding = _padding(loaded, settings)
        tried = AtBucket(loaded.backend, padding) if padding else loaded.rows_first
        verdict, cost, max_rows = _fitted(tried, enabled, batching, loaded.sample)
        if padding is not None:
            verdict = check_padding(
                loaded.backend, padding, verdict, settings.padding.tolerance, loaded.sample
            )
        policy = _policy(verdict.enabled, batching, max_rows, loaded, settings.weight)
        packing = PaddedRows(padding) if padding else _rows(loaded, policy)
        proposed = "" if loaded.kept else proposal(loaded.backend.signature)
        model = Model(
            name=on_disk.name,
            version=version,
            backend=loaded.backend,
            batcher=_batcher(
                loaded, policy, cost, packing, self._total, self._isolation(tried, loaded.sample)
            ),
            batching=replace(verdict, reason=f"{verdict.reason}; {proposed}") if proposed else verdict,
            kept=loaded.kept,
            padding=padding,
            sample=loaded.sample,
            labels=tuple(sorted(label for label, number in settings.labels.items() if number == version)),
            is_default=version == max(on_disk.versions),
        )
        model.class_labels = read_class_labels(folder, settings.class_labels, model.signature.outputs)
        model.observe(self._make_observer(model))
        self._models[on_disk.name, version] = model
        return model

    def _isolation(self, backend: Backend, sample: Sample) -> Isolation:
        return Isolation(
            self._config.breaker.failures,
            self._config.breaker.open_seconds,
            self._config.runners.hung_seconds,
            partial(runs_on_made_up_input, backend, sample),
        )

    def _open(
        self,
        path: Path,
        runtime: RuntimeConfig,
        runs_in_parallel: int,
        told_of: Callable[[Backend], tuple[KeptState | None, Sample]],
    ) -> _Loaded:
        """The model, and how many of its runs may go on at the same time.

        Where the settings leave both open, a light model runs once on every core and a heavy one once on
        all: dividing a short run costs more than it gains, while a long one makes its caller wait.
        """
        if runs_in_parallel or runtime.intra_op_threads or self._cores == 1:
            wanted = runs_in_parallel or max(self._cores // (runtime.intra_op_threads or 1), 1)
            backend = self._open_backend(path, runtime, wanted)
            cores = min(runtime.intra_op_threads or max(self._cores // wanted, 1), self._cores)
            return _Loaded(backend, wanted, cores, *told_of(backend))
        backend = self._open_backend(path, runtime, self._cores)
        loaded = _Loaded(backend, self._cores, 1, *told_of(backend))
        cost = measure_cost(loaded.rows_first, batched=False, max_rows=1, sample=loaded.sample)
        if cost.expect(1) < HEAVY_SECONDS:
            return loaded
        backend.close()
        opened = self._open_backend(path, runtime, 1)
        return loaded._replace(backend=opened, runs_in_parallel=1, cores=self._cores)

    def _order(self) -> None:
        self._ordered = tuple(self._models[key] for key in sorted(self._models))


class _Loaded(NamedTuple):
    """A model that has been opened.

    Attributes:
        backend: runs it.
        runs_in_parallel: how many of its runs may go on at the same time.
        cores: how many each of them works on.
        kept: the state that the server keeps for it.
        sample: what is known of a request.
    """

    backend: Backend
    runs_in_parallel: int
    cores: int
    kept: KeptState | None
    sample: Sample

    @property
    def rows_first(self) -> Backend:
        """The model as one whose rows lie along the first axes, as which it is checked and timed."""
        return self.backend if self.kept is None else RowsFirst(self.backend, self.kept)


def _told(folder: Path, settings: ModelConfig, backend: Backend) -> tuple[KeptState | None, Sample]:
    """What model.toml says of a model's state and of what its requests hold."""
    kept = read_kept_state(folder, settings.sequence, backend.signature)
    states = {each.input for each in kept.tensors} if kept else ()
    return kept, read_sample(settings.sample, backend.signature, states)


def _padding(loaded: _Loaded, settings: ModelConfig) -> PaddingPlan | None:
    padding = plan_padding(settings.padding, loaded.backend.signature)
    if padding is not None and loaded.kept is not None:
        raise ModelLoadError("[padding] and [sequence] do not go together: the state is of one length")
    return padding


def _rows(loaded: _Loaded, policy: BatchPolicy) -> Rows:
    scalars = scalars_of(loaded.backend.signature)
    return RowsBesideScalars(policy.batched, scalars) if scalars else Rows(policy.batched)


def _batcher(  # noqa: PLR0913 - what it is composed of
    loaded: _Loaded, policy: BatchPolicy, cost: RunCost, packing: Packing, total: Total, isolation: Isolation
) -> DynamicBatcher:
    kept = loaded.kept
    if kept is None:
        return DynamicBatcher(loaded.backend, policy, cost, packing, total, isolation)
    bounds = SequenceBounds(kept.idle_seconds, kept.max_sequences)
    states = States(packing, kept.tensors)
    return SequenceBatcher(loaded.backend, policy, cost, states, bounds, total, isolation)


def _fitted(
    backend: Backend, enabled: bool | Literal["auto"], batching: BatchingConfig, sample: Sample
) -> tuple[Batching, RunCost, int]:
    """Whether requests may run together, what runs cost, and the most rows of a batch.

    Where the settings leave the rows open, they follow the cost; but not further than rows run together are
    seen to agree, and to cost no more each than in smaller batches.
    """
    most = max(batching.queue_rows, 2)  # no batch has more rows than may wait
    rows = batching.max_rows or min(LEAST_ROWS, most)
    verdict = check_batching(backend, enabled is not False, enabled is True, rows, sample)
    cost = measure_cost(backend, verdict.enabled, rows, sample)
    if batching.max_rows or not verdict.enabled:
        return verdict, cost, rows
    more = min(rows_worth_batching(cost, backend.signature, batching.queue_rows, sample), most)
    if more > rows:
        larger = check_batching(backend, True, enabled is True, more, sample)
        if larger.enabled:
            measured = measure_cost(backend, True, more, sample)
            if measured.expect(more) / more <= DEARER * cost.expect(rows) / rows:
                return larger, measured, more
    return verdict, cost, rows


def _policy(
    batched: bool, batching: BatchingConfig, max_rows: int, loaded: _Loaded, weight: float
) -> BatchPolicy:
    return BatchPolicy(
        batched=batched,
        max_rows=max_rows,
        max_delay_seconds=batching.max_delay_seconds if batched else 0.0,
        queue_rows=batching.queue_rows,
        queue_bytes=batching.queue_bytes,
        runs_in_parallel=loaded.runs_in_parallel,
        weight=weight,
        cores=loaded.cores,
    )
