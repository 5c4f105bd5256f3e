"""The registry of loaded models: loads every version, and holds those that are in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import c_uint32
from functools import partial
from pathlib import Path

from penstock.config import (
    Config,
    effective_batching,
    effective_runtime,
)
from penstock.core.errors import ModelLoadError
from penstock.core.request import Observer
from penstock.core.run_recorder import RunRecorder
from penstock.core.tensors import Array
from penstock.models.analysis.facts import Verdict
from penstock.models.checks.cost import WORTH_SECONDS
from penstock.models.checks.live import LiveCheck, verified, why_not_verified
from penstock.models.checks.trying import runs_on_generated_input
from penstock.models.class_labels import read_class_labels
from penstock.models.exporters import way_to_batches
from penstock.models.golden_rows import Runnable, as_served, first_row, verify
from penstock.models.loaded_shapes import note_shapes
from penstock.models.model import Broken, Model
from penstock.models.opened import Candidate, OpenBackend, Opened
from penstock.models.repository import ModelOnDisk
from penstock.models.sequence import scalars_of
from penstock.models.trial.learned import Learned
from penstock.models.trial.trials import Collaborators, Trials
from penstock.scheduling.batch_watch import BatchWatch
from penstock.scheduling.batcher import DynamicBatcher
from penstock.scheduling.cost import SETTLED_RUNS, RunCost
from penstock.scheduling.packing.padding import PaddedRows
from penstock.scheduling.packing.rows import Packing, Rows, RowsAlong, RowsBesideScalars
from penstock.scheduling.packing.states import States
from penstock.scheduling.policy import BatchPolicy, Isolation
from penstock.scheduling.queue.limits import QueueLimits, QueueTotal
from penstock.scheduling.sequence_batcher import SequenceBatcher
from penstock.scheduling.sequence_table import SequenceLimits
from penstock.scheduling.verification import NO_VERIFIER, Verifier

MUCH = 2.0
"""A cost is wrong if live runs take less time by this factor."""

IN_THIS_PROCESS = Collaborators()
"""Models are tried in this process at each start, and nothing is kept."""

OnFailed = Callable[[str, int, ModelLoadError], None]
"""Takes a model's name, its version, and why it cannot be served."""

OnLoading = Callable[[str, int, int, int], None]
"""Takes what is loaded next: a model's name, its version, and which of how many versions this is."""

MakeObserver = Callable[[Model], Observer]
"""Makes the observer of a model, which is told how its requests end."""


class ModelRegistry:
    """The loaded models.

    Args:
        config: the server's settings.
        open_backend: opens model files.
        make_observer: makes the observer of a model that has been loaded.
        cores: the processors to divide among runs.
        runs: records which models are being run; None to record nothing.
        trying: how models are tried before they are loaded.
        verifier: verifies batches of live requests.

    Attributes:
        broken: the versions that cannot be served.
    """

    def __init__(  # noqa: PLR0913 - what it is composed of
        self,
        config: Config,
        open_backend: OpenBackend,
        make_observer: MakeObserver,
        cores: int = 1,
        runs: RunRecorder | None = None,
        trying: Collaborators = IN_THIS_PROCESS,
        verifier: Verifier = NO_VERIFIER,
    ) -> None:
        self._verifier = verifier
        self._config = config
        self._cores = cores
        self._runs = runs
        self._trials = Trials(open_backend, trying)
        self._make_observer = make_observer
        self._total = QueueTotal(QueueLimits(config.server.total_queue_rows, config.server.total_queue_bytes))
        self._models: dict[tuple[str, int], Model] = {}
        self._forget: dict[Model, Callable[[], None]] = {}
        self._ordered: Sequence[Model] = ()
        self.broken: Sequence[Broken] = ()

    def all(self) -> Sequence[Model]:
        """All models, by name, then by version."""
        return self._ordered

    def load_all(
        self,
        models: Sequence[ModelOnDisk],
        loaded: Callable[[Model], None],
        failed: OnFailed = lambda name, version, error: None,
        loading: OnLoading = lambda name, version, number, count: None,
        *,
        serve_rest: bool = False,
    ) -> None:
        """Loads every version of every model.

        Args:
            models: the models of the repository.
            loaded: called with each model once it is ready.
            failed: called with the name and version of each that cannot be served, and the error.
            loading: called before each version is loaded, which may take long.
            serve_rest: whether those that can be loaded are served in any case, as by `on_broken = "serve"`.

        Raises:
            ModelLoadError: at least one cannot be served, or, with `on_broken = "serve"`, all of them; names
                those, and why.
        """
        broken: list[Broken] = []
        versions = [(model, version, path) for model in models for version, path in model.versions.items()]
        try:
            for number, (model, version, path) in enumerate(versions, 1):
                log = partial(loading, model.name, version, number, len(versions))
                try:
                    loaded(self._recorded(model, version, path, log))
                except ModelLoadError as error:
                    broken.append(_broken(model, version, error))
                    failed(model.name, version, error)
        finally:
            self._trials.end()
        self._order()
        self.broken = tuple(broken)
        serve_rest = serve_rest or self._config.server.on_broken == "serve"
        if broken and not (serve_rest and self._models):
            raise ModelLoadError("\n".join(map(str, broken)))

    def close(self) -> None:
        """Closes every model and frees its memory. Wrong costs are forgotten; see `_forget_if_wrong`."""
        for model in self._models.values():
            self._forget.pop(model)()
            model.backend.close()
        self._models.clear()
        self._order()

    def _recorded(self, on_disk: ModelOnDisk, version: int, path: Path, log: Callable[[], None]) -> Model:
        """Loads a version; loading, which runs the model, is recorded as a run.

        The run is recorded before `log` is called: if the process ends later, the record has this version.
        """
        name = f"{on_disk.name} version {version}"
        recorded = self._runs.counter(name) if self._runs else c_uint32()
        recorded.value = 1
        try:
            log()
            return self._load(on_disk, version, path, recorded)
        finally:
            recorded.value = 0

    def _load(self, on_disk: ModelOnDisk, version: int, path: Path, recorded: c_uint32) -> Model:
        settings = on_disk.config
        batching = effective_batching(self._config.batching, settings.batching)
        runtime = effective_runtime(self._config.runtime, settings.runtime)
        candidate = Candidate(path, settings, batching, runtime, self._cores, on_disk.folder)
        prepared = self._trials.prepare(candidate)
        learned, opened = prepared.learned, prepared.opened
        verdict = learned.batching
        node = learned.facts.unbounded_node if settings.inline == "auto" else ""
        policy = _policy(candidate, learned, opened, self._config.server.max_answer_bytes, inline=not node)
        packing = PaddedRows(opened.padding) if opened.padding else _rows(opened, policy)
        isolation = self._isolation(opened, recorded)
        more = str(opened.axes) if verdict.enabled else _way_to_batches(opened)
        reason = "; ".join(filter(None, (verdict.reason, more, learned.advice)))
        runnable = as_served(opened, policy.max_rows if policy.batched else 1)
        model = Model(
            name=on_disk.name,
            version=version,
            backend=opened.backend,
            golden=_golden(opened, runnable, path),  # before the batcher, which would outlive a refusal
            batcher=_batcher(opened, policy, learned.cost.run_cost(), packing, self._total, isolation),
            batching=verdict.saying(reason, *prepared.why, *_why_not_inline(node)),
            declared=opened.declared,
            sequence_state=opened.sequence_state,
            padding=opened.padding,
            sample=opened.sample,
            advice=learned.advice,
            keep_difference=prepared.keep_difference,
            labels=_labels(on_disk, version),
            is_default=version == max(on_disk.versions),
        )
        files = settings.class_labels
        model.class_labels = read_class_labels(candidate.folder, files, model.signature.outputs)
        model.observe(self._make_observer(model))
        note_shapes(model, learned.shapes)
        model.example = _example(model, learned, opened, runnable, path)
        self._verify(model, candidate, learned)
        self._models[on_disk.name, version] = model
        self._forget[model] = partial(_forget_if_wrong, model, learned.cost.one_row_seconds, prepared.forget)
        return model

    def _verify(self, model: Model, candidate: Candidate, learned: Learned) -> None:
        """Has a share of the model's batches verified, as far as that can be done."""
        share, tolerance = candidate.batching.verify, candidate.padded_tolerance
        enabled = candidate.settings.batching.enabled
        own_lengths = model.padding is not None and model.padding.output_lengths
        why_not = why_not_verified(learned.facts.random_node, bool(own_lengths), share)
        states = model.sequence_state.tensors if model.sequence_state is not None else ()
        row_axes = {**model.row_axes, **{each.output: each.axis for each in states if each.axis}}
        live = LiveCheck(model.backend.signature.outputs, learned.batching, tolerance, row_axes)
        unproven = learned.facts.verdict is not Verdict.ROW_WISE
        watch = None
        if not why_not and self._verifier is not NO_VERIFIER:
            cores, timed = model.batcher.policy.cores, enabled == "auto" and model.padding is None
            watch = BatchWatch(
                self._verifier, model.backend, model.batcher, live, share, cores, unproven, timed
            )
        model.batcher.verify(self._verifier, watch)
        if model.batching.enabled:
            said = f"not verified on live requests: {why_not}" if why_not else verified(share, unproven)
            model.batching = model.batching.saying(model.batching.reason, said)

    def _isolation(self, opened: Opened, recorded: c_uint32) -> Isolation:
        return Isolation(
            self._config.breaker.failures,
            self._config.breaker.open_seconds,
            self._config.runners.hung_seconds,
            partial(_works, opened),
            recorded,
        )

    def _order(self) -> None:
        self._ordered = tuple(self._models[key] for key in sorted(self._models))


def _golden(opened: Opened, runnable: Runnable, path: Path) -> str:
    """What the golden rows of a version show.

    Raises:
        ModelLoadError: it misses them; then the backend is closed.
    """
    try:
        return verify(runnable, path.parent)
    except ModelLoadError:
        opened.backend.close()
        raise


def _way_to_batches(opened: Opened) -> str:
    producer = opened.backend.file.metadata.get("producer", "")
    return way_to_batches(opened.backend.signature, producer)


def _example(
    model: Model, learned: Learned, opened: Opened, runnable: Runnable, path: Path
) -> dict[str, Array]:
    """The inputs of a request that ran: a real one, where one is known."""
    # Rows along other axes are not those that requests have.
    golden = first_row(runnable, path.parent) if model.golden and not opened.axes.moved else {}
    return {**learned.example_of(model.signature.inputs), **golden, **opened.sample.first}


def _works(opened: Opened) -> bool:
    """Whether a model still runs on the inputs that it was tried with."""
    return runs_on_generated_input(opened.to_be_tried(opened.rows_first), opened.sample_rows_first)


def _why_not_inline(node: str) -> tuple[str, ...]:
    if not node:
        return ()
    return (f"{node} takes as long as the values say: no run is made by a thread that takes calls",)


def _labels(on_disk: ModelOnDisk, version: int) -> tuple[str, ...]:
    return tuple(sorted(label for label, number in on_disk.config.labels.items() if number == version))


def _broken(on_disk: ModelOnDisk, version: int, error: ModelLoadError) -> Broken:
    is_default = version == max(on_disk.versions)
    return Broken(on_disk.name, version, str(error), _labels(on_disk, version), is_default)


def _forget_if_wrong(model: Model, learned_seconds: float, forget: Callable[[], None]) -> None:
    """Has a model tried again at the next start, if the machine was busy when it was tried.

    Only costs that are too high show that: those of live runs may be high because of other runs.
    """
    costs = model.batcher.costs
    cost = costs.first
    is_settled = costs.is_single and cost.is_known and cost.runs >= SETTLED_RUNS
    if is_settled and learned_seconds >= WORTH_SECONDS and cost.expect(1) < learned_seconds / MUCH:
        forget()


def _rows(opened: Opened, policy: BatchPolicy) -> Rows:
    state = opened.sequence_state
    kept = state.step_inputs.names if state is not None and state.step_inputs is not None else ()
    scalars = [name for name in scalars_of(opened.backend.signature) if name not in kept]
    if policy.batched and opened.axes.moved:
        return RowsAlong(opened.axes.moved, scalars)
    return RowsBesideScalars(policy.batched, scalars) if scalars else Rows(policy.batched)


def _batcher(  # noqa: PLR0913 - what it is composed of
    opened: Opened,
    policy: BatchPolicy,
    cost: RunCost,
    packing: Packing,
    total: QueueTotal,
    isolation: Isolation,
) -> DynamicBatcher:
    state = opened.sequence_state
    if state is None:
        return DynamicBatcher(opened.backend, policy, cost, packing, total, isolation)
    counts_bytes = state.limits.max_bytes is not None
    limits = SequenceLimits(state.idle_seconds, state.max_sequences, counts_bytes, state.shared)
    may_be_sent = state.step_inputs is not None
    states = States(packing, (*state.tensors, *state.constants), state.limits, may_be_sent)
    return SequenceBatcher(opened.backend, policy, cost, states, limits, total, isolation, state.step_inputs)


def _policy(
    candidate: Candidate, learned: Learned, opened: Opened, max_answer_bytes: int, inline: bool
) -> BatchPolicy:
    batching, batched = candidate.batching, learned.batching.enabled
    return BatchPolicy(
        batched=batched,
        max_rows=learned.max_rows,
        max_delay_seconds=batching.max_delay_seconds if batched else 0.0,
        queue_rows=batching.queue_rows,
        queue_bytes=batching.queue_bytes,
        runs_in_parallel=opened.runs_in_parallel,
        weight=candidate.settings.weight,
        cores=opened.cores,
        inline=inline and candidate.settings.inline is not False,
        max_answer_bytes=max_answer_bytes,
    )
