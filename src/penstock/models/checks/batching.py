"""Finds out whether a model may be batched.

Batching must never change an answer. The graph has to declare the first axis open on all inputs and
outputs, but for scalar inputs, of which a batch has one value. Then the graph's analysis and a check decide:

- rows mix by the graph: the model runs alone, and the node is named;
- the graph is row-wise: rows are run together and alone, and the answers must agree within the tolerance;
- the graph does not tell: the answers must agree, and rows must have been seen to have different answers.

A model with a state is checked through `penstock.models.sequence.RowsFirst`, with generated states.

What the check alone decides on may still be wrong: rows may affect each other only for values or in batch
sizes that were not tried, or by less than the tolerance. Set `batching.enabled = false` for such a model. Use
`[sample]` for a model that fails on generated input, or behaves differently on it than on real requests.
"""

from __future__ import annotations

from penstock.backends.backend import Backend
from penstock.config.toml import toml_value
from penstock.core.tensors import Signature, TensorSpec
from penstock.models.analysis.facts import NOT_ANALYSED, GraphFacts, Verdict
from penstock.models.checks.axes import shared_names
from penstock.models.checks.comparing import BLIND, BLIND_BY_FILE, RANDOM, Comparison
from penstock.models.model import Batching
from penstock.models.samples import UNKNOWN, Sample

BATCH_SIZES = (2, 3, 8)
"""The batch sizes that are tried, besides the largest that is allowed."""

ROW_WISE = "the graph is row-wise"


def check_batching(  # noqa: PLR0913 - what is known of a model
    backend: Backend,
    wanted: bool,
    forced: bool,
    max_rows: int,
    sample: Sample = UNKNOWN,
    facts: GraphFacts = NOT_ANALYSED,
    exact: bool = False,
    tolerance: float = 0.0,
) -> Batching:
    """Decides whether requests may run together.

    Args:
        backend: the loaded model.
        wanted: whether the settings allow it.
        forced: use the first axes as the batch axis even if they have different names in the graph; the
            answers must agree nevertheless.
        max_rows: the most rows of a batch.
        sample: what is known of a request.
        facts: what the graph says about its rows.
        exact: whether the answers must agree bit for bit.
        tolerance: the largest accepted difference that the settings give; 0 for the usual one.
    """
    reason = why_alone(backend.signature, wanted, forced, max_rows, sample, facts)
    if reason is not None:
        return alone(reason, facts, exact)
    comparison = Comparison(backend, sample, facts, tolerance=tolerance)
    return compare(comparison, sorted({*BATCH_SIZES, max_rows}), sample, facts, exact)


def why_alone(  # noqa: PLR0913 - what is known of a model
    signature: Signature,
    wanted: bool,
    forced: bool,
    max_rows: int,
    sample: Sample = UNKNOWN,
    facts: GraphFacts = NOT_ANALYSED,
) -> str | None:
    """Why requests cannot run together, as far as that is known without a run; see `check_batching`."""
    if not wanted:
        return "switched off in model.toml"
    if max_rows < 2:
        return "max_rows is 1"
    return _why_not_by_shape(signature, forced) or _why_not_by_graph(signature, sample, facts)


def _why_not_by_graph(signature: Signature, sample: Sample, facts: GraphFacts) -> str | None:
    """Why the graph does not allow batching, or nothing could be seen of a graph that does not tell."""
    if facts.verdict is Verdict.MIXES:
        return facts.reason
    if facts.verdict is Verdict.ROW_WISE:
        return None
    if facts.random_node:
        return f"{facts.random_node} draws random numbers"
    return _why_not_by_sample(signature, sample)


def alone(reason: str, facts: GraphFacts, exact: bool = False, *why: str) -> Batching:
    """The verdict on a model whose requests run alone."""
    return Batching(False, reason, exact=exact, proven=facts.verdict, why=(_by_graph(facts), *why))


def compare(
    comparison: Comparison, sizes: list[int], sample: Sample, facts: GraphFacts, exact: bool
) -> Batching:
    """Compares batches of these sizes, then rows of other values and lengths.

    Returns:
        The verdict.
    """
    for rows in sizes:
        reason = comparison.size(rows)
        if reason is not None:
            return alone(reason, facts, exact)
    reason = comparison.other_values()
    if reason is None and comparison.is_blind() and not comparison.is_row_wise:
        reason = comparison.look_harder()
        if reason is None and comparison.is_blind():
            reason = BLIND_BY_FILE.format(sample.file) if sample.file else BLIND
    return alone(reason, facts, exact) if reason is not None else agreed(comparison, facts, exact)


def agreed(comparison: Comparison, facts: GraphFacts, exact: bool) -> Batching:
    """The verdict on a model whose rows agreed in all that was compared."""
    why = comparison.described()
    if comparison.is_random:
        if exact:
            return alone(f"{RANDOM}, and batching.exact is set", facts, exact, why)
        return Batching(True, f"{ROW_WISE}; {RANDOM}", proven=facts.verdict, why=(_by_graph(facts), why))
    worst = comparison.worst
    if exact and worst:
        reason = f"rows run together and alone agree within {worst:.1e} only, and batching.exact is set"
        return alone(reason, facts, exact, why)
    prefix = f"{ROW_WISE}; " if comparison.is_row_wise else ""
    reason = f"{prefix}rows run together and alone {comparison.said()}"
    return Batching(True, reason, worst, exact, facts.verdict, (_by_graph(facts), why))


def _by_graph(facts: GraphFacts) -> str:
    """What the graph says, as a sentence."""
    if facts.verdict is Verdict.ROW_WISE:
        return "by the graph, each row of the outputs depends on its own row of the inputs only"
    if facts.verdict is Verdict.MIXES:
        return f"by the graph, rows mix: {facts.reason}"
    return f"the graph does not show whether rows mix: {facts.reason}"


def _why_not_by_shape(signature: Signature, forced: bool) -> str | None:
    """Why the declared shapes do not allow batching; None if they do."""
    tensors = [("input", spec) for spec in signature.inputs.values()]
    tensors += [("output", spec) for spec in signature.outputs.values()]
    if not signature.inputs:
        return "it has no inputs"
    for role, spec in tensors:
        reason = _why_no_rows(role, spec)
        if reason is not None:
            return reason
    if not any(spec.shape for spec in signature.inputs.values()):
        return "all its inputs are scalars"
    shared = shared_names(spec for _, spec in tensors)
    names = {spec.name: spec.shape[0] for _, spec in tensors if spec.shape and spec.shape[0] in shared}
    if len(set(names.values())) > 1 and not forced:
        listed = ", ".join(f"{tensor} {axis}" for tensor, axis in names.items())
        return f"the first axes have different names ({listed}); batching.enabled = true overrides this"
    return None


def _why_no_rows(role: str, spec: TensorSpec) -> str | None:
    """Why the first axis of a tensor cannot be rows; None if it can, or if the tensor is an input scalar."""
    if spec.shape is None:
        return f"{role} {spec.name} declares no shape"
    if not spec.shape:
        return f"output {spec.name} is a scalar" if role == "output" else None
    if isinstance(spec.shape[0], int):
        reason = f"the first axis of {role} {spec.name} is fixed at {spec.shape[0]}"
        opened = [axis for axis, length in enumerate(spec.shape) if isinstance(length, str)]
        if role == "output" or spec.shape[0] == 1 or not opened:
            return reason
        setting = f"batching.axes = {toml_value({spec.name: opened[0]})}"
        return f"{reason}; if its rows lie along axis {opened[0]}, set {setting}"
    return None


def _why_not_by_sample(signature: Signature, sample: Sample) -> str | None:
    """Why the check would find nothing: equal rows have equal answers even if they affect each other."""
    if all(name in sample.values for name, spec in signature.inputs.items() if spec.shape):
        return "sample.values makes all rows equal, so the check cannot show whether rows affect each other"
    return None
