"""A model file that has been opened, with what `model.toml` declares of its state, samples and padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from penstock.backends.backend import Backend
from penstock.config import BatchingConfig, ModelConfig, RuntimeConfig
from penstock.core.errors import ModelLoadError
from penstock.core.tensors import Signature
from penstock.models.checks.axes import RowAxes, axes_by_name
from penstock.models.checks.turned import turned
from penstock.models.padded_inputs import AtBucket
from penstock.models.padding import plan_padding
from penstock.models.rows_first import RowsFirst
from penstock.models.samples import Sample, read_sample
from penstock.models.sequence import SequenceState, read_sequence_state
from penstock.scheduling.packing.padding import PaddingPlan

OpenBackend = Callable[[Path, RuntimeConfig, int], Backend]
"""Opens a model file: its path, its settings, and how many runs may go on at the same time."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that is to be loaded, and the settings that decide how it is run.

    Attributes:
        path: the model file.
        settings: the `model.toml`.
        batching: the settings of its batching, those of the server included.
        runtime: the settings of ONNX Runtime, those of the server included.
        cores: the processors to divide among runs.
        own_folder: the model's folder, if another tool laid it out.
    """

    path: Path
    settings: ModelConfig
    batching: BatchingConfig
    runtime: RuntimeConfig
    cores: int
    own_folder: Path | None = None

    @property
    def padded_tolerance(self) -> float:
        """The largest accepted difference between padded rows and rows alone; 0 for the usual one."""
        return self.settings.padding.tolerance or self.batching.tolerance

    @property
    def folder(self) -> Path:
        """The model's folder, which the names of files in its settings are relative to."""
        return self.own_folder or self.path.parent.parent


class Opened(NamedTuple):
    """A model that has been opened.

    Attributes:
        backend: runs it.
        runs_in_parallel: how many of its runs may go on at the same time.
        cores: how many each of them works on.
        sequence_state: the state that the server keeps for it.
        sample: what is known of a request.
        padding: how its requests are padded; None if they are not.
        axes: where the rows of each tensor lie, as `RowsFirst` shows the states.
    """

    backend: Backend
    runs_in_parallel: int
    cores: int
    sequence_state: SequenceState | None
    sample: Sample
    padding: PaddingPlan | None
    axes: RowAxes

    @property
    def states_first(self) -> Backend:
        """The model with the rows of all states along their first axis."""
        return self.backend if self.sequence_state is None else RowsFirst(self.backend, self.sequence_state)

    @property
    def rows_first(self) -> Backend:
        """The model with rows along the first axis of all tensors, to be checked and timed."""
        axes = self.axes
        return turned(self.states_first, axes.signature, axes.decided, axes.name)

    @property
    def sample_rows_first(self) -> Sample:
        """What is known of a request to that model."""
        return self.sample.turned(self.axes.signature)

    @property
    def declared(self) -> Signature:
        """The signature, as it was found to be."""
        state = self.sequence_state
        graph, found = self.backend.signature, self.axes.signature
        if found is graph:
            return graph
        states = {name for each in state.tensors for name in (each.input, each.output)} if state else set()
        inputs, outputs = (
            {name: declared[name] if name in states else spec for name, spec in seen.items()}
            for declared, seen in ((graph.inputs, found.inputs), (graph.outputs, found.outputs))
        )
        return replace(graph, inputs=inputs, outputs=outputs)

    def with_axes(self, axes: RowAxes) -> Opened:
        """The model, with its rows along these axes.

        Raises:
            ModelLoadError: they cannot be padded.
        """
        if self.padding is not None and axes.moved:
            raise ModelLoadError(f"[padding] needs rows along the first axis of every tensor; {axes}")
        return self._replace(axes=axes)

    def to_be_tried(self, backend: Backend) -> Backend:
        """`backend`, which is `rows_first` or wraps it, as generated input is made for it."""
        return AtBucket(backend, self.padding) if self.padding else backend


def opened(
    candidate: Candidate,
    open_backend: OpenBackend,
    runs_in_parallel: int,
    cores: int,
    row_axes_of: Callable[[Signature], RowAxes] | None = None,
) -> Opened:
    """Opens a model and reads what its settings declare.

    Args:
        candidate: what is opened.
        open_backend: opens its file.
        runs_in_parallel: how many of its runs may go on at the same time.
        cores: how many each of them works on.
        row_axes_of: where the rows lie; as the settings and the names of axes say, if not given.

    Raises:
        ModelLoadError: the file cannot be opened, or the settings do not fit it.
    """
    settings = candidate.settings
    backend = open_backend(candidate.path, candidate.runtime, runs_in_parallel)
    signature = backend.signature
    state = read_sequence_state(candidate.folder, settings.sequence, signature, settings.batching.axes)
    _check_axes(settings, state)
    # The shape of a sample has its rows first: one of another batch axis cannot be described.
    states = (
        {each.input for each in state.tensors if each.axis or not state.may_be_sent(each)} if state else ()
    )
    left_out = {settings.padding.mask, settings.padding.lengths}
    sample = read_sample(settings.sample, signature, states, candidate.folder, left_out)
    padding = plan_padding(settings.padding, signature)
    if padding is not None and state is not None:
        raise ModelLoadError("[padding] and [sequence] cannot be combined: the state has a fixed length")
    shown = backend if state is None else RowsFirst(backend, state)
    if row_axes_of is None:
        axes = axes_by_name(shown.signature, settings.batching.axes)
    else:
        axes = row_axes_of(shown.signature)
    return Opened(backend, runs_in_parallel, cores, state, sample, padding, axes).with_axes(axes)


def _check_axes(settings: ModelConfig, state: SequenceState | None) -> None:
    states = {each.input for each in state.tensors} if state else set()
    for name in states.intersection(settings.batching.axes):
        raise ModelLoadError(f"batching.axes names input {name}, which is a state; set sequence.axis instead")
