"""Tries a model: runs it on generated input to find out whether its rows mix and what its runs cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.backends.onnx_ends import file_facts
from penstock.core.tensors import Array
from penstock.models.analysis.facts import GraphFacts, Verdict
from penstock.models.checks.announced import announce_as_it_comes
from penstock.models.checks.axes import RowAxes, find_row_axes
from penstock.models.checks.cost import measure_cost
from penstock.models.checks.fit import fit
from penstock.models.checks.trying import Clock, undisturbed
from penstock.models.loaded_shapes import ShapeNotes
from penstock.models.opened import Candidate, OpenBackend, Opened, opened
from penstock.models.output_lengths import find_output_lengths
from penstock.models.padding import check_padding
from penstock.models.samples import Sample
from penstock.models.sequence_advice import tried_proposal
from penstock.models.sequence_trial import check_steps
from penstock.models.trial.graph import graph_facts
from penstock.models.trial.learned import Layout, Learned, LearnedArray, LearnedCost, today
from penstock.scheduling.packing.padding import PaddingPlan

MOST_EXAMPLE_BYTES = 1 << 16
HEAVY_SECONDS = 0.005  # a model whose run of one row takes longer runs on all cores


def learn(candidate: Candidate, open_backend: OpenBackend) -> tuple[Learned, Opened]:
    """Opens a model and tries it, in this process.

    Args:
        candidate: what is tried.
        open_backend: opens its file.

    Returns:
        What was learned, and the model, opened as it is to be served.

    Raises:
        ModelLoadError: it cannot be served.
    """
    settings = candidate.settings
    found = _shared_out(candidate, open_backend)
    declared = found.states_first.signature
    if found.sequence_state is None:
        announce_as_it_comes(found.backend, found.sample_rows_first)
    facts = graph_facts(candidate.path, _input_axes(found))
    found = found.with_axes(_row_axes(candidate, found, facts))
    sample = found.sample_rows_first
    if found.sequence_state is not None:
        check_steps(found.rows_first, found.sequence_state, sample)
    noted = ShapeNotes(found.rows_first)
    if found.padding is not None:
        found = found._replace(padding=find_output_lengths(noted, found.padding, sample))
    enabled, asked = settings.batching.enabled, found.padding is not None
    clock = _clock(candidate, found)
    tried = found.to_be_tried(noted)
    verdict, cost, max_rows = fit(tried, enabled, candidate.batching, sample, facts, asked, clock)
    if found.padding is not None:
        verdict = check_padding(noted, found.padding, verdict, candidate.padded_tolerance, sample)
    learned = Learned(
        batching=verdict,
        cost=LearnedCost.of(cost),
        max_rows=max_rows,
        runs_in_parallel=found.runs_in_parallel,
        cores=found.cores,
        shapes=noted.shapes(),
        changes=tuple(found.backend.file.changes),
        layout=Layout.of(found.axes, declared),
        file=file_facts(candidate.path),
        facts=facts,
        example=_example(noted.example, found.sample),
        advice="" if found.sequence_state else tried_proposal(found.backend, found.sample),
        date=today(),
        **_of_outputs(found.padding),
    )
    return learned, found


def _of_outputs(plan: PaddingPlan | None) -> dict[str, Any]:
    """What was found of the outputs of a padded model."""
    if plan is None:
        return {}
    rules = {name: {axis: tuple(rule) for axis, rule in axes.items()} for name, axes in plan.rules.items()}
    return {"cut": {name: tuple(axes) for name, axes in plan.outputs.items()}, "rules": rules}


def _input_axes(found: Opened) -> dict[str, int | None]:
    """The axis along which the rows of each input lie; None for an input that a whole batch shares."""
    inputs = found.axes.signature.inputs
    axes = {name: None if spec.shape == () else spec.row_axis for name, spec in inputs.items()}
    if found.sequence_state is not None:
        kept = (*found.sequence_state.tensors, *found.sequence_state.constants)
        axes |= {each.input: each.axis for each in kept}
    return axes


def _clock(candidate: Candidate, found: Opened) -> Clock | None:
    """What runs are timed with."""
    runtime = candidate.runtime
    return undisturbed(found.backend, max(found.cores, runtime.intra_op_threads, runtime.inter_op_threads))


def _row_axes(candidate: Candidate, found: Opened, facts: GraphFacts) -> RowAxes:
    """Where the rows lie: by names, by the graph, and by runs where these say nothing."""
    settings = candidate.settings
    states = {each.output for each in found.sequence_state.tensors} if found.sequence_state else set()
    # A graph with one fixed row was analysed as if it were open.
    inputs = [spec for spec in found.axes.signature.inputs.values() if spec.shape]
    is_open = all(isinstance((spec.shape or ())[spec.row_axis], str) for spec in inputs)
    from_graph = {name: axis for name, axis in facts.output_axes.items() if is_open and name not in states}
    is_wanted = settings.batching.enabled is not False and candidate.batching.max_rows != 1
    return find_row_axes(
        found.states_first,
        settings.batching.axes,
        found.sample,
        from_graph,
        may_run=is_wanted and facts.verdict is not Verdict.MIXES,
    )


def _example(inputs: Mapping[str, Array], sample: Sample) -> dict[str, LearnedArray]:
    """The inputs as plain data, without the values of real requests, which are not kept; empty if large."""
    real = {name for each in sample.requests for name in each}
    arrays = {name: LearnedArray.of(array) for name, array in inputs.items() if name not in real}
    return arrays if sum(each.size for each in arrays.values()) <= MOST_EXAMPLE_BYTES else {}


def _shared_out(candidate: Candidate, open_backend: OpenBackend) -> Opened:
    """The model, opened for as many runs at the same time as suit it.

    If the settings leave that open, a light model has one run on each core, and a heavy model one run on
    all cores: dividing a short run costs more than it gains, while a long run makes its caller wait.
    """
    cores, threads = candidate.cores, candidate.runtime.intra_op_threads
    wanted = candidate.settings.runs_in_parallel
    if wanted or threads or cores == 1:
        runs = wanted or max(cores // (threads or 1), 1)
        return opened(candidate, open_backend, runs, min(threads or max(cores // runs, 1), cores))
    light = opened(candidate, open_backend, cores, 1)
    clock = _clock(candidate, light)
    sample = light.sample_rows_first
    cost = measure_cost(light.rows_first, batched=False, max_rows=1, sample=sample, clock=clock)
    if cost.expect(1) < HEAVY_SECONDS:
        return light
    light.backend.close()
    backend = open_backend(candidate.path, candidate.runtime, 1)
    return light._replace(backend=backend, runs_in_parallel=1, cores=cores)
